"""Safetensors files: what does not fit is refused in words."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mlscale.errors import MLScaleError
from mlscale.runs import safetensors_files as safetensors


def written(path: Path, header: Any, data: bytes = b"", *, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(shape: list[Any], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def read(path: Path) -> None:
    with safetensors.open_safetensors(path) as file:
        assert file.metadata()


@pytest.mark.parametrize("keep", [0, 5, 8, 30, -1])
def test_a_torn_file_says_so(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(MLScaleError, match="can't be used"):
        read(path)


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({"a": entry([2], 0, 8)}, b"x" * 9),
        ({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, b"x" * 4),
        ({"a": entry([1], 4, 8)}, b"x" * 8),
        ({"a": entry([2**40, 2**40], 0, 8)}, b"x" * 8),
        ({"a": entry([-1, -2], 0, 8)}, b"x" * 8),
        ({"a": entry([2], 0, 8, "X8")}, b"x" * 8),
        ({"__metadata__": {"license": 3}}, b""),
        ([1], b""),
        (b"\xff\xfe{", b""),
        (b"[" * 100_000, b""),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, header: Any, data: bytes) -> None:
    with pytest.raises(MLScaleError, match="can't be used"):
        read(written(tmp_path / "x.safetensors", header, data))


@pytest.mark.parametrize(
    ("index", "what"),
    [
        (b"{", "can't be read"),
        (b'{"weight_map": {}}', "can't be read"),
        (b'{"weight_map": {"a": "../../etc/passwd"}}', "leads out of its folder"),
        (b'{"weight_map": {"a": 3}}', "leads out of its folder"),
        (b'{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}', "2 of 2 files of these weights are missing"),
    ],
)
def test_an_index_that_is_wrong_is_refused(tmp_path: Path, index: bytes, what: str) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_bytes(index)
    with pytest.raises(MLScaleError, match=what):
        safetensors.list_shard_files(path)
