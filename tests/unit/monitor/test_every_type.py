"""Every task type is monitored: an exported model, its reference profile, its events, and what a look makes of them."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image, ImageFilter

from mlscale.atomic_files import compute_sha256
from mlscale.events.store import EventStore
from mlscale.export.reference_builder import ReferenceBuilder
from mlscale.export.servable import DOCUMENT, REFERENCE, Servable, load
from mlscale.monitor.baseline import read_baseline
from mlscale.monitor.event_window import WindowSpan, read_event_window
from mlscale.monitor.window_check import MonitorLimits, WindowCheck, check_rules
from tests.event_writing import add_answers
from tests.task_servables import get_task_servable, operators_parsed_once
from tests.unit.data.encoders.random_tables import WORDS
from tests.unit.predict.test_loaded_model import GetServable

__all__ = ["get_task_servable", "operators_parsed_once"]
Samples = list[Any]
Change = Callable[[Samples], Samples]
REFERENCE_SAMPLES, EVENTS, LABELLED = 800, 500, 300
VOCABULARY = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("n", "r", "st", "lla")]
FOREIGN = [f"{a}{b}" for a in ("ξη", "λο", "κυ", "φω") for b in ("ρα", "μιν", "δος", "9")]


def draw_rows(rng: np.random.Generator, count: int) -> Samples:
    """Rows as the encoder was fitted on."""
    return [
        {
            "length": float(rng.normal(1e4, 3)),
            "mass": None if rng.random() < 0.2 else float(rng.normal(40, 7)),
            "constant": 0.1,
            "island": WORDS[int(rng.integers(5))],
            "sex": [None, "male", "", "fe male"][int(rng.integers(4))],
            "zip": int(rng.integers(9)),
            "as text": ["1", "2.5", "4"][int(rng.integers(3))],
        }
        for _ in range(count)
    ]


def draw_images(rng: np.random.Generator, count: int) -> Samples:
    """PNG files of bright, noisy gradients, 24 wide and 18 high."""
    files = []
    for _ in range(count):
        ramp = np.linspace(0, rng.uniform(20, 60), 24)[None, :, None]
        pixels = rng.normal(150, 15) + ramp + rng.normal(0, 12, (18, 24, 3))
        files.append(write_png(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))))
    return files


def write_png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def draw_texts(rng: np.random.Generator, count: int, words: list[str] = VOCABULARY) -> Samples:
    return [" ".join(rng.choice(words, int(rng.integers(4, 9)))) for _ in range(count)]


def draw_tensors(rng: np.random.Generator, count: int) -> Samples:
    return [{"left": rng.normal(size=3).astype(np.float32), "right": rng.normal(size=2)} for _ in range(count)]


DRAWS: dict[str, Callable[[np.random.Generator, int], Samples]] = {
    "image": draw_images,
    "multilabel": draw_images,
    "segmentation": draw_images,
    "table": draw_rows,
    "regression": draw_rows,
    "text": draw_texts,
    "language": draw_texts,
    "tensors": draw_tensors,
}


def set_column(name: str, value: Any) -> Change:
    """Change a column of rows, by a function of its value or to a constant."""
    return lambda rows: [{**row, name: value(row[name]) if callable(value) else value} for row in rows]


def edit_images(edit: Callable[[Image.Image], Image.Image]) -> Change:
    return lambda files: [write_png(edit(Image.open(io.BytesIO(content)))) for content in files]


def break_encoding(texts: Samples) -> Samples:
    """UTF-16 that is sent as if it were UTF-8."""
    return [text.encode("utf-16-le").replace(b"\0", b"\xe9") for text in texts]


def alter_label(label: Any, names: Any) -> Any:
    """Return a label that a prediction is wrong by."""
    if isinstance(label, dict):
        return {name: value + 900 for name, value in label.items()}
    if isinstance(label, list):
        return [name for name in names.labels if name not in label]
    return names.labels[(names.labels.index(label) + 1) % len(names.labels)] if label in names.labels else label


class Service:
    """A model in production: a servable with a reference profile, and a store of events."""

    def __init__(self, name: str, made: Servable, folder: Path) -> None:
        self.name, self.rng = name, np.random.default_rng(7)
        self.store, self.servable = EventStore(folder / "events"), made
        shutil.copytree(made.folder, folder / "servable")
        raw = DRAWS[name](self.rng, REFERENCE_SAMPLES)
        packed, type_ = made.pack_samples(raw), made.task_type
        predictions = type_.build_predictions(made.compute_samples(packed), made.labels)
        builder = ReferenceBuilder(made.encoder, type_, made.names)
        forms = type_.express_as_labels(predictions, made.names)
        scores = None
        if hasattr(type_, "score"):
            scores = np.array([self._score_label(form, number % 20 == 0) for number, form in enumerate(forms)])
        builder.add_batch(packed, predictions, scores)
        path = folder / "servable"
        (path / REFERENCE).mkdir()
        builder.finish(split="val", data_version="v").save_profile(path / REFERENCE)
        document = yaml.safe_load((path / DOCUMENT).read_text())
        for file in (path / REFERENCE).iterdir():
            entry = {"sha256": compute_sha256(file), "bytes": file.stat().st_size}
            document["files"][f"{REFERENCE}/{file.name}"] = entry
        (path / DOCUMENT).write_text(yaml.safe_dump(document))
        self.servable = load(path)

    def _score_label(self, form: Any, is_wrong: bool) -> float:
        names = self.servable.names
        label = alter_label(form, names) if is_wrong else form
        return self.servable.task_type.score_prediction(form, label, names)

    def answer(self, change: Change | None = None, labelled: int = 0, wrong: float = 0.05) -> None:
        """Answer requests, and label some of them."""
        raw = DRAWS[self.name](self.rng, EVENTS)
        ids, writer = [f"e{number}" for number in range(EVENTS)], self.store.open_writer("m")
        add_answers(writer, self.servable, ids, change(raw) if change else raw, version="m:v1")
        writer.close()
        assert (writer.written, writer.problem) == (EVENTS, "")
        forms = self.store.read("m").predictions[:labelled]
        is_wrong = self.rng.random(labelled) < wrong
        labels = [
            alter_label(form, self.servable.names) if bad else form for form, bad in zip(forms, is_wrong, strict=True)
        ]
        self.store.add_labels("m", ids[:labelled], labels)

    def look(self) -> WindowCheck:
        baseline = read_baseline(self.servable.folder, model="m", version="m:v1")
        now = datetime.now(UTC)
        return check_rules(
            baseline, read_event_window(self.store, "m", "m:v1", WindowSpan(), now, baseline.scorer), MonitorLimits()
        )


@pytest.fixture
def open_service(get_task_servable: GetServable, tmp_path: Path) -> Callable[[str], Service]:
    return lambda name: Service(name, get_task_servable(name), tmp_path)


@pytest.mark.parametrize("name", list(DRAWS))
def test_clean_traffic_raises_no_alarm(name: str, open_service: Callable[[str], Service]) -> None:
    service = open_service(name)
    service.answer(labelled=0 if name in ("language", "tensors", "segmentation") else LABELLED)
    seen = service.look()
    assert [result.rule for result in seen.results if result.is_over] == [], seen.sentence
    assert seen.sentence.startswith("m:v1: no drift of single columns in 500 events")
    assert (seen.find_result("degradation") is None) == (name == "tensors")


@pytest.mark.parametrize(
    ("name", "change", "shown"),
    [
        ("table", set_column("length", lambda value: value / 1000), ["length lower by", "(10,000 → 10"]),
        ("table", set_column("mass", lambda value: value and value * 2.2), ["inputs drifted (mass higher by"]),
        ("table", set_column("mass", 41.0), ["data quality (mass is constant (41)"]),
        ("table", set_column("island", "Naboo"), ["data quality (island has the new category 'Naboo' (100 %)"]),
        ("table", set_column("mass", None), ["data quality (mass is missing in 100 %, 2"]),
        ("regression", set_column("mass", lambda value: value and value / 1000), ["mass lower by"]),
        ("regression", set_column("zip", 99), ["zip has the new category '99' (100 %)"]),
        ("text", lambda texts: draw_texts(np.random.default_rng(3), len(texts), FOREIGN), ["unknown words higher"]),
        ("text", break_encoding, ["invalid is out of the reference's range in 100 %"]),
        ("language", lambda texts: draw_texts(np.random.default_rng(3), len(texts), FOREIGN), ["beyond ASCII"]),
        ("language", break_encoding, ["invalid is out of the reference's range in 100 %"]),
        ("image", edit_images(lambda image: image.point(lambda value: 255 - value)), ["brightness lower by"]),
        ("image", edit_images(lambda image: image.filter(ImageFilter.GaussianBlur(2))), ["sharpness"]),
        ("image", edit_images(lambda image: image.transpose(Image.Transpose.ROTATE_90)), ["width", "range"]),
        ("multilabel", edit_images(lambda image: image.point(lambda value: value // 2)), ["contrast"]),
        ("segmentation", edit_images(lambda image: image.filter(ImageFilter.GaussianBlur(2))), ["sharpness"]),
        ("tensors", lambda rows: [{**row, "left": row["left"] + 3} for row in rows], ["left.mean"]),
    ],
)  # fmt: skip
def test_a_change_is_an_alert_that_names_it(
    name: str, change: Change, shown: list[str], open_service: Callable[[str], Service]
) -> None:
    service = open_service(name)
    service.answer(change)
    seen = service.look()
    drift = seen.find_result("drift")
    assert drift is not None
    assert drift.is_over, seen.sentence
    changes = "; ".join(column.format_change() for column in seen.columns if column.is_detected)
    for part in shown:
        assert part in f"{seen.sentence}; {changes}"


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("table", "accuracy "),
        ("multilabel", "label accuracy "),
        ("regression", "absolute error "),
    ],
)
def test_labels_show_a_degradation_by_the_score_of_the_type(
    name: str, score: str, open_service: Callable[[str], Service]
) -> None:
    service = open_service(name)
    service.answer(labelled=LABELLED, wrong=0.4)
    seen = service.look()
    degradation = seen.find_result("degradation")
    assert degradation is not None
    assert degradation.is_over, seen.sentence
    assert degradation.sentence.startswith(score)
    assert " 300 labelled, reference " in degradation.sentence
    drift = seen.find_result("drift")
    assert drift is not None
    assert not drift.is_over, seen.sentence
