"""Ask a server by the V2 inference protocol over HTTP, with its binary extension: Triton, KServe, `mlscale serve`.

Protocol: https://github.com/kserve/open-inference-protocol, and Triton's extension of binary tensor data.
"""

from __future__ import annotations

import json
import struct
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import Exit, MLScaleError

_DATATYPES = {
    "uint8": "UINT8", "int8": "INT8", "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32",
    "float64": "FP64", "bool": "BOOL",
}  # fmt: skip
_DTYPES = {datatype: dtype for dtype, datatype in _DATATYPES.items()}
_LENGTH = struct.Struct("<I")
_HEAD = "Inference-Header-Content-Length"


class V2Client:
    """A client of one model of one server, with a connection for each request.

    Args:
        url: of the server, such as http://127.0.0.1:8000.
        model: the name of the model.
        timeout_s: seconds that an answer may take.
    """

    def __init__(self, url: str, model: str, *, timeout_s: float = 60.0) -> None:
        self.url, self.model, self._timeout_s = url, model, timeout_s

    def read_product(self) -> str:
        """Return the name and version that the server states of itself."""
        document = json.loads(self._request("/v2", None, {})[1])
        return f"{document['name']} {document['version']}"

    def is_ready(self) -> bool:
        """Return whether the model can be asked."""
        try:
            self._request(f"/v2/models/{quote(self.model, safe='')}/ready", None, {})
        except MLScaleError:
            return False
        return True

    def compute(self, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the outputs by name, (n, …) each, for the inputs by name; bytes and texts are arrays of objects.

        Raises:
            MLScaleError: the server refuses them, or does not answer.
        """
        inputs, tails = [], []
        for name, values in tensors.items():
            tail = _pack_texts(values) if values.dtype.kind in "OSU" else np.ascontiguousarray(values).tobytes()
            datatype = "BYTES" if values.dtype.kind in "OSU" else _DATATYPES[values.dtype.name]
            entry = {"name": name, "datatype": datatype, "shape": list(values.shape)}
            inputs.append({**entry, "parameters": {"binary_data_size": len(tail)}})
            tails.append(tail)
        head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
        headers, body = self._request(
            f"/v2/models/{quote(self.model, safe='')}/infer",
            b"".join([head, *tails]),
            {_HEAD: str(len(head)), "Content-Type": "application/octet-stream"},
        )
        size = int(headers.get(_HEAD, len(body)))
        return _read_outputs(json.loads(body[:size])["outputs"], body[size:])

    def _request(self, path: str, body: bytes | None, headers: Mapping[str, str]) -> tuple[Mapping[str, str], bytes]:
        request = urllib.request.Request(self.url + path, body, dict(headers))  # noqa: S310 of a server that was started here
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as response:  # noqa: S310
                return dict(response.headers.items()), response.read()
        except urllib.error.HTTPError as error:
            raise self._build_error(f"it answers {error.code}: {error.read(2000).decode(errors='replace')}") from error
        except OSError as error:
            raise self._build_error(f"it does not answer: {error}") from error

    def _build_error(self, why: str) -> MLScaleError:
        return MLScaleError(
            f"the server does not compute {self.model}",
            where=self.url,
            why=" ".join(why.split())[:500],
            fix="check=none",
            exit=Exit.GATE,
        )


def _pack_texts(values: NDArray[Any]) -> bytes:
    """Return texts or bytes as the protocol has them: each behind its length."""
    contents = [value if isinstance(value, bytes) else str(value).encode() for value in values.reshape(-1).tolist()]
    return b"".join(part for content in contents for part in (_LENGTH.pack(len(content)), content))


def _unpack_texts(content: bytes, count: int) -> list[str]:
    texts, at = [], 0
    for _ in range(count):
        (size,) = _LENGTH.unpack_from(content, at)
        texts.append(content[at + _LENGTH.size : at + _LENGTH.size + size].decode())
        at += _LENGTH.size + size
    return texts


def _read_outputs(entries: Sequence[Mapping[str, Any]], tail: bytes) -> dict[str, NDArray[Any]]:
    outputs: dict[str, NDArray[Any]] = {}
    for entry in entries:
        shape, datatype = tuple(entry["shape"]), entry["datatype"]
        size = entry.get("parameters", {}).get("binary_data_size")
        if size is None:
            outputs[entry["name"]] = np.array(entry["data"], _DTYPES.get(datatype, object)).reshape(shape)
            continue
        content, tail = tail[:size], tail[size:]
        if datatype == "BYTES":
            outputs[entry["name"]] = np.array(_unpack_texts(content, int(np.prod(shape))), object).reshape(shape)
        else:
            outputs[entry["name"]] = np.frombuffer(content, _DTYPES[datatype]).reshape(shape)
    return outputs
