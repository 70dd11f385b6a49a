"""How soon labels show that two classes were swapped, and whether unchanged inputs raise a drift alarm meanwhile.

    python -m scripts.bench_concept_drift --seeds 20

For each seed a small network is trained on 900 of scikit-learn's digits (400 more to validate) and exported; the 497
others are production: 300 of them are answered and labelled, 50 at a time, as `mlscale serve` and POST /labels write
them, and after each 50 `mlscale monitor` is run with its defaults. In the labels two classes, drawn by the seed, are
swapped; in a second store of the same events they are right. Found is a swap if `degradation` is an incident by 300
labels; an alarm is an incident of `drift` at any look. Ends with code 1 unless in 19 of 20 seeds the swap was found
without an alarm.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.e2e.retrain_place import RetrainPlace

TRAINED, VALIDATED, LABELS, STEP = 900, 400, 300, 50
_MODEL = ("model=mlp", "data=imagefolder", "data.image_size=8", "optimizer.lr=0.1", "trainer.max_epochs=15")


@dataclass(frozen=True)
class LookOutcome:
    """Incidents in a series of looks.

    Attributes:
        degraded_at: labels at which degradation began; None if it did not.
        drift: the sentence of the first drift incident; '' for none.
    """

    degraded_at: int | None
    drift: str


def main() -> None:
    """Print a line for each seed, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    args = parser.parse_args()
    found = alarms = false = passed = 0
    labels: list[int] = []
    for seed in range(args.first, args.first + args.seeds):
        swapped, clean = measure_seed(seed)
        is_found, is_alarm = swapped.degraded_at is not None, bool(swapped.drift or clean.drift)
        labels += [swapped.degraded_at] if swapped.degraded_at is not None else []
        found, alarms, passed = found + is_found, alarms + is_alarm, passed + (is_found and not is_alarm)
        false += clean.degraded_at is not None
        print(f"seed {seed}: swapped {swapped}; right {clean}", flush=True)
    print(f"| swap found within {LABELS} labels | {found} of {args.seeds} |")
    print(f"| labels until then, median (least to most) | {np.median(labels):g} ({min(labels)} to {max(labels)}) |")
    print(f"| input-drift alarm in {LABELS // STEP} looks, labels swapped or right | {alarms} of {args.seeds} |")
    print(f"| degradation with right labels | {false} of {args.seeds} |")
    sys.exit(passed < 0.95 * args.seeds)


def measure_seed(seed: int) -> tuple[LookOutcome, LookOutcome]:
    """Return the outcomes with swapped and with right labels."""
    rng = np.random.default_rng(seed)
    images, truth = draw_digits(rng)
    first, second = (str(number) for number in rng.choice(10, 2, replace=False))
    with tempfile.TemporaryDirectory() as folder:
        # The commands print what a user wants to see of one run.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            place = train_digits(Path(folder), images, truth, seed)
        shown = slice(TRAINED + VALIDATED, TRAINED + VALIDATED + LABELS)
        right = truth[shown].tolist()
        swapped = [{first: second, second: first}.get(label, label) for label in right]
        samples = [encode_png(image) for image in images[shown]]
        return look_at_labels(place, "swapped", samples, swapped), look_at_labels(place, "right", samples, right)


def draw_digits(rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.str_]]:
    """Return the digits in random order: images uint8 (1797, 8, 8) and labels (1797,)."""
    from sklearn.datasets import load_digits

    source = load_digits()
    order = rng.permutation(len(source.images))
    return np.round(source.images[order] * (255 / 16)).astype(np.uint8), source.target[order].astype(str)


def train_digits(folder: Path, images: NDArray[np.uint8], truth: NDArray[np.str_], seed: int) -> RetrainPlace:
    """Train and export a network on folders of images, and publish it as champion."""
    for number in range(TRAINED + VALIDATED):
        path = folder / "digits" / ("train" if number < TRAINED else "val") / truth[number] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(images[number]))
    place = RetrainPlace(folder / "place")
    place.folder.mkdir()
    place.train_champion(*_MODEL, f"data.root={folder}/digits", f"seed={seed}", "trainer.accelerator=cpu")
    return place


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Return an image as a client sends it."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def look_at_labels(place: RetrainPlace, name: str, samples: Sequence[bytes], labels: Sequence[str]) -> LookOutcome:
    """Write events and labels step by step, look after each step, and return the incidents."""
    from mlscale import commands
    from mlscale.events.store import EventStore
    from tests.event_writing import add_answers

    store, degraded_at, drift = EventStore(place.folder / name), None, ""
    servable = place.champion
    for start in range(0, len(samples), STEP):
        rows = slice(start, start + STEP)
        ids = [f"event-{number}" for number in range(start, start + len(samples[rows]))]
        writer = store.open_writer("m")
        add_answers(writer, servable, ids, samples[rows], version="m:v1")
        writer.close()
        store.add_labels("m", ids, labels[rows])
        words = [f"events={store.root}", f"runs_dir={place.folder}/runs", f"registry.root={place.folder}/registry"]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            result = commands.run_command("monitor", ["ref=m@champion", *words])
        if degraded_at is None and result.metrics["degradation"] == 1:
            degraded_at = start + len(ids)
        if not drift and result.metrics["drift"] == 1:
            drift = result.sentence
    return LookOutcome(degraded_at, drift)


if __name__ == "__main__":
    main()
