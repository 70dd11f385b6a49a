"""Tensors of the V2 protocol with its binary extension, as clients send and read them. Needs numpy only."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

DATATYPES = {
    "uint8": "UINT8", "int8": "INT8", "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32",
    "float64": "FP64", "bool": "BOOL", "object": "BYTES",
}  # fmt: skip
"""V2's name of each dtype; the elements of a BYTES tensor are texts or bytes."""
DTYPES = {datatype: dtype for dtype, datatype in DATATYPES.items()}
BINARY_HEADER = "Inference-Header-Content-Length"


def describe_tensor(name: str, values: NDArray[Any]) -> dict[str, Any]:
    """Return the entry of an input, without its values."""
    return {"name": name, "datatype": DATATYPES.get(values.dtype.name, "BYTES"), "shape": list(values.shape)}


def encode_texts(texts: Iterable[Any]) -> bytes:
    """Return the content of a BYTES tensor: of each element its length (4 bytes, little endian) and its content."""
    # Names of classes may hold lone surrogates, which UTF-8 can't encode.
    contents = [text if isinstance(text, bytes) else str(text).encode("utf-8", "replace") for text in texts]
    return b"".join(part for content in contents for part in (len(content).to_bytes(4, "little"), content))


def encode_tensor(values: NDArray[Any]) -> bytes:
    """Return the bytes of a tensor."""
    return (
        encode_texts(values.ravel().tolist()) if values.dtype.kind in "OSU" else np.ascontiguousarray(values).tobytes()
    )


def encode_request(tensors: Mapping[str, NDArray[Any]]) -> tuple[dict[str, str], bytes]:
    """Return the headers and the body of an inference request, whose answer is to be binary, too."""
    entries, contents = [], []
    for name, values in tensors.items():
        contents.append(encode_tensor(values))
        parameters = {"binary_data_size": len(contents[-1])}
        entries.append({**describe_tensor(name, values), "parameters": parameters})
    head = json.dumps({"inputs": entries, "parameters": {"binary_data_output": True}}).encode()
    headers = {"Content-Type": "application/octet-stream", BINARY_HEADER: str(len(head))}
    return headers, b"".join([head, *contents])


def decode_response(headers: Mapping[str, str], body: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return the document of an answer, and its outputs by name; those of other datatypes are left out."""
    # Servers send headers in any case.
    lengths = {name.lower(): value for name, value in headers.items()}
    # Without the header there are no binary tensors, and the whole body is JSON.
    end = int(lengths.get(BINARY_HEADER.lower(), len(body)))
    document, outputs = json.loads(body[:end]), {}
    for entry in document["outputs"]:
        size = (entry.get("parameters") or {}).get("binary_data_size")
        # Binary tensors follow the JSON in the order of the outputs.
        content = entry["data"] if size is None else body[end : end + size]
        end += size or 0
        if dtype := DTYPES.get(entry["datatype"]):
            if size is None:
                values = np.array(content, dtype)
            else:
                values = np.array(_decode_texts(content), dtype) if dtype == "object" else np.frombuffer(content, dtype)
            outputs[entry["name"]] = values.reshape(entry["shape"])
    return document, outputs


def _decode_texts(content: bytes) -> list[str]:
    texts, at = [], 0
    while at < len(content):
        start = at + 4
        at = start + int.from_bytes(content[at:start], "little")
        texts.append(content[start:at].decode())
    return texts
