"""What is reported of a checkpoint that can't be loaded, by whatever program it was written."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from mlscale.errors import MLScaleError
from mlscale.train.checkpoint.weights_only_load import find_unsafe_globals, load_checkpoint_file


def write_archive(path: Path, pickle: bytes, **members: str) -> Path:
    """Write a file as torch does, with another pickle in it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle)
        for name, text in {"version": "3", **members}.items():
            archive.writestr(f"archive/{name}", text)
    return path


def fail(path: Path) -> MLScaleError:
    with pytest.raises(MLScaleError) as caught:
        load_checkpoint_file(path)
    assert caught.value.where == str(path)
    return caught.value


def test_tensors_are_put_where_it_is_asked(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "a.ckpt")
    assert load_checkpoint_file(tmp_path / "a.ckpt")["a"].tolist() == [1, 1]
    assert load_checkpoint_file(str(tmp_path / "a.ckpt"), "meta")["a"].device.type == "meta"


def test_a_file_that_holds_objects_names_them(tmp_path: Path) -> None:
    torch.save({"b": Path("x"), "a": pytest.Session}, tmp_path / "a.ckpt")
    names = find_unsafe_globals(tmp_path / "a.ckpt")
    assert len(names) >= 2
    assert names == sorted(names)
    error = fail(tmp_path / "a.ckpt")
    assert error.what == "the checkpoint holds more than tensors and plain values"
    assert error.why == f"to read {', '.join(names)} would run code out of the file"


def test_a_file_that_can_not_be_searched_can_not_be_read(tmp_path: Path) -> None:
    error = fail(write_archive(tmp_path / "a.ckpt", b"\x80\x02no pickle"))
    assert error.what == "the checkpoint can't be read"
    assert error.why.startswith("Weights only load failed")
    assert "\n" not in error.why
    assert error.fix == "init_from=<a checkpoint of another run>; this folder has no other one"


def test_the_first_line_of_the_reason_is_printed(tmp_path: Path) -> None:
    error = fail(write_archive(tmp_path / "a.ckpt", b"\x80\x02}q\x00.", byteorder="middle"))
    assert (error.what, error.why) == ("the checkpoint can't be read", "Unknown endianness type: middle")


def test_an_altered_one_is_reported_once(tmp_path: Path) -> None:
    path = tmp_path / "text.ckpt"
    path.write_bytes(b"no archive")
    error = fail(path)
    assert error.what == "the checkpoint can't be used: it is cut short, or no checkpoint"
    assert error.why == ""
