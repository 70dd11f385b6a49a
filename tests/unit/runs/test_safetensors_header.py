"""The header of a safetensors file: what the library writes is read, and what does not fit is refused in words."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from mlscale.errors import MLScaleError
from mlscale.runs import safetensors_header as safetensors


def written(path: Path, header: Any, data: bytes = b"", *, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(shape: list[Any], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_what_the_library_writes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tensors = {"b": torch.zeros(2, 3), "a": torch.zeros(5, dtype=torch.bfloat16), "scalar": torch.tensor(1)}
    save_file(tensors, path, {"format": "pt", "license": "mit"})
    header = safetensors.read_safetensors_header(path)
    assert {name: place.shape for name, place in header.tensors.items()} == {"b": (2, 3), "a": (5,), "scalar": ()}
    assert header.metadata == {"format": "pt", "license": "mit"}
    assert max(place.end for place in header.tensors.values()) == path.stat().st_size


@pytest.mark.parametrize("keep", [0, 5, 8, 30, -1])
def test_a_torn_file_says_so(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(MLScaleError, match="can't be used") as caught:
        safetensors.read_safetensors_header(path)
    assert "it is cut short" in caught.value.why


@pytest.mark.parametrize(
    ("header", "data", "why"),
    [
        ({"a": entry([2], 0, 8)}, b"x" * 9, "1 bytes belong to no tensor"),
        ({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, b"x" * 4, "does not begin where"),
        ({"a": entry([1], 4, 8)}, b"x" * 8, "a does not begin where"),
        ({"a": entry([2**40, 2**40], 0, 8)}, b"x" * 8, "whose shape does not fit"),
        ({"a": entry([-1, -2], 0, 8)}, b"x" * 8, "not a whole number"),
        ({"a": entry([True, 2], 0, 8)}, b"x" * 8, "not a whole number"),
        ({"a": entry([2], 0, 8, "X8")}, b"x" * 8, "tensors of type 'X8' are not read"),
        ({"a": entry([2], 0, 8, ["F32"])}, b"x" * 8, "header can't be read"),  # type: ignore[arg-type]
        ({"__metadata__": {"license": 3}}, b"", "metadata that is not text"),
        ({"a": 1}, b"", "header can't be read"),
        ([1], b"", "header can't be read"),
        (b'{"a":1,"a":1}', b"", "stands there twice"),
        (b"\xff\xfe{", b"", "header can't be read"),
        (b"[" * 100_000, b"", "header can't be read"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, header: Any, data: bytes, why: str) -> None:
    with pytest.raises(MLScaleError) as caught:
        safetensors.read_safetensors_header(written(tmp_path / "x.safetensors", header, data))
    assert why in caught.value.why


def test_a_header_that_would_fill_the_memory_is_not_read(tmp_path: Path) -> None:
    path = written(tmp_path / "x.safetensors", b"", length=150_000_000)
    with path.open("r+b") as file:
        file.truncate(8 + 200_000_000)  # sparse: it takes no room
    with pytest.raises(MLScaleError) as caught:
        safetensors.read_safetensors_header(path)
    assert "would have 150,000,000 bytes" in caught.value.why


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
