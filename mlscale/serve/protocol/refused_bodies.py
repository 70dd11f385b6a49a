"""Messages for bodies that can't be used as they were sent: an image without its type, a document that is too long."""

from __future__ import annotations

import json
import shlex

from mlscale.data.decoding.image_files import IMAGE_FORMATS, ImageFormat
from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.serve.http.request_error import Refused
from mlscale.serve.protocol.image_input import FILE_ADVICE, IMAGE_ADVICE, KINDS, RAW_FORMS
from mlscale.serve.protocol.openapi_samples import build_example
from mlscale.serve.request_limits import compute_text_limit
from mlscale.serve.served_model import ServedModel

JSON_KINDS = (b"application/json", b"text/json", b"application/x-www-form-urlencoded")  # the last: curl -d
TEXT, RAW_BYTES = b"text/plain", b"application/octet-stream"


def describe_untyped_image(model: ServedModel, sent_type: str, sent: ImageFormat) -> Refused:
    """Return the refusal of an image that was sent with a type of another thing, as curl does by itself.

    It is not decoded all the same: a page of another site may send a form without a preflight request, and no image.
    """
    image_type = sent.content_types[0]
    what = f"the body is an image ({image_type}), sent {f'as {sent_type}' if sent_type else 'without a type'}"
    # A hint to send the type would be wrong where images are not taken at all.
    if model.servable.encoder.kind != "image":
        return Refused(f"{what}, and {model.name} takes {RAW_FORMS[model.servable.encoder.kind]}", 415)
    file = f"photo.{sent.extensions[0]}"
    return Refused(f"{what}: send its type, {IMAGE_ADVICE.format(image_type, file)}", 415)


def accepts_type(model: ServedModel, kind: bytes) -> bool:
    """Return True if `POST /predict` reads bodies of a content type, for this model."""
    encoder = model.servable.encoder.kind
    if kind == TEXT:
        return encoder in ("text", "document")
    return kind in JSON_KINDS or kind in KINDS or (kind == RAW_BYTES and model.tensor is not None)


def describe_other_type(model: ServedModel, kind: bytes) -> Refused:
    """Return the refusal of a content type that the model does not take, with the line that sends a sample."""
    encoder = model.servable.encoder.kind
    sent = f"can't read {kind.decode('latin-1')[:200]}"
    # An image in a form (curl -F), or in a format that is not decoded, such as a phone's HEIC.
    if encoder == "image" and kind.startswith((b"image/", b"multipart/form-data")):
        known = ", ".join(sorted(format_.content_types[0] for format_ in IMAGE_FORMATS))
        return Refused(f"{sent}: an image is the body itself, {FILE_ADVICE}; types are {known}", 415)
    return Refused(f"{sent}: {model.name} takes {RAW_FORMS[encoder]}{suggest_json_line(model)}", 415)


def suggest_json_line(model: ServedModel) -> str:
    """Return the line that sends one row of a table's model, after a colon; '' for other models."""
    encoder = model.servable.encoder
    if not isinstance(encoder, TableEncoder):
        return ""
    row = json.dumps(build_example(encoder.describe_raw_input())["example"], ensure_ascii=False)
    return f": curl -H 'Content-Type: application/json' -d {shlex.quote(row)} <this address>"


def describe_large_body(model: ServedModel, kind: bytes, size: int, limit: int, max_queue: int) -> Refused:
    """Return the refusal of a body of `size` bytes, over `limit`, with what to send in its place; 415 of another type.

    Args:
        kind: its content type.
        max_queue: the most rows that may wait.
    """
    # Less of it would not be taken either.
    if not accepts_type(model, kind):
        return describe_other_type(model, kind)
    encoder, advice = model.servable.encoder, ""
    if isinstance(encoder, DocumentEncoder) and kind == TEXT:
        settings = _suggest_settings(encoder, size, limit, max_queue)
        advice = f"send the document in parts, or start the server with {settings}"
    elif encoder.kind == "text" and kind == TEXT:
        # It was sent by itself already, and no setting of the server would let the model read more of it.
        advice = "send its beginning, which is all that the model reads"
    elif encoder.kind in ("text", "document"):
        # JSON is longer than its text by what is escaped, and has a lower limit.
        most = compute_text_limit(encoder, max_queue)
        advice = f"a long text is sent by itself, with 'Content-Type: text/plain', up to {most} bytes"
    elif encoder.kind == "image" and kind != RAW_BYTES:
        advice = f"an image file is sent as it is, {FILE_ADVICE}"
    else:
        advice = "send fewer samples in a request"
    return Refused(f"the body is over {limit} bytes, it has {size}: {advice}", 413)


def describe_long_document(encoder: DocumentEncoder, size: int, windows: int, max_queue: int) -> Refused:
    """Return the refusal of documents of `size` tokens in all, whose windows exceed the queue."""
    # Windows are what the queue counts; bytes, or a tokenizer's tokens, are what a client can count.
    most = encoder.compute_longest(max_queue)
    return Refused(
        f"the text has {size} {encoder.unit}s, which are read in {windows} windows of {encoder.length}; this server "
        f"takes {max_queue} windows in a request, {most} {encoder.unit}s of one document: send it in parts, or start "
        f"the server with max_queue={windows}"
    )


def _suggest_settings(encoder: DocumentEncoder, size: int, limit: int, max_queue: int) -> str:
    windows = encoder.count_windows(size)
    # The limit of a body may be that of all bodies, which the queue does not raise.
    needs = [f"max_queue={windows}"] if windows > max_queue else []
    needs += [f"max_body_bytes={size}"] if limit < compute_text_limit(encoder, max_queue) else []
    return " ".join(needs)
