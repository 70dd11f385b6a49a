"""Before Locust starts: whether the server is there, and what its model takes."""

import socket
import time
from pathlib import Path

import pytest

from mlscale.errors import Exit, MLScaleError
from mlscale.loadtest.server_metadata import request_model_metadata
from mlscale.loadtest.server_model import InputTensor, ServerModel
from tests.serving import serving as start_mlscale
from tests.unit.loadtest.servers import serving


def test_the_only_model_is_found() -> None:
    with serving() as server:
        assert (
            request_model_metadata(server.url)
            == request_model_metadata(server.url + "/", "sums")
            == ServerModel("sums", (InputTensor("input", "uint8", (1, 4, 4)),), 3)
        )


def test_the_runtime_is_what_the_server_states(tmp_path: Path) -> None:
    with start_mlscale(tmp_path) as server:
        assert request_model_metadata(server.url).runtime.startswith("ONNX Runtime ")
    document = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}], "outputs": []}
    for stated, read in (({"runtime": "A\x1b[2J on GPU" + "x" * 400}, "A[2J on GPU" + "x" * 189), ({}, ""), (None, "")):
        assert ServerModel.parse_metadata("m", {**document, "parameters": stated}).runtime == read


def test_an_unknown_model_is_reported() -> None:
    with serving() as server, pytest.raises(MLScaleError, match="is 404") as caught:
        request_model_metadata(server.url, "x")
    assert "unknown model" in caught.value.why


def test_nobody_there_is_reported_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # taken, and nobody listens
        began = time.monotonic()
        with pytest.raises(MLScaleError, match="no server answers") as caught:
            request_model_metadata(f"http://127.0.0.1:{free.getsockname()[1]}")
    assert time.monotonic() - began < 1
    assert (caught.value.exit, "mlscale serve" in caught.value.fix) == (Exit.ENVIRONMENT, True)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", "http://", "http://x:port"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(MLScaleError, match="not the address"):
        request_model_metadata(url)
