"""The Open Inference Protocol V2 over HTTP, with JSON and binary tensors, as Triton Inference Server implements it.

https://github.com/kserve/open-inference-protocol and Triton's extensions binary_tensor_data and classification;
statuses and messages are those of Triton 2.51, which answers a request that it can't parse with status 500.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.encoder import EncodedSamples
from mlscale.export.engines.engine import Port
from mlscale.serve.http.request_error import Refused
from mlscale.serve.protocol import json_numbers, raw_json
from mlscale.serve.protocol.v2_inputs import (
    FILE,
    NO_COUNT,
    NO_MEMBER,
    build_parse_refusal,
    format_value,
    get_entries,
    get_optional_text,
    get_parameters,
    get_text,
    read_tensors,
)
from mlscale.serve.served_model import ServedModel

PROBABILITIES, LABEL = "probabilities", "label"
_LENGTH = b"inference-header-content-length"
MAX_ID = 200
_ROW = "row {} of the batch"


class RequestedOutput(NamedTuple):
    """A requested output: its name, True to send it as bytes, and its number of likeliest classes (0: all values)."""

    name: str
    binary: bool
    top: int


class InferRequest(NamedTuple):
    """A parsed inference request.

    Attributes:
        samples: as the graph takes them; none where there are files.
        id: the client's; '' where it gave none.
        outputs: the outputs that the client wants.
        files: images that are decoded next, which takes long.
    """

    samples: EncodedSamples
    id: str
    outputs: Sequence[RequestedOutput]
    files: Sequence[bytes] = ()


def compute_body_limit(model: ServedModel, headers: Mapping[bytes, bytes], max_rows: int) -> int | None:
    """Return the most bytes of a request: its JSON, and the samples after it; None where their size is not known.

    Raises:
        Refused: its JSON is too long (413), or its length is not a number.
    """
    length = headers.get(_LENGTH)
    if length is None:
        return model.limits.json_bytes
    size = _parse_json_length(length)
    if model.tensor is not None and not model.file_input:
        return max_rows * model.tensor_bytes + min(size, model.limits.json_bytes)
    if size > model.limits.json_bytes:
        raise Refused(f"the JSON of the request is over {model.limits.json_bytes} bytes", 413)
    return None


def count_text_bytes(model: ServedModel, headers: Mapping[bytes, bytes], body: bytes | bytearray) -> int:
    """Return the bytes of JSON and of texts in a request, which take the time of the interpreter."""
    length = headers.get(_LENGTH)
    # Texts are read one by one, images and numbers are not.
    has_texts = model.file_input in ("text", "row") or any(port.dtype == "string" for port in model.servable.inputs)
    return len(body) if length is None or has_texts else _parse_json_length(length)


def parse_infer_request(model: ServedModel, headers: Mapping[bytes, bytes], body: bytes | bytearray) -> InferRequest:
    """Parse an inference request.

    Raises:
        Refused: it is not what the model takes.
    """
    length = headers.get(_LENGTH)
    if length is None and body:
        return _parse_infer_document(model, _parse_document(model, body), memoryview(b""))
    size = 0 if length is None else _parse_json_length(length)
    if size > len(body):
        raise Refused(f"inference header size should be in range (0, {len(body)}), got: {size}")
    # A JSON length of 0: the body is one raw tensor, and all outputs are binary (Triton's raw binary request).
    if size == 0:
        if model.tensor is None:
            raise Refused(f"raw binary request is for one input of a fixed size, which '{model.name}' does not have")
        if not body or len(body) % model.tensor_bytes:
            raise Refused(
                f"input byte size mismatch for input 'raw_input' for model '{model.name}'. Expected "
                f"{model.tensor_bytes}, got {len(body)}"
            )
        tensors = {model.tensor.name: parse_raw_samples(model, body)}
        json_numbers.refuse_bad_rows(model, tensors, _ROW)
        return InferRequest(
            EncodedSamples(tensors, {}), "", [RequestedOutput(name, True, 0) for name in list_output_names(model)]
        )
    # Views, no copy: the samples stay in the body that was received.
    return _parse_infer_document(model, _parse_document(model, body[:size]), memoryview(body)[size:])


def parse_raw_samples(model: ServedModel, body: bytes | bytearray | memoryview) -> NDArray[Any]:
    """Return samples of `model.tensor` from bytes in C order, one after the other.

    Raises:
        Refused: not a whole number of samples, or none.
    """
    assert model.tensor is not None
    port = model.tensor
    count, rest = divmod(len(body), model.tensor_bytes)
    if rest or not count:
        raise Refused(
            f"{len(body)} bytes are not a whole number of samples: one has {model.tensor_bytes} bytes, "
            f"{port.dtype} of {list(port.shape[1:])}"
        )
    return np.frombuffer(body, port.dtype).reshape(count, *port.shape[1:])


def validate_id(value: object) -> str:
    """Return the id of a request or an event, '' for None.

    Raises:
        Refused: it is not a text, has over 200 characters, or characters that are not printable.
    """
    if value is None:
        return ""
    # `isprintable` excludes lone surrogates, which UTF-8 can't hold, and line ends, which would split a header.
    if not isinstance(value, str) or len(value) > MAX_ID or not value.isprintable():
        raise Refused(f"an id is a text of at most {MAX_ID} printable characters")
    return value


def _parse_json_length(stated: bytes) -> int:
    # At most 18 digits fit into 64 bits, and `isdigit` excludes signs.
    if not stated.isdigit() or len(stated) > 18:
        raise Refused(f"Unable to parse Inference-Header-Content-Length, got: {format_value(stated.decode('latin-1'))}")
    return int(stated)


def _parse_document(model: ServedModel, text: bytes | bytearray) -> dict[str, Any]:
    json_numbers.check_expansion(model, text)
    try:
        document = json_numbers.parse_document(text)
    except ValueError as error:  # as Triton does
        raise Refused(f"failed to parse the request JSON buffer: {error}", 500) from error
    if not isinstance(document, dict):
        raise build_parse_refusal("inputs", NO_MEMBER.format("inputs"))
    return document


def _parse_infer_document(model: ServedModel, document: dict[str, Any], tail: memoryview) -> InferRequest:
    try:
        return _parse_infer_members(model, document, tail)
    except Refused as refused:
        # By which the client finds the refusal again in its own log.
        with contextlib.suppress(Refused):
            refused.request_id = validate_id(document.get("id"))
        raise


def _parse_infer_members(model: ServedModel, document: dict[str, Any], tail: memoryview) -> InferRequest:
    inputs = get_entries(document, "inputs")
    ports = _find_input_ports(model, inputs)
    binary = bool(get_parameters(document).get("binary_data_output", False))
    tensors = read_tensors(model.name, ports, inputs, tail)
    id_, outputs = validate_id(get_optional_text(document, "id")), _parse_outputs(model, document, binary)
    if not model.file_input or ports[0].name != model.file_input:
        json_numbers.refuse_bad_rows(model, tensors, _ROW)
        return InferRequest(EncodedSamples(tensors, {}), id_, outputs)
    files = tensors[model.file_input].ravel().tolist()
    # An image takes milliseconds to decode, so a batch is the most.
    if len(files) > model.limits.samples or (model.file_input == "image" and len(files) > model.max_batch):
        most = min(model.limits.samples, model.max_batch)
        raise Refused(f"a request has at most {most} inputs of the type BYTES for '{model.name}'", 413)
    if model.file_input == "image":
        return InferRequest(EncodedSamples({}, {}), id_, outputs, files)
    raw = _parse_rows(model, files) if model.file_input == "row" else files
    return InferRequest(raw_json.pack_raw(model, raw), id_, outputs)


def _parse_rows(model: ServedModel, texts: Sequence[str | bytes]) -> list[Any]:
    """Return the rows of a table, each of which is a text of JSON.

    Raises:
        Refused: one is not, or all together are too long.
    """
    contents = [text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text for text in texts]
    # Their number is limited by now, and not what one of them holds.
    if sum(map(len, contents)) > model.limits.json_bytes:
        raise Refused(f"the rows of the request are over {model.limits.json_bytes} bytes", 413)
    rows = []
    for number, content in enumerate(contents):
        json_numbers.check_expansion(model, content)
        try:
            rows.append(json_numbers.parse_document(content))
        except ValueError as error:
            raise Refused(f"inputs[{number}] can't be used: it is not JSON: {error}") from error
    return rows


def _find_input_ports(model: ServedModel, inputs: Sequence[Mapping[str, Any]]) -> list[Port]:
    """Return the port of each input: all those of the graph, or the raw samples alone."""
    known = {port.name: port for port in model.servable.inputs}
    names = [get_text(entry, "name") for entry in inputs]
    if model.file_input and model.file_input in names:
        known = {model.file_input: Port(model.file_input, FILE, (-1,))}
    for name in names:
        if name not in known:
            raise Refused(f"unexpected inference input '{format_value(name)}' for model '{model.name}'")
    for name in known:
        if names.count(name) > 1:
            raise Refused(f"input '{name}' already exists in request")
    if missing := [name for name in known if name not in names]:
        raise Refused(
            f"expected {len(known)} inputs but got {len(names)} inputs for model '{model.name}'. Got input(s) {names}, "
            f"but missing required input(s) {missing}. Please provide all required input(s)."
        )
    return [known[name] for name in names]


def _parse_outputs(model: ServedModel, document: dict[str, Any], binary: bool) -> list[RequestedOutput]:
    entries = get_entries(document, "outputs") if document.get("outputs") is not None else []
    names = list_output_names(model)
    if not entries:
        return [RequestedOutput(name, binary, 0) for name in names]
    requested: list[RequestedOutput] = []
    for entry in entries:
        name, parameters = get_text(entry, "name"), get_parameters(entry)
        if name not in names:
            raise Refused(f"unexpected inference output '{format_value(name)}' for model '{model.name}'")
        if any(name == other.name for other in requested):  # each would be computed, written and sent again
            raise Refused(f"output '{name}' already exists in request")
        top = parameters.get("classification", 0)
        if type(top) is not int or top < 0:
            raise Refused(f"Unable to set 'classification': {NO_COUNT}", 500)
        if top and not _has_classes(model, name):
            # Numbers of targets and pixels have no class to name: the best of them would be a number without meaning.
            with_classes = [other for other in names if _has_classes(model, other)]
            others = f", unlike {', '.join(map(repr, with_classes))}" if with_classes else ""
            raise Refused(f"output '{name}' has no score for each class{others}: request it without 'classification'")
        requested.append(
            RequestedOutput(name, bool(parameters.get("binary_data", binary)), min(top, len(model.servable.labels)))
        )
    return requested


def list_output_names(model: ServedModel) -> tuple[str, ...]:
    """Return the names of the outputs: the model's own, and those derived from them."""
    own = tuple(port.name for port in model.servable.outputs)
    return (*own, PROBABILITIES, LABEL) if model.has_one_class else own


def _has_classes(model: ServedModel, name: str) -> bool:
    """Return whether an output has a number for each class."""
    shapes = {port.name: port.shape for port in model.servable.outputs}
    return name == PROBABILITIES or shapes.get(name) == (-1, len(model.servable.labels))
