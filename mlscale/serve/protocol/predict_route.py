"""`POST /predict`, the simple protocol: takes raw samples (a row, a text, an image file) or tensors as JSON or bytes,
and answers in the task's own terms."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mlscale.data.decoding.image_files import ImageFormat, find_image_format
from mlscale.data.encoders.encoder import EncodedSamples
from mlscale.serve.http.exchange import JSON, create_encoder
from mlscale.serve.http.request_error import Refused
from mlscale.serve.protocol import image_input as images
from mlscale.serve.protocol import json_numbers, raw_json, v2
from mlscale.serve.protocol.image_input import FILE_ADVICE, IMAGE_ADVICE, RAW_FORMS
from mlscale.serve.served_model import Outputs, ServedModel, compute_text_limit

JSON_KINDS = (b"application/json", b"text/json", b"application/x-www-form-urlencoded")  # the last: curl -d
TEXT, RAW_BYTES = b"text/plain", b"application/octet-stream"
_CHARSETS = re.compile(r"utf-(8|16|32)(-[lb]e)?|ascii|iso8859-\d+|cp125\d|koi8-[ru]|shift_jis|euc_(jp|kr)|gb18030|big5")
"""Names of codecs that a charset may mean; Python has others, which no client means."""
_MOST_CHARSET = 40
_TEXT_HINT = "; a text by itself is sent with 'Content-Type: text/plain'"
_ALONE_HINTS = {"text": _TEXT_HINT, "document": _TEXT_HINT, "image": f"; an image file is sent as it is, {FILE_ADVICE}"}
"""The hint for a sample that was sent alone and is not JSON, by the kind of the encoder."""
_TEXT_BYTES_PER_NUMBER = 16
# JSON has no NaN and no infinity: what reads the response would fail.
_encode_finite = create_encoder(allow_nan=False)


class PredictRequest(NamedTuple):
    """A parsed request.

    Attributes:
        samples: as the graph takes them.
        ids: one for each sample, where the client gave a list of them; else empty.
        id: one for all samples, where the client gave one; else ''.
    """

    samples: EncodedSamples
    ids: Sequence[str]
    id: str


def compute_body_limit(model: ServedModel, headers: Mapping[bytes, bytes], max_rows: int) -> int | None:
    """Return the most bytes of a request; None for images, whose size is not known."""
    kind = images.parse_content_type(headers)
    if kind == RAW_BYTES and model.tensor is not None:
        return max_rows * model.tensor_bytes
    if kind == TEXT:
        return compute_text_limit(model.servable.encoder, max_rows)
    # A file's size says little of its pixels: images are limited by those, before they are decoded.
    return None if kind in images.KINDS else model.limits.json_bytes


def describe_large_body(model: ServedModel, kind: bytes, size: int, limit: int) -> Refused:
    """Return the refusal of a body of `size` bytes, over `limit`; 415 of another type, as less of it is not taken."""
    takes_text, is_tensor = model.servable.encoder.kind in ("text", "document"), model.tensor is not None
    if kind in JSON_KINDS or kind in images.KINDS or (kind == TEXT and takes_text) or (kind == RAW_BYTES and is_tensor):
        return Refused(f"the body is over {limit} bytes, it has {size}", 413)
    return _describe_other_type(model, kind)


def _describe_other_type(model: ServedModel, kind: bytes) -> Refused:
    forms = RAW_FORMS[model.servable.encoder.kind]
    return Refused(f"can't read {kind.decode('latin-1')[:200]}: {model.name} takes {forms}; see GET /openapi.json", 415)


def count_text_bytes(model: ServedModel, headers: Mapping[bytes, bytes], body: bytes | bytearray) -> int:
    """Return the bytes of JSON or text in a request, which take the time of the interpreter."""
    kind = images.parse_content_type(headers)
    # numpy and the image decoder release the interpreter's lock; JSON and texts hold it.
    return len(body) if kind in JSON_KINDS or kind == TEXT else 0


def count_numbers(request: PredictRequest, outputs: Outputs) -> int:
    """Return the count of numbers that the response holds, texts included."""
    # The refusal of what is not finite is short, and names the place by the samples, which other processes lack.
    if False in outputs.finite.tolist():
        return 0
    # Per row: id, label and their keys, as long as some numbers.
    return 8 * len(outputs.finite) + sum(map(_count_column_numbers, outputs.columns.values()))


def has_files(outputs: Outputs) -> bool:
    """Return whether predictions are files, such as masks, of which the response states what is in them."""
    return any(type(values) is list and values and type(values[0]) is bytes for values in outputs.columns.values())


def select_outputs(request: PredictRequest, outputs: Outputs) -> Outputs:
    """Return what the response is written from."""
    return Outputs({}, outputs.columns, outputs.finite)


def parse_predict_request(
    model: ServedModel, headers: Mapping[bytes, bytes], body: bytes | bytearray
) -> PredictRequest:
    """Parse a request by its content type.

    Raises:
        Refused: it is not what the model takes.
    """
    kind = images.parse_content_type(headers)
    named = _read_header_id(headers)
    if kind == RAW_BYTES:
        if model.tensor is None:
            raise _describe_other_type(model, kind)
        tensors = {model.tensor.name: v2.parse_raw_samples(model, body)}
        json_numbers.refuse_bad_rows(model, tensors, "sample {}")
        return PredictRequest(EncodedSamples(tensors, {}), (), named)
    if kind in images.KINDS:
        return PredictRequest(images.decode_image_samples(model, [bytes(body)]), (), named)
    if kind in JSON_KINDS:
        return _parse_json_request(model, body, named)
    # For other models a text is no sample, and a wrong content type should not be guessed around.
    if kind == TEXT and model.servable.encoder.kind in ("text", "document"):
        return PredictRequest(raw_json.pack_raw(model, [_decode_text(headers, body)], is_alone=True), (), named)
    raise _describe_other_type(model, kind)


def _read_header_id(headers: Mapping[bytes, bytes]) -> str:
    """Return the id in the header `mlscale-id`, '' without one; of the same bytes as in JSON, so that both are one id.

    Raises:
        Refused: it is not UTF-8, or not an id.
    """
    try:
        return v2.validate_id(headers.get(b"mlscale-id", b"").decode())
    except UnicodeDecodeError as error:
        raise Refused('the header mlscale-id is not UTF-8: send its UTF-8 bytes, or the id as "id" in JSON') from error


def _parse_json_request(model: ServedModel, body: bytes | bytearray, named: str) -> PredictRequest:
    try:
        json_numbers.check_expansion(model, body)
        document = json_numbers.parse_document(body)
    except ValueError as error:
        if image_format := find_image_format(body):
            # Not decoded all the same: a page of another site may send a form without a preflight request.
            raise _describe_untyped_image(model, image_format) from error
        hint = _ALONE_HINTS.get(model.servable.encoder.kind, "")
        raise Refused(f"the body is {f'not JSON: {error}' if body.strip() else 'empty'}{hint}") from error
    try:
        samples, id_ = raw_json.parse_samples(model, document)
    except Refused as refused:
        # What is no nested list of pixels was meant to be a file.
        if model.servable.encoder.kind != "image" or refused.status != 400:
            raise
        raise Refused(f"{refused.message}; an image file is sent as it is, {FILE_ADVICE}") from refused
    if not isinstance(id_, list):
        return PredictRequest(samples, (), v2.validate_id(id_) or named)
    ids = [v2.validate_id(item) for item in id_]
    # An event is found by its id, so two samples of a request can't share one.
    if len(ids) != samples.size or not all(ids) or len(set(ids)) != len(ids):
        raise Refused(f"{samples.size} samples need as many ids, each another text, or one id for all")
    return PredictRequest(samples, ids, "")


def _describe_untyped_image(model: ServedModel, sent: ImageFormat) -> Refused:
    if model.servable.encoder.kind != "image":
        return _describe_other_type(model, sent.content_types[0].encode())
    advice = IMAGE_ADVICE.format(sent.content_types[0], f"photo.{sent.extensions[0]}")
    return Refused(f"the body is an image: send its type, {advice}", 415)


def encode_predict_response(
    model: ServedModel, request: PredictRequest, ids: Sequence[str], outputs: Outputs
) -> tuple[bytes, bytes, bytes]:
    """Return the response with a prediction for each sample: its body, content type, and more header lines.

    Raises:
        Refused: the model returns NaN or infinity, which JSON does not have.
    """
    # Before the response is built: its answers would be computed for nothing.
    if False in (finite := outputs.finite.tolist()):
        sample = f"inputs[{finite.index(False)}]" if len(finite) > 1 else "these inputs"
        raise Refused(f"the model gives no finite numbers for {sample}")
    servable = model.servable
    answers = servable.task_type.build_answers(outputs.columns, servable.names)
    predictions = [{"id": id_, **answer} for id_, answer in zip(ids, answers, strict=True)]
    document = {"model_name": model.name, "model_version": model.version, "predictions": predictions}
    try:
        return _encode_finite(document), JSON, b""
    except ValueError as error:
        raise Refused("the model gives no finite numbers for these inputs") from error


def _count_column_numbers(values: Any) -> int:
    if isinstance(values, np.ndarray):
        return values.size
    if values and isinstance(values[0], np.ndarray):
        return sum(item.size for item in values)
    if values and isinstance(values[0], bytes):
        return sum(map(len, values)) // _TEXT_BYTES_PER_NUMBER
    return sum(map(len, values)) if values and isinstance(values[0], list) else len(values)


def _decode_text(headers: Mapping[bytes, bytes], body: bytes | bytearray) -> bytes:
    """Return a text as UTF-8; without a stated charset its bytes are taken as they are, as in training.

    Raises:
        Refused: the charset is not known (415), or has no such bytes (400).
    """
    _, is_stated, parameter = headers[b"content-type"].lower().partition(b"charset=")
    charset = parameter.partition(b";")[0].strip().strip(b'"').decode("latin-1")[:_MOST_CHARSET]
    if not is_stated:
        return bytes(body)
    try:
        codec = codecs.lookup(charset).name
    except (LookupError, ValueError):
        codec = ""
    if not _CHARSETS.fullmatch(codec):
        what = f"can't read the charset {charset}" if charset else "the charset in the Content-Type is empty"
        raise Refused(f"{what}: send UTF-8", 415)
    try:
        return body.decode(codec).encode()
    except UnicodeDecodeError as error:
        fix = "leave the charset out to send the bytes as they are, or state that of the text, such as iso-8859-1"
        raise Refused(f"byte {error.start + 1} of the text is not {charset}: {fix}") from error
