"""TensorFlow Serving's REST interface as its documentation has it, over a SavedModel in TensorFlow: its flags, the
address of a model's state, and `:predict` in columns. The server's own binary is in no registry.

    python -m tests.unit.targets.tfserving.rest_server --rest_api_port=8501 --model_name=m --model_base_path=/models/m
"""

from __future__ import annotations

import argparse
import base64
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

VERSION = "2.19.1"


class Model:
    """The largest version of a model's folder."""

    def __init__(self, name: str, base: Path) -> None:
        from mlscale.targets.tfserving.saved_model import import_tensorflow

        self.name, self._tf = name, import_tensorflow()
        self.version = max(int(path.name) for path in base.iterdir())
        self._loaded = self._tf.saved_model.load(str(base / str(self.version)))
        self._signature = self._loaded.signatures["serving_default"]

    def predict(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to a request in columns."""
        specs = self._signature.structured_input_signature[1]
        given = body["inputs"]
        if not isinstance(given, dict) or "b64" in given:
            given = {next(iter(specs)): given}
        if given.keys() != specs.keys():
            raise ValueError(f"inputs is a map of {sorted(given)}, the signature has {sorted(specs)}")
        tensors = {name: self._tf.constant(_decode(given[name]), spec.dtype) for name, spec in specs.items()}
        outputs = {name: _encode(tensor.numpy()) for name, tensor in self._signature(**tensors).items()}
        return {"outputs": outputs if len(outputs) > 1 else next(iter(outputs.values()))}


def _decode(entry: Any) -> Any:
    if isinstance(entry, list):
        return [_decode(part) for part in entry]
    return base64.b64decode(entry["b64"]) if isinstance(entry, dict) else entry


def _encode(values: np.ndarray[Any, Any]) -> Any:
    return values.tolist()


class Handler(BaseHTTPRequestHandler):
    """Answers for `model`."""

    model: Model

    def do_GET(self) -> None:
        state = {"version": str(self.model.version), "state": "AVAILABLE", "status": {"error_code": "OK"}}
        self._answer(200, {"model_version_status": [state]})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path != f"/v1/models/{self.model.name}:predict":
            self._answer(404, {"error": f"Servable not found for request: Latest({self.path})"})
            return
        try:
            self._answer(200, self.model.predict(json.loads(body)))
        except Exception as error:  # each request is answered
            self._answer(400, {"error": str(error)[:200]})

    def _answer(self, status: int, document: dict[str, Any]) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Print nothing."""


def main() -> None:
    parser = argparse.ArgumentParser()
    for flag in ("--port", "--rest_api_port"):
        parser.add_argument(flag, type=int, default=0)
    for flag in ("--model_name", "--model_base_path"):
        parser.add_argument(flag)
    parser.add_argument("--version", action="store_true")
    given = parser.parse_args()
    if given.version:
        print(f"TensorFlow ModelServer: {VERSION}-tests\nTensorFlow Library: {VERSION}")
        return
    Handler.model = Model(given.model_name, Path(given.model_base_path))
    ThreadingHTTPServer(("127.0.0.1", given.rest_api_port), Handler).serve_forever()


if __name__ == "__main__":
    main()
