"""The line that sends a first sample to a server, printed when it starts."""

from __future__ import annotations

import json
import shlex

from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.serve.protocol.openapi_samples import build_example
from mlscale.serve.served_model import ServedModel

_MOST_CHARACTERS = 400  # of a row: a longer one would hide the lines above it


def build_request_line(model: ServedModel, url: str, *, needs_key: bool) -> str:
    """Return the curl command for a sample of the model's kind; where no such line is short, the address of examples.

    Args:
        model: that is served.
        url: of the server.
        needs_key: requests need the server's key.
    """
    body = _format_body(model)
    if body is None:
        return f"{url}/openapi.json describes what to send"
    key = " -H 'x-api-key: <the key>'" if needs_key else ""
    return f"curl -s{key} {body} {url}/predict"


def _format_body(model: ServedModel) -> str | None:
    encoder = model.servable.encoder
    if encoder.kind == "image":
        return "-H 'Content-Type: image/jpeg' --data-binary @photo.jpg"
    if encoder.kind in ("text", "document"):
        return "-H 'Content-Type: text/plain' --data-binary 'a text'"
    if isinstance(encoder, TableEncoder):
        row = json.dumps(build_example(encoder.describe_raw_input())["example"], ensure_ascii=False)
        return f"-d {shlex.quote(row)}" if len(row) <= _MOST_CHARACTERS else None
    return None
