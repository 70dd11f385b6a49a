"""Arrays in numpy's files: whole ones are read, and of corrupt ones a plain error comes, whichever bit is wrong."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mlscale.array_files import load_arrays
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.data.windows.window_folder import read_window_digests, write_window_digests
from mlscale.errors import MLScaleError
from mlscale.events.event_table import read_sample


def _save_array(values: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


WHOLE = _save_array(np.arange(12, dtype=np.uint8).reshape(1, 3, 4))
TORN = WHOLE.replace(b"(1, 3, 4)", b"(1, 3, 4(")  # of which numpy's own error is tokenize's


def test_whole_files_are_read(tmp_path: Path) -> None:
    assert load_arrays(WHOLE).shape == (1, 3, 4)
    np.savez(tmp_path / "a.npz", x=np.ones(2), names=np.array(["a", "b"]))
    loaded = load_arrays(tmp_path / "a.npz")
    assert {name: values.tolist() for name, values in loaded.items()} == {"x": [1, 1], "names": ["a", "b"]}
    with pytest.raises(FileNotFoundError):
        load_arrays(tmp_path / "b.npz")


@pytest.mark.parametrize("archive", [False, True])
def test_every_wrong_bit_is_read_over_or_a_plain_error(archive: bool) -> None:
    content = WHOLE
    if archive:
        stream = io.BytesIO()
        np.savez(stream, x=np.ones(2))
        content = stream.getvalue()
    reasons = set()
    for bit in range(8 * len(content)):
        wrong = bytearray(content)
        wrong[bit // 8] ^= 1 << bit % 8
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                load_arrays(bytes(wrong))
            except ValueError as error:
                reasons.add(str(error))
    assert reasons == {"it is not a whole file of numpy's, or has objects, which need pickle"}


def test_what_reads_them_reports_a_torn_header(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a sample of the kind npy can't be read: it is not a whole file"):
        read_sample("npy", TORN)
    encoder = ImageEncoder((1, 3, 4), "uint8", False, 100, (), (), 1)
    with pytest.raises(ValueError, match="it is not a whole file"):
        encoder.encode_sample(TORN)
    (pixels,) = encoder.encode_sample(WHOLE).values()
    assert pixels.shape == (1, 3, 4)
    write_window_digests(tmp_path, np.array([1, 2], np.uint64))
    (file,) = tmp_path.iterdir()
    file.write_bytes(TORN)
    with pytest.raises(MLScaleError, match="a file of a window can't be read") as caught:
        read_window_digests([tmp_path])
    assert "TokenError" not in str(caught.value)
    assert "it is not a whole file of numpy's" in caught.value.why
