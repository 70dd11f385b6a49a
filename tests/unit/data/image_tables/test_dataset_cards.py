"""The README.md of a repository of images, where it is right, incomplete or wrong: the data decides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from mlscale.data import ImageTable
from tests.unit.data.conftest import picture

NAMES = ("ant", "bee", "cat", "dog")
IMAGE = "  - {name: image, dtype: image}\n"


def write_repository(folder: Path, features: str, *, configs: str = "", metadata: Any = None) -> ImageTable:
    """Write 24 training and 8 validation images of four classes by number, and a README.md."""
    (folder / "data").mkdir(exist_ok=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for split, numbers in (("train", range(24)), ("validation", range(24, 32))):
        images = [{"bytes": picture(number), "path": f"{number}.png"} for number in numbers]
        columns = {
            "image": pa.array(images, kind),
            "label": pa.array([number % 4 for number in numbers]),
            "note": pa.array([f"note {number}" for number in numbers]),
        }
        table = pa.table(columns).replace_schema_metadata(
            metadata and {b"huggingface": json.dumps({"info": {"features": metadata}}).encode()}
        )
        parquet.write_table(table, folder / f"data/{split}-00000-of-00001.parquet")
    info = f"dataset_info:\n  features:\n{features}" if features else ""
    (folder / "README.md").write_text(f"---\nlicense: cc0-1.0\n{info}{configs}---\n# Insects and others\n")
    return ImageTable(str(folder), image_size=None, batch_size=4)


def name_classes(*lines: str) -> str:
    """Return the features of images and of a label with these lines as its names."""
    names = "".join(f"          {line}\n" for line in lines)
    return f"{IMAGE}  - name: label\n    dtype:\n      class_label:\n        names:\n{names}"


RIGHT = name_classes(*(f"'{number}': {name}" for number, name in enumerate(NAMES)))


@pytest.mark.parametrize(
    "features",
    [
        RIGHT,
        name_classes(*(f"{number}: {name}" for number, name in reversed(list(enumerate(NAMES))))),
        name_classes(*(f"- {name}" for name in NAMES)),
        name_classes(*(f"'{number}': {name}" for number, name in enumerate((*NAMES, "eel")))),
        # Columns of another version of the data.
        RIGHT + "  - {name: species, dtype: {class_label: {names: [x, y]}}}\n  - {name: thumbnail, dtype: image}\n",
        RIGHT.replace(IMAGE, "  - {name: note, dtype: image}\n"),
    ],
)
def test_names_that_fit(tmp_path: Path, features: str) -> None:
    data = write_repository(tmp_path, features)
    assert data.facts().class_names == NAMES
    assert (data.facts().train_samples, data.facts().val_samples) == (24, 8)


@pytest.mark.parametrize(
    "features",
    [
        # Too few names; a number left out, so that names would move to other classes; what is not a number, or no name.
        name_classes("'0': ant", "'1': bee"),
        name_classes("'0': ant", "'2': cat", "'3': dog"),
        name_classes("'0': ant", "'1': bee", "'3': dog", "'4': eel"),
        name_classes("first: ant", "second: bee"),
        name_classes("'0': ant", "'1': ant", "'2': cat", "'3': dog"),
        name_classes("'0': ant", "'1': yes", "'2': null", "'3': dog"),
        IMAGE + "  - {name: label, dtype: {class_label: four}}\n",
        IMAGE + "  - {name: label, dtype: {class_label: {names: ant bee}}}\n",
        IMAGE + "  - {name: label, dtype: image}\n",
        "  - {name: species, dtype: {class_label: {names: [x, y]}}}\n",
        "  - dtype: image\n",
        "",
    ],
)
def test_names_that_do_not_fit_are_left_out(tmp_path: Path, features: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_repository(tmp_path, features)
    assert (data.facts().num_classes, data.facts().class_names) == (4, None)
    labels = data.read_labels("train")
    assert labels is not None
    assert labels.tolist() == [number % 4 for number in range(24)]
    if "'1': bee" in features and "cat" not in features and "eel" not in features:
        line = "README.md names 2 classes of 'label', and the data has the number 3: classes go by their numbers"
        assert line in "".join(capsys.readouterr())


def test_what_the_files_have_recorded_wins(tmp_path: Path) -> None:
    recorded = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["w", "x", "y", "z"]}}
    assert write_repository(tmp_path, RIGHT, metadata=recorded).facts().class_names == ("w", "x", "y", "z")


@pytest.mark.parametrize(
    ("configs", "lines"),
    [
        ("configs: 7\n", ""),
        ("configs:\n- 7\n- {config_name: default, data_files: 'data/*'}\n", ""),
        (
            "configs:\n- config_name: default\n  data_files:\n  - {split: train, path: other/train-*}\n",
            "names files that are not there (train: other/train-*); splits are those that names of files have",
        ),
        (
            "configs:\n- config_name: default\n  data_files:\n  - {split: train, path: data/train-*}\n"
            "  - {split: validation, path: [data/validation-*]}\n  - {split: test, path: [data/test-*, more/*]}\n",
            "names files that are not there (test: data/test-*, more/*)",
        ),
    ],
)
def test_files_that_the_readme_names(
    tmp_path: Path, configs: str, lines: str, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = write_repository(tmp_path, RIGHT, configs=configs).facts()
    assert (facts.train_samples, facts.val_samples) == (24, 8)
    printed = [line for line in "".join(capsys.readouterr()).splitlines() if "README.md" in line]
    assert len(printed) == bool(lines)
    assert not lines or printed[0].endswith(lines)


@pytest.mark.parametrize(
    "text", ["---\ndataset_info: [a: {\n---\n", "---\nlicense: mit\n", "", "# Photos\n---\na: 1\n---\n"]
)
def test_a_readme_without_a_head(tmp_path: Path, text: str) -> None:
    write_repository(tmp_path, RIGHT)
    (tmp_path / "README.md").write_text(text)
    data = ImageTable(str(tmp_path), image_size=None, batch_size=4)
    assert data.facts().num_classes == 4


@pytest.mark.parametrize(("begin", "end"), [("\ufeff", "\n"), ("", "\r\n")])
def test_a_readme_of_another_system(tmp_path: Path, begin: str, end: str) -> None:
    write_repository(tmp_path, RIGHT)
    text = (tmp_path / "README.md").read_text()
    (tmp_path / "README.md").write_text(begin + text, newline=end)
    assert ImageTable(str(tmp_path), image_size=None, batch_size=4).facts().class_names == NAMES
