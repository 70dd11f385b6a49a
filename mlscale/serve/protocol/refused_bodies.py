"""Messages for bodies that can't be used as they were sent: an image without its type, a document that is too long."""

from __future__ import annotations

import json
import shlex

from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.export.warmup.warmup_requests import find_suffix
from mlscale.serve.http.request_error import Refused
from mlscale.serve.protocol.image_input import FILE_ADVICE, IMAGE_ADVICE, RAW_FORMS
from mlscale.serve.protocol.openapi_samples import build_example
from mlscale.serve.request_limits import compute_text_limit
from mlscale.serve.served_model import ServedModel

_IMAGE_TYPES = {
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
    ".gif": "image/gif",
    ".tif": "image/tiff",
}


def find_image_type(body: bytes | bytearray) -> str:
    """Return the content type of an image file, by its first bytes; '' of anything else."""
    return _IMAGE_TYPES.get(find_suffix(bytes(body[:16])), "")


def describe_untyped_image(model: ServedModel, sent_type: str, image_type: str) -> Refused:
    """Return the refusal of an image that was sent with a type of another thing, as curl does by itself.

    It is not decoded all the same: a page of another site may send a form without a preflight request, and no image.
    """
    what = f"the body is an image ({image_type}), sent {f'as {sent_type}' if sent_type else 'without a type'}"
    # A hint to send the type would be wrong where images are not taken at all.
    if model.servable.encoder.kind != "image":
        return Refused(f"{what}, and {model.name} takes {RAW_FORMS[model.servable.encoder.kind]}", 415)
    file = f"photo.{image_type.partition('/')[2]}"
    return Refused(f"{what}: send its type, {IMAGE_ADVICE.format(image_type, file)}", 415)


def describe_sent_form(kind: str) -> Refused:
    """Return the refusal of an image in a form (curl -F), or of a type that images do not have."""
    known = ", ".join(sorted(_IMAGE_TYPES.values()))
    line = FILE_ADVICE
    return Refused(f"can't read {kind[:200]}: an image is the body itself, {line}; types are {known}", 415)


def suggest_json_line(model: ServedModel) -> str:
    """Return the line that sends one row of a table's model, after a colon; '' for other models."""
    encoder = model.servable.encoder
    if not isinstance(encoder, TableEncoder):
        return ""
    row = json.dumps(build_example(encoder.describe_raw_input())["example"], ensure_ascii=False)
    return f": curl -H 'Content-Type: application/json' -d {shlex.quote(row)} <this address>"


def describe_large_body(model: ServedModel, kind: bytes, size: int, limit: int, max_queue: int) -> Refused:
    """Return the refusal of a body of `size` bytes, over `limit`, with what to send in its place.

    Args:
        kind: its content type.
        max_queue: the most rows that may wait.
    """
    encoder, advice = model.servable.encoder, ""
    if isinstance(encoder, DocumentEncoder) and kind == b"text/plain":
        settings = _suggest_settings(encoder, size, limit, max_queue)
        advice = f"send the document in parts, or start the server with {settings}"
    elif encoder.kind in ("text", "document"):
        # JSON is longer than its text by what is escaped, and has a lower limit.
        most = compute_text_limit(encoder, max_queue)
        advice = f"a long text is sent by itself, with 'Content-Type: text/plain', up to {most} bytes"
    elif encoder.kind == "image" and kind != b"application/octet-stream":
        advice = f"an image file is sent as it is, {FILE_ADVICE}"
    else:
        advice = "send fewer samples in a request"
    return Refused(f"the body is over {limit} bytes, it has {size}: {advice}", 413)


def describe_long_document(encoder: DocumentEncoder, size: int, windows: int, max_queue: int) -> Refused:
    """Return the refusal of documents of `size` bytes in all, whose windows exceed the queue."""
    # Windows are what the queue counts; bytes are what a client can count.
    most = encoder.compute_longest(max_queue)
    return Refused(
        f"the text has {size} bytes, which are read in {windows} windows of {encoder.length}; this server takes "
        f"{max_queue} windows in a request, {most} bytes of one document: send it in parts, or start the server with "
        f"max_queue={windows}"
    )


def _suggest_settings(encoder: DocumentEncoder, size: int, limit: int, max_queue: int) -> str:
    windows = encoder.count_windows(size)
    # The limit of a body may be that of all bodies, which the queue does not raise.
    needs = [f"max_queue={windows}"] if windows > max_queue else []
    needs += [f"max_body_bytes={size}"] if limit < compute_text_limit(encoder, max_queue) else []
    return " ".join(needs)
