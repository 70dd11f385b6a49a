"""Samples out of a file, and random ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlscale.errors import MLScaleError
from mlscale.loadtest.load_samples import generate_samples, read_request_samples
from mlscale.loadtest.server_metadata import ServerModel

MODEL = ServerModel("m", "input", "uint8", (1, 4, 4), 3)
RAW = np.arange(48, dtype=np.uint8).reshape(3, 1, 4, 4)


def written(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "s.npz", **arrays)
    return folder / "s.npz"


def test_samples_and_labels(tmp_path: Path) -> None:
    samples = read_request_samples(written(tmp_path, raw=RAW, labels=np.array(["a", "b", "a"])), MODEL)
    assert (samples.raw == RAW).all()
    assert samples.labels == ("a", "b", "a")
    assert read_request_samples(written(tmp_path, raw=RAW), MODEL).labels is None


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"x": RAW}, "no array 'raw' but x"),
        ({"raw": RAW[:, 0]}, r"takes \(n, 1, 4, 4\)"),
        ({"raw": RAW[:0]}, "raw is"),
        ({"raw": RAW.astype(np.float32)}, "takes uint8"),
        ({"raw": RAW, "labels": np.array(["a"])}, "for 3 samples"),
        ({"raw": RAW.astype(object)}, "pickle|Object"),
    ],
)
def test_what_can_not_be_sent(tmp_path: Path, arrays: dict[str, Any], why: str) -> None:
    with pytest.raises(MLScaleError, match="can't be sent") as caught:
        read_request_samples(written(tmp_path, **arrays), MODEL)
    assert caught.match("can't be sent")
    import re

    assert re.search(why, caught.value.why)


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04nonsense", b"\x93NUMPY"])
def test_a_file_that_is_none(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "s.npz").write_bytes(content)
    with pytest.raises(MLScaleError, match="can't be sent"):
        read_request_samples(tmp_path / "s.npz", MODEL)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "int64"])
def test_random_samples_fit_the_model(dtype: str) -> None:
    samples = generate_samples(ServerModel("m", "input", dtype, (3, 5), 0))
    assert samples.raw.dtype == dtype
    assert samples.raw.shape == (256, 3, 5)
    assert len(np.unique(samples.raw)) > 50
    assert (generate_samples(ServerModel("m", "input", dtype, (3, 5), 0)).raw == samples.raw).all()
