"""Ask TensorFlow Serving over HTTP: its REST interface, `:predict` in columns.

Protocol: https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import Exit, MLScaleError
from mlscale.export.engines.engine import Port

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
