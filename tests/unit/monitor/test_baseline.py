"""The reference profile of a servable, and what is refused. The servable is the stored one of the contract."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from mlscale.atomic_files import compute_sha256
from mlscale.errors import MLScaleError
from mlscale.monitor.baseline import Baseline, read_baseline
from mlscale.reference.column_sketch import CategorySketch, NumberSketch
from mlscale.reference.passage_rows import PassageRows
from mlscale.reference.stored_reference import ABOUT, ARRAYS
from mlscale.task_types.registry import get_task_type

STORED = Path(__file__).parents[2] / "contract" / "examples" / "servable-1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(STORED, tmp_path / "servable"))


def baseline(folder: Path) -> Baseline:
    return read_baseline(folder, model="m", version="m:v1")


def read_arrays(folder: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a stored profile of format 1."""
    with np.load(folder / "reference" / ARRAYS, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def get_numbers(found: Baseline) -> dict[str, list[float]]:
    return {sketch.name: sketch.values.tolist() for sketch in found.sketches if isinstance(sketch, NumberSketch)}


def get_classes(found: Baseline) -> CategorySketch:
    (sketch,) = (sketch for sketch in found.sketches if isinstance(sketch, CategorySketch))
    return sketch


def test_the_stored_servable_still_has_one(folder: Path) -> None:
    found, arrays = baseline(folder), read_arrays(folder)
    numbers = get_numbers(found)
    assert numbers["input.std_0"] == np.sort(arrays["sample_std"][:, 0]).tolist()
    assert numbers["output.confidence"] == pytest.approx(np.sort(arrays["sample_confidence"]), abs=1e-4)
    assert get_classes(found).samples == arrays["class_counts"].sum()
    assert len(found.names.labels) == len(arrays["class_counts"])
    assert found.score is not None
    assert 0 <= found.score.mean <= 1
    assert (found.model, found.version, found.task_type) == ("m", "m:v1", get_task_type("classification"))
    assert found.scorer is not None


def describe_passages() -> PassageRows:
    """400 passages: those of 10 bytes have a value and a score of 1, those of 1,000 bytes of 9."""
    lengths = np.repeat([10.0, 1000.0], 200)
    values = np.repeat([1.0, 9.0], 200)
    numbers = np.arange(400)
    return PassageRows(lengths, numbers, np.ones(400, bool), {"input.std_0": values}, values)


@pytest.mark.parametrize("scored", [True, False])
def test_documents_are_compared_with_passages_of_their_length(folder: Path, scored: bool) -> None:
    found = replace(baseline(folder), passages=describe_passages())
    found = found if scored else replace(found, score=None)
    short = found.match_lengths(np.full(20, 9.0))
    assert [sketch.name for sketch in short.sketches] == ["input.std_0"]
    assert set(get_numbers(short)["input.std_0"]) == {1.0}
    assert (None if short.score is None else short.score.mean) == (1.0 if scored else None)
    assert (short.model, short.names) == (found.model, found.names)


def test_other_samples_are_compared_as_they_are(folder: Path) -> None:
    found = baseline(folder)
    assert found.match_lengths(np.full(20, 9.0)) is found


def test_an_altered_profile_is_refused(folder: Path) -> None:
    path = folder / "reference" / ARRAYS
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(MLScaleError, match="corrupt or altered"):
        baseline(folder)


def test_a_profile_from_elsewhere_is_refused(folder: Path, tmp_path: Path) -> None:
    path = folder / "reference" / ARRAYS
    path.rename(tmp_path / "elsewhere.npz")
    path.symlink_to(tmp_path / "elsewhere.npz")
    with pytest.raises(MLScaleError, match="corrupt or altered"):
        baseline(folder)


def test_an_absent_profile_is_reported(folder: Path) -> None:
    shutil.rmtree(folder / "reference")
    with pytest.raises(MLScaleError, match="corrupt or altered"):
        baseline(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"class_counts": np.array([1, 2])},
        {"class_counts": None},
        {"sample_mean": np.zeros((3, 1, 2))},
        {"sample_mean": np.array([["a"]])},
        {"sample_confidence": np.zeros(0)},
        {"sample_std": np.zeros((1, 1))},
    ],
)
def test_a_profile_of_another_model_is_refused(folder: Path, change: dict[str, NDArray[Any] | None]) -> None:
    rewrite(folder, change, {})
    with pytest.raises(MLScaleError, match="the reference profile can't be read"):
        baseline(folder)


def test_a_folder_without_a_servable_is_reported(tmp_path: Path) -> None:
    with pytest.raises(MLScaleError, match="no servable"):
        baseline(tmp_path)


def rewrite(folder: Path, arrays: Mapping[str, NDArray[Any] | None], document: dict[str, Any], **about: object) -> None:
    """Store another profile of format 1 and what else is changed in the document, with the digests that belong to it.

    What is None is left out.
    """
    changed: dict[str, Any] = {
        name: values for name, values in {**read_arrays(folder), **arrays}.items() if values is not None
    }
    np.savez(folder / "reference" / ARRAYS, **changed)
    stored = json.loads((folder / "reference" / ABOUT).read_text()) | about
    (folder / "reference" / ABOUT).write_text(
        json.dumps({name: value for name, value in stored.items() if value is not None})
    )
    content = yaml.safe_load((folder / "servable.yaml").read_text()) | document
    for name in content["files"]:
        content["files"][name] = {"sha256": compute_sha256(folder / name), "bytes": (folder / name).stat().st_size}
    (folder / "servable.yaml").write_text(json.dumps(content))


ARRAYS_OF_TWO = {
    "sample_mean": np.array([[3, 10], [1, 30], [2, 20]]),
    "sample_std": np.array([[0.5, 5.0], [0.25, 4.0], [1.0, 6.0]]),
    "sample_confidence": np.array([0.9, 0.5, 0.7], np.float64),
}


def test_columns_of_each_channel_are_sorted(folder: Path) -> None:
    rewrite(folder, ARRAYS_OF_TWO, {}, accuracy=0.75, samples=12)
    found = baseline(folder)
    numbers = get_numbers(found)
    assert [numbers[f"input.{name}_{channel}"] for name in ("mean", "std") for channel in range(2)] == [
        [1, 2, 3],
        [10, 20, 30],
        [0.25, 0.5, 1],
        [4, 5, 6],
    ]
    assert numbers["output.confidence"] == pytest.approx([0.5, 0.7, 0.9])
    assert found.score is not None
    assert (found.score.mean, found.score.samples, found.score.is_binary) == (0.75, 12, True)
    stored, labels = read_arrays(folder)["class_counts"], found.names.labels
    assert get_classes(found).counts == {labels[number]: count for number, count in enumerate(stored) if count}
    assert labels == tuple(yaml.safe_load((folder / "servable.yaml").read_text())["labels"])


@pytest.mark.parametrize(
    ("dtype", "shape", "picture"),
    [
        ("uint8", [-1, 3, 8, 8], True),
        ("uint8", [-1, 8], False),
        ("float32", [-1, 3, 8, 8], False),
        ("uint8", [1] * 5, False),
    ],
)
def test_pixels_alone_have_brightness(folder: Path, dtype: str, shape: list[int], picture: bool) -> None:
    document = yaml.safe_load((folder / "servable.yaml").read_text())
    first = {**document["inputs"][0], "dtype": dtype, "shape": shape}
    rewrite(folder, {}, {"inputs": [first, {**first, "dtype": "other", "shape": []}]})
    found = baseline(folder)
    assert found.has_pixels is picture
    assert found.column_names["input.std_0"].startswith("contrast" if picture else "deviation")


@pytest.mark.parametrize(
    "arrays",
    [
        {"sample_std": np.zeros((3, 3))}, {"sample_confidence": np.zeros(4)}, {"sample_confidence": np.zeros((3, 1))},
        {"sample_mean": np.zeros(3), "sample_std": np.zeros(3)}, {"sample_confidence": np.array(1.0)},
        {"sample_mean": np.zeros((3, 2), bool)}, {"sample_mean": np.zeros((3, 2), complex)},
        {"sample_mean": np.zeros((0, 2)), "sample_std": np.zeros((0, 2)), "sample_confidence": np.zeros(0)},
    ],
)  # fmt: skip
def test_columns_that_do_not_belong_together_are_refused(folder: Path, arrays: dict[str, NDArray[Any]]) -> None:
    rewrite(folder, {**ARRAYS_OF_TWO, **arrays}, {})
    with pytest.raises(MLScaleError, match="the reference profile can't be read") as caught:
        baseline(folder)
    assert caught.value.where == str(folder / "reference")


@pytest.mark.parametrize("kind", ["negative", "none", "floats", "unsigned"])
def test_class_counts_are_whole_numbers_of_which_one_is_positive(folder: Path, kind: str) -> None:
    counts = read_arrays(folder)["class_counts"]
    one = np.eye(1, len(counts), dtype=np.int64)[0]
    changed = {"negative": 3 * one - 1, "none": 0 * one, "floats": one.astype(float), "unsigned": one.astype(np.uint32)}
    rewrite(folder, {"class_counts": changed[kind]}, {})
    if kind == "unsigned":
        assert list(get_classes(baseline(folder)).counts.values()) == [1]
    else:
        with pytest.raises(MLScaleError, match="the reference profile can't be read"):
            baseline(folder)


@pytest.mark.parametrize("about", [{"accuracy": None}, {"samples": None}, {"accuracy": "high"}, {"samples": [1]}])
def test_a_profile_without_its_accuracy_is_refused(folder: Path, about: dict[str, object]) -> None:
    rewrite(folder, {}, {}, **about)
    with pytest.raises(MLScaleError, match="the reference profile can't be read"):
        baseline(folder)


@pytest.mark.parametrize(
    "change", [{"files": None}, {"files": {"a": {}}}, {"files": {"a": 1}}, {"inputs": []}, {"inputs": [{"shape": [1]}]}]
)
def test_a_document_that_lacks_a_part_is_damaged(folder: Path, change: dict[str, Any]) -> None:
    document = yaml.safe_load((folder / "servable.yaml").read_text()) | change
    (folder / "servable.yaml").write_text(json.dumps(document))
    with pytest.raises(MLScaleError, match=r"servable.yaml is corrupt") as caught:
        baseline(folder)
    assert caught.value.where == str(folder / "servable.yaml")


def test_a_document_without_a_profile_is_refused(folder: Path) -> None:
    document = yaml.safe_load((folder / "servable.yaml").read_text())
    document["files"] = {name: entry for name, entry in document["files"].items() if not name.startswith("reference/")}
    (folder / "servable.yaml").write_text(json.dumps(document))
    with pytest.raises(MLScaleError, match="corrupt or altered") as caught:
        baseline(folder)
    assert caught.value.where == f"{folder}/reference"


def test_other_files_of_the_servable_are_not_read(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"")
    assert baseline(folder).sketches
