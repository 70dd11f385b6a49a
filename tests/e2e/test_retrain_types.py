"""`mlscale retrain` of every task type, on a user's own data and on built-in data: real cycles, small and fast."""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from mlscale.data import DigitsScenes
from mlscale.errors import MLScaleError
from mlscale.export.servable import load
from mlscale.monitor.baseline import read_baseline
from mlscale.reference.column_sketch import NumberSketch
from mlscale.report import Result
from mlscale.task_types.segmentation_type import encode_mask
from tests.contract.test_documents import validate
from tests.e2e.retrain_place import RetrainPlace

# A cycle trains and exports: seconds alone, minutes on a busy machine.
pytestmark = pytest.mark.timeout(1200)
RANDOM = np.random.default_rng(7)


@pytest.fixture(autouse=True)
def _restart_random_numbers() -> None:
    # What ran before must not decide how good a champion is.
    RANDOM.bit_generator.state = np.random.default_rng(7).bit_generator.state


@pytest.fixture
def place(tmp_path: Path) -> RetrainPlace:
    return RetrainPlace(tmp_path)


def check_cycle(place: RetrainPlace, result: Result, metric: str) -> None:
    """A cycle that came to a comparison, with the champion's encoder."""
    assert f"challenger_window_{metric}" in result.metrics, result.sentence
    assert f"challenger_original_{metric}" in result.metrics
    (line,) = place.journal
    validate("turn", line)
    assert result.ok == (line["decision"] == "promoted")
    made = load(place.registry.resolve_version(line["challenger"]).payload)
    before = load(place.registry.resolve_version("m:v1").payload)
    assert made.encoder == before.encoder
    assert made.names == before.names


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def make_rows(count: int, cities: tuple[str, ...], slope: float) -> list[dict[str, Any]]:
    rows = []
    for age, city in zip(RANDOM.normal(size=count), RANDOM.choice(cities, count), strict=True):
        score = slope * age + (city == "Rome") + RANDOM.normal(0, 0.1)
        rows.append({"age": float(age), "city": str(city), "risk": "high" if score > 0.5 else "low", "cost": score})
    return rows


TABLE = ("augment=none", "data=table", "optimizer.lr=0.02", "trainer.max_epochs=10", "data.batch_size=32")


@pytest.mark.slow
def test_a_table_with_a_new_category(place: RetrainPlace) -> None:
    write_rows(place.folder / "train.csv", make_rows(300, ("Rome", "Paris"), 1.0))
    source = [f"data.train={place.folder}/train.csv", "data.target=risk", "data.ignore=[cost]"]
    place.train_champion("model=tabular", *TABLE, *source)
    rows = make_rows(300, ("Rome", "Oslo"), -1.0)
    inputs, users = (
        [{name: row[name] for name in ("age", "city")} for row in rows],
        [f"user {n % 30}" for n in range(300)],
    )
    place.leave_events(inputs, [row["risk"] for row in rows], users)
    result = place.retrain("passes=3", "gate.max_drop=0.1")
    check_cycle(place, result, "accuracy")
    assert "new categories, which neither model knows: city 'Oslo'" in result.sentence
    # What was right has changed: without a person's word the champion stays.
    assert not result.ok
    assert place.journal[0]["window"]["new_categories"]["city"]["Oslo"] > 100
    result = place.retrain("passes=40", "force=true", "gate.old=false")
    assert result.ok, result.sentence
    # Users were compared, not their samples.
    assert 5 <= result.metrics["window_groups"] <= 20


@pytest.mark.slow
def test_numbers_whose_slope_has_changed(place: RetrainPlace) -> None:
    write_rows(place.folder / "train.csv", make_rows(300, ("Rome", "Paris"), 1.0))
    source = [f"data.train={place.folder}/train.csv", "data.target=cost", "data.ignore=[risk]"]
    place.train_champion("model=tabular_regression", "task=regression", *TABLE, *source)
    rows = make_rows(600, ("Rome", "Paris"), -1.0)
    place.leave_events([{name: row[name] for name in ("age", "city")} for row in rows], [row["cost"] for row in rows])
    result = place.retrain("passes=5")
    check_cycle(place, result, "rmse")
    assert not result.ok
    assert "gate.old=false" in result.sentence
    assert result.metrics["original_negative_flips"] > 0
    result = place.retrain("passes=40", "force=true", "gate.old=false")
    assert result.ok, result.sentence
    assert result.metrics["challenger_window_rmse"] < result.metrics["champion_window_rmse"]


def make_texts(count: int, words: dict[str, list[str]]) -> tuple[list[str], list[str]]:
    labels = RANDOM.choice(list(words), count).tolist()
    return [" ".join(RANDOM.choice([*words[label], "the", "of", "and"], 9)) for label in labels], labels


@pytest.mark.slow
def test_texts_of_another_domain(place: RetrainPlace) -> None:
    texts, labels = make_texts(600, {"food": ["bread", "salt", "oven"], "sport": ["goal", "team", "match"]})
    lines = (json.dumps({"text": text, "label": label}) for text, label in zip(texts, labels, strict=True))
    (place.folder / "train.jsonl").write_text("\n".join(lines))
    # Validation has as many as a challenger of a champion without errors needs.
    source = ("data=text_table", f"data.train={place.folder}/train.jsonl", "data.val_fraction=0.5")
    small = ("model.buckets=4096", "model.width=16", "trainer.max_epochs=6", "optimizer.lr=0.02")
    batches = ("data.length=64", "data.batch_size=32")
    place.train_champion("augment=none", "task=text", "model=ngrams", *source, *batches, *small)
    texts, labels = make_texts(300, {"food": ["Brot", "Salz", "Käse"], "sport": ["Tor", "Liga", "Spieler"]})
    place.leave_events(texts, labels)
    result = place.retrain("passes=10", "gate.min_kappa=null")
    check_cycle(place, result, "accuracy")
    assert result.ok, result.sentence


def encode_png(image: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.slow
def test_a_folder_of_photos_on_their_side(place: RetrainPlace) -> None:
    digits = load_digits(n_class=3)
    images = np.round(digits.images * (255 / 16)).astype(np.uint8).repeat(2, 1).repeat(2, 2)
    names = np.array(["zero", "one", "two"])[digits.target]
    for number in range(300):
        path = place.folder / "photos" / names[number] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[number]).save(path)
    source = ("data=imagefolder", f"data.root={place.folder}/photos", "data.image_size=8", "data.val_fraction=0.5")
    place.train_champion("model=mlp", *source, "data.batch_size=32", "optimizer.lr=0.05", "trainer.max_epochs=5")
    sides = [encode_png(np.rot90(image)) for image in images[300:]]
    place.leave_events(sides, names[300:].tolist())
    result = place.retrain("passes=10", "window.min_samples=100", "gate.min_kappa=null")
    check_cycle(place, result, "accuracy")
    assert result.ok, result.sentence
    # Events hold photos of the model's size; the profile has the size that they were sent with.
    profile = read_baseline(place.registry.resolve_version("m:v2").payload, model="m", version="m:v2")
    widths = next(sketch for sketch in profile.sketches if sketch.name == "input.width")
    assert isinstance(widths, NumberSketch)
    assert set(widths.values.tolist()) == {16.0}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["several", "mask"])
def test_scenes_with_labels_and_with_masks(place: RetrainPlace, kind: str, bundled: Path) -> None:
    model = ("model=scenes_resnet", "task=multilabel") if kind == "several" else ("model=unet", "task=segmentation")
    source = ("data=digits_scenes", f"data.root={bundled}", f"data.labels={kind}", "data.batch_size=32")
    place.train_champion(*model, *source, "trainer.max_epochs=1", "trainer.limit_train_batches=10")
    data = DigitsScenes(bundled, labels=kind)
    decoded = data.get_decoded_split("train")
    images = [255 - decoded.get_sample(row) for row in range(220)]
    labels: list[Any]
    if decoded.masks is not None:
        masks = [decoded.masks.get_mask(row) for row in range(220)]
        labels = [base64.b64encode(encode_mask(mask)).decode() for mask in masks]
    else:
        labels = [[str(name) for name in np.flatnonzero(row)] for row in decoded.labels[:220]]
    place.leave_events(images, labels)
    check_cycle(place, place.retrain("passes=1"), "exact_match" if kind == "several" else "miou")


@pytest.mark.slow
def test_documents_of_another_language(place: RetrainPlace) -> None:
    def write_text(words: list[str], count: int) -> str:
        return " ".join(RANDOM.choice(words, count))

    (place.folder / "a.txt").write_text(write_text(["bread", "salt", "oven", "goal", "team"], 3000))
    source = ("data=text_files", f"data.train={place.folder}/a.txt", "data.length=32", "data.batch_size=16")
    small = (
        "model.width=32",
        "model.layers=1",
        "model.heads=2",
        "model.buckets=1024",
        "trainer.max_epochs=2",
        "metric=val/bits_per_byte",
    )
    place.train_champion("augment=none", "task=language", "model=gpt", *source, *small, "trainer.max_epochs=2")
    place.leave_events([write_text(["Brot", "Salz", "Tor", "Liga"], 12).encode() for _ in range(220)], None)
    result = place.retrain("passes=10", "optimizer.lr=0.003")
    check_cycle(place, result, "bits_per_byte")
    assert result.metrics["challenger_window_bits_per_byte"] < result.metrics["champion_window_bits_per_byte"]


@pytest.mark.slow
def test_data_that_have_changed_stop_the_cycle_with_a_way_out(place: RetrainPlace) -> None:
    write_rows(place.folder / "train.csv", make_rows(300, ("Rome", "Paris"), 1.0))
    source = [f"data.train={place.folder}/train.csv", "data.target=risk", "data.ignore=[cost]"]
    place.train_champion("model=tabular", *TABLE, *source, "trainer.max_epochs=1")
    write_rows(place.folder / "train.csv", make_rows(310, ("Rome", "Paris", "Bern"), 1.0))
    with pytest.raises(MLScaleError, match="the champion's data are not what it was trained on") as caught:
        place.retrain()
    assert "mlscale like=" in caught.value.fix
    assert not (place.folder / "registry/retrain/m.jsonl").exists()


@pytest.mark.slow
def test_a_dataset_of_a_users_own(place: RetrainPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """import torch
from torch.utils.data import TensorDataset

def make(n, seed):
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(x, (x[:, 0] > 0).long())
"""
    (place.folder / "own_points.py").write_text(code)
    monkeypatch.syspath_prepend(str(place.folder))
    parts = [f"data.{part}={{_target_: own_points.make, n: {n}, seed: {seed}}}"
             for part, n, seed in (("train", 600, 0), ("val", 300, 1))]  # fmt: skip
    own = ("data._target_=mlscale.data.DatasetData", *parts, "data.batch_size=32")
    place.train_champion("model=mlp", "augment=none", *own, "optimizer.lr=0.1", "trainer.max_epochs=5")
    points = RANDOM.normal(size=(400, 6)).astype(np.float32)
    points[:, 0] += 1.5  # another zero of the first sensor
    place.leave_events(list(points), [str(int(point[0] > 1.5)) for point in points])
    result = place.retrain("passes=40", "gate.old=false")
    assert result.ok, result.sentence
    assert result.metrics["challenger_window_accuracy"] > 0.9
