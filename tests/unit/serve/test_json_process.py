"""The process that reads long JSON: what passes, what it may take, and that another one follows where it ends."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlscale.serve.http.request_error import Refused
from mlscale.serve.json_process import JsonProcess

_FEW = 1 << 20
needs_limits = pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's memory")


@pytest.fixture(scope="module")
def process() -> Iterator[JsonProcess]:
    one = JsonProcess()
    yield one
    one.close()


@pytest.mark.parametrize("count", [0, 1, 3_000_001])
def test_arrays_and_long_answers_pass_as_they_are(process: JsonProcess, count: int) -> None:
    array = np.arange(count, dtype=np.float32)
    np.testing.assert_array_equal(process.call_function(np.negative, array, memory_bytes=5 * array.nbytes), -array)
    content = bytes(range(256)) * (count // 256)
    before, middle, after = process.call_function(
        bytes.rpartition, content + b"/end", b"/", memory_bytes=20 * len(content)
    )
    assert (bytes(before), middle, after) == (content, b"/", b"end")


def test_a_body_passes_as_it_is(process: JsonProcess) -> None:
    body = bytearray(json.dumps(list(range(100_000))).encode())
    assert process.call_function(json.loads, body, memory_bytes=20 << 20) == list(range(100_000))


@needs_limits
@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (json.loads, (b"[" + b"{}," * (4 << 20) + b"{}]",)),
        (np.ones, (1 << 27,)),
        (bytes, (1 << 30,)),
    ],
)
def test_what_takes_too_much_memory_is_refused_and_the_next_call_answered(
    process: JsonProcess, function: Any, arguments: tuple[Any, ...]
) -> None:
    before = process.call_function(_pid, b"", memory_bytes=_FEW)
    with pytest.raises(Refused, match="too much memory") as refused:
        process.call_function(function, *arguments, memory_bytes=_FEW)
    assert refused.value.status == 413
    after = process.call_function(_pid, b"", memory_bytes=_FEW)
    assert after != before
    assert not Path(f"/proc/{before}").exists()


def test_another_process_follows_one_that_dies(process: JsonProcess) -> None:
    with pytest.raises(Refused, match="memory or time") as refused:
        process.call_function(os._exit, 9, memory_bytes=_FEW)
    assert (refused.value.status, refused.value.headers) == (503, b"Retry-After: 1\r\n")
    assert process.call_function(abs, -7, memory_bytes=_FEW) == 7


@needs_limits
def test_a_refusal_for_want_of_memory_is_one(process: JsonProcess) -> None:
    """Whoever reads an image turns every error into a refusal."""
    with pytest.raises(Refused, match="too much memory"):
        process.call_function(_refusing, b"", memory_bytes=_FEW)


def _pid(body: bytes) -> int:
    return os.getpid()


def _refusing(body: bytes) -> None:
    try:
        np.ones(1 << 30)
    except Exception as error:
        raise Refused("this image can't be decoded") from error
