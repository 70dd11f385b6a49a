"""Start TensorFlow Serving on this machine: the installed binary, or a container of it."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import Exit, MLScaleError
from mlscale.export.engines.engine import Port
from mlscale.export.servable import Servable
from mlscale.targets.started_process import find_free_port, start_process

BINARY, ENGINES = "tensorflow_model_server", ("docker", "podman")
GRPC_PORT, REST_PORT = 8500, 8501
"""The ports of the server's own examples; its clients know them."""
_VERSION_S = 600.0  # the first start of a container downloads it


@dataclass(frozen=True)
class ModelServer:
    """A running server, asked for encoded samples.

    Attributes:
        product: its name and version.
        servable: whose samples are sent; its engine is the server.
    """

    product: str
    servable: Servable

    def compute_samples(self, raw: Sequence[Any]) -> Mapping[str, NDArray[Any]]:
        """Return the outputs of raw samples, which are encoded here: the server takes tensors."""
        return self.servable.compute_samples(self.servable.pack_samples(raw))


def format_server_command(base: Path, image: str) -> list[str]:
    """Return the words that serve a model's folder of versions on the usual ports."""
    if shutil.which(BINARY) is not None:
        return [
            BINARY, f"--port={GRPC_PORT}", f"--rest_api_port={REST_PORT}",
            f"--model_name={base.name}", f"--model_base_path={base}",
        ]  # fmt: skip
    # Where none is installed here, the servable will be served elsewhere.
    engine = next(filter(shutil.which, ENGINES), ENGINES[0])
    ports = [f"{GRPC_PORT}:{GRPC_PORT}", f"{REST_PORT}:{REST_PORT}"]
    return [*_list_container_words(engine, base, ports), image]


def _list_container_words(engine: str, base: Path, ports: Sequence[str]) -> list[str]:
    published = [word for port in ports for word in ("-p", port)]
    mounted = ["-v", f"{base}:/models/{base.name}:ro", "-e", f"MODEL_NAME={base.name}"]
    return [engine, "run", "--rm", *published, *mounted]


@contextmanager
def start_model_server(servable: Servable, base: Path, image: str, wait_s: float) -> Iterator[ModelServer]:
    """Serve a model's folder of versions on a free port of this machine while the block runs.

    Raises:
        MLScaleError: neither the server nor a container engine is installed (exit code 5), or it does not load the
            model (exit code 4).
    """
    engine = next(filter(shutil.which, ENGINES), None)
    port, base = find_free_port(), base.absolute()
    client = RestClient(f"http://127.0.0.1:{port}", base.name, servable.inputs, servable.outputs)
    server = ModelServer(_read_product(engine, image), replace(servable, engine=client))
    if shutil.which(BINARY) is not None:
        # Port 0 is without gRPC.
        words = ["--port=0", f"--rest_api_port={port}", f"--model_name={base.name}", f"--model_base_path={base}"]
        with start_process([BINARY, *words], client.is_ready, product=server.product, wait_s=wait_s):
            yield server
        return
    assert engine is not None
    name = f"mlscale-check-{uuid.uuid4().hex[:12]}"
    words = _list_container_words(engine, base, [f"127.0.0.1:{port}:{REST_PORT}"])
    with start_process(
        [*words, "--name", name, image],
        client.is_ready,
        product=server.product,
        wait_s=wait_s,
        # A container outlives the command that started it, where that was killed.
        at_end=[engine, "rm", "-f", name],
    ):
        yield server


def require_model_server() -> None:
    """Raise an error if neither the binary nor a container engine is installed.

    Raises:
        MLScaleError: they are not (exit code 5).
    """
    if not any(map(shutil.which, (BINARY, *ENGINES))):
        raise MLScaleError(
            "TensorFlow Serving is not installed",
            where="check=server",
            why=f"neither {BINARY} nor {' nor '.join(ENGINES)} is on the PATH",
            fix="check=none\nelse install docker, or the package tensorflow-model-server: "
            "https://www.tensorflow.org/tfx/serving/setup",
            exit=Exit.ENVIRONMENT,
        )


def _read_product(engine: str | None, image: str) -> str:
    """Return the server's name and the version that it prints; over HTTP it states none.

    Raises:
        MLScaleError: it is not installed, nor a container engine (exit code 5).
    """
    command = [BINARY, "--version"]
    if shutil.which(BINARY) is None:
        require_model_server()
        assert engine is not None
        command = [engine, "run", "--rm", "--entrypoint", BINARY, image, "--version"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=_VERSION_S, check=False)
    match = re.search(r"ModelServer:\s*(\S+)", ran.stdout + ran.stderr)
    if ran.returncode and match is None:
        raise MLScaleError(
            "TensorFlow Serving can't be started",
            where="check=server",
            why=(ran.stderr or ran.stdout).strip()[-300:],
            fix=f"check=none\nelse make this work: {' '.join(command)}",
            exit=Exit.ENVIRONMENT,
        )
    return f"TensorFlow Serving {match[1]}" if match else "TensorFlow Serving"


_PREFIX = "TensorFlow Serving refuses a request"


@dataclass(frozen=True)
class RestClient:
    """A client of one model of a server; computes as an `Engine`.

    Attributes:
        url: of the server, such as http://127.0.0.1:8501.
        model: its name.
        inputs, outputs: of its signature.
        timeout_s: seconds that an answer may take.
    """

    url: str
    model: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    timeout_s: float = 120.0

    @property
    def description(self) -> str:
        """The server and its address."""
        return f"TensorFlow Serving at {self.url}"

    def is_ready(self) -> bool:
        """Return whether the model can be asked.

        Raises:
            MLScaleError: the server could not load it (exit code 4).
        """
        try:
            document = self._send_request("", None)
        except (OSError, MLScaleError):
            return False
        # Of each version that is or was loaded; one that fails is tried again, so that it never becomes ready.
        versions = document.get("model_version_status", [])
        for version in versions:
            status = version.get("status", {})
            if status.get("error_code", "OK") != "OK":
                raise MLScaleError(
                    "TensorFlow Serving can't load the model",
                    where="check=server",
                    why=str(status.get("error_message", status)),
                    fix="check=none",
                    exit=Exit.GATE,
                )
        return any(version.get("state") == "AVAILABLE" for version in versions)

    def compute(self, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the outputs by name, (n, …) each, for the inputs by name, in one request.

        Raises:
            MLScaleError: the server refuses them, or does not answer.
        """
        body = {"inputs": {port.name: encode_values(tensors[port.name]) for port in self.inputs}}
        try:
            document = self._send_request(":predict", json.dumps(body).encode())
        except OSError as error:
            raise _build_request_error("TensorFlow Serving does not answer", str(error)) from error
        outputs = document.get("outputs")
        # A single output comes without its name.
        named = {self.outputs[0].name: outputs} if len(self.outputs) == 1 else outputs
        if not isinstance(named, dict) or not all(port.name in named for port in self.outputs):
            raise _build_request_error("TensorFlow Serving gives other outputs", str(document)[:300])
        return {port.name: decode_values(named[port.name], port) for port in self.outputs}

    def _send_request(self, path: str, body: bytes | None) -> dict[str, Any]:
        address = f"{self.url}/v1/models/{quote(self.model, safe='')}{path}"
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})  # noqa: S310 - of HTTP
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s) as answer:  # noqa: S310 - of HTTP
                content = answer.read()
        except urllib.error.HTTPError as error:
            with error:
                raise _build_request_error(
                    _PREFIX, f"{error.code}: {error.read()[:300].decode(errors='replace')}"
                ) from error
        document: dict[str, Any] = json.loads(content)
        return document


def encode_values(values: NDArray[Any]) -> Any:
    """Return a tensor as JSON values: NaN as the server takes it, and bytes in base64."""
    if values.dtype != object:
        return values.tolist()
    return _encode_texts(values.tolist())


def _encode_texts(entry: Any) -> Any:
    if isinstance(entry, list):
        return [_encode_texts(part) for part in entry]
    # A text may not be UTF-8, which JSON needs.
    content = entry.encode("utf-8", "surrogateescape") if isinstance(entry, str) else bytes(entry)
    return {"b64": base64.b64encode(content).decode()}


def decode_values(entry: Any, port: Port) -> NDArray[Any]:
    """Return a tensor of JSON values, in the dtype of an output."""
    return np.array(entry, object if port.dtype == "string" else port.dtype)


def _build_request_error(what: str, why: str) -> MLScaleError:
    return MLScaleError(what, where="check=server", why=why, fix="check=none", exit=Exit.GATE)
