"""What batch scoring costs: mlscale predict's own loop against the loop that one writes by hand.

    python -m scripts.bench_predict

The work: JPEG photos (random crops of scikit-learn's sample photos, about 256×200) through decoding, the resize and
middle crop to 96 pixels, normalisation and a network, to a Parquet file of keys, classes and probabilities. The network
is a small convolution, so that all else counts, or with `--network resnet18` one that computes for longer than all
else. By hand: a Dataset with PIL and torchvision's transforms, in a DataLoader without workers and with two. mlscale
does the same and also commits parts with fsync, keeps errors as rows and can be killed. Each contender has a process of
its own for each round; rounds are interleaved; measured is wall and CPU time without imports and without building the
model, as ratios within a round. All must predict the same classes for nearly all photos: PIL resizes otherwise than
torch.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SIZE, CLASSES = 96, 10
MEAN, STD = (123.7, 116.3, 103.5), (58.4, 57.1, 57.4)
CONTENDERS = ("mlscale", "by hand", "by hand, two workers")


def main() -> None:
    """Write the photos, run all in turn, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=1200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--network", choices=("small", "resnet18"), default="small")
    parser.add_argument("--child", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(child(args.child[0], Path(args.child[1]), args.network)))
        return
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), args.photos)
        for _ in range(args.rounds):
            for name in CONTENDERS:
                command = [sys.executable, __file__, "--child", name, folder, "--network", args.network]
                said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                found[name].append(json.loads(said.splitlines()[-1]))
    show(found, args.photos)


def write(folder: Path, count: int) -> None:
    """The photos."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_images

    generator = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for number in range(count):
        whole = load_sample_images_once(load_sample_images)[number % 2]
        height, width = int(generator.integers(160, 240)), int(generator.integers(200, 300))
        top, left = (int(generator.integers(0, s - c)) for s, c in zip(whole.shape, (height, width), strict=False))
        crop = Image.fromarray(whole[top : top + height, left : left + width])
        crop.save(folder / "photos" / f"{number:05}.jpg", quality=92)


_SAMPLES: list[Any] = []


def load_sample_images_once(load: Any) -> list[Any]:
    """The two sample photos, read once."""
    if not _SAMPLES:
        _SAMPLES.extend(load().images)
    return _SAMPLES


def child(name: str, folder: Path, which: str) -> dict[str, Any]:
    """One contender in this process: what it took, and what it predicted."""
    import torch
    from torch import nn
    from torchvision.models import resnet18

    torch.manual_seed(0)
    torch.set_num_threads(2)
    small = nn.Sequential(
        nn.Conv2d(3, 16, 8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, CLASSES)
    )
    network = (small if which == "small" else resnet18(num_classes=CLASSES)).eval()
    with torch.inference_mode():
        network(torch.zeros(64, 3, SIZE, SIZE))
    with tempfile.TemporaryDirectory() as to:
        prepared = ours(network, folder, Path(to)) if name == "mlscale" else by_hand(network, folder, Path(to), name)
        start, cpu = time.perf_counter(), used()
        predicted = prepared()
        return {"wall_s": time.perf_counter() - start, "cpu_s": used() - cpu, "predicted": predicted}


def used() -> float:
    """CPU-seconds of this process and of those it has waited for."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def ours(network: Any, folder: Path, to: Path) -> Any:
    """mlscale predict's loop, without its command line."""
    import pyarrow.dataset as ds

    from mlscale.data.decoding.fast_decoder import DECODE_VERSION
    from mlscale.data.decoding.pil import MAX_PIXELS
    from mlscale.data.encoders.image_encoder import ImageEncoder
    from mlscale.export.torch_predictor import TorchModel
    from mlscale.predict.inputs import open_inputs
    from mlscale.predict.part_files import start_predictions
    from mlscale.predict.score_parts import score_parts
    from mlscale.task_types.registry import get_task_type
    from mlscale.task_types.task_type import AnswerNames
    from mlscale.tasks import Classification

    task = Classification(CLASSES, model=network)
    encoder = ImageEncoder((3, SIZE, SIZE), "uint8", True, MAX_PIXELS, MEAN, STD, DECODE_VERSION)
    names = AnswerNames(tuple(map(str, range(CLASSES))))
    model = TorchModel.build(task, get_task_type("classification"), encoder, names)

    def run() -> list[str]:
        inputs = open_inputs(str(folder / "photos"), member=None, key=None, columns=())
        about = {"spec": "", "digest": inputs.digest, "rows": len(inputs)}
        of = {"version": "m:v1", "digest": ""}
        parts = start_predictions(
            to, model=of, inputs=about, answers={}, created="2026-01-01T00:00:00+00:00", part_rows=None, overwrite=False
        )
        score_parts(inputs, model, parts, range(len(parts)), batch_size=64, workers=2)
        table = ds.dataset(to, format="parquet").to_table().sort_by("row")
        return [str(word) for word in table["predicted"].to_pylist()]

    return run


def by_hand(network: Any, folder: Path, to: Path, name: str) -> Any:
    """What one writes in a minute."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torchvision.transforms import v2

    transform = v2.Compose(
        [
            v2.Resize(SIZE),
            v2.CenterCrop(SIZE),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32),
            v2.Normalize(list(MEAN), list(STD)),
        ]
    )

    class Photos(Dataset[Any]):
        def __init__(self) -> None:
            self.paths = sorted((folder / "photos").glob("*.jpg"))

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, index: int) -> Any:
            return self.paths[index].name, transform(Image.open(self.paths[index]).convert("RGB"))

    def run() -> list[str]:
        keys, predicted, probabilities = [], [], []
        workers = 2 if name.endswith("workers") else 0
        with torch.inference_mode():
            for names, x in DataLoader(Photos(), batch_size=64, num_workers=workers):
                shares = network(x).softmax(-1)
                keys += names
                predicted += [str(number) for number in shares.argmax(-1).tolist()]
                probabilities += shares.tolist()
        pq.write_table(
            pa.table({"key": keys, "predicted": predicted, "probabilities": probabilities}), to / "predictions.parquet"
        )
        return predicted

    return run


def show(found: dict[str, list[dict[str, Any]]], photos: int) -> None:
    """A row for each contender: photos a second, and the ratios of each round to mlscale's, median [least, most]."""
    print("| | photos/s | wall, × mlscale | CPU, × mlscale | same classes |")
    print("|---|---|---|---|---|")
    reference = found["mlscale"]
    for name, runs in found.items():
        rate = statistics.median(photos / run["wall_s"] for run in runs)
        cells = []
        for key in ("wall_s", "cpu_s"):
            ratios = [run[key] / base[key] for run, base in zip(runs, reference, strict=True)]
            cells.append(f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]")
        same = statistics.mean(a == b for a, b in zip(runs[0]["predicted"], reference[0]["predicted"], strict=True))
        print(f"| {name} | {rate:,.0f} | {' | '.join(cells)} | {same:.1%} |")


if __name__ == "__main__":
    main()
