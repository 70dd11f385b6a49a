"""The page at / to try the model, for a person who opens the server's address in a browser.

One document: its script and style are inline, allowed by their digests alone, and nothing is loaded from elsewhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.serve.served_model import ServedModel

_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)
_PLACEHOLDER = re.compile(r"\$(title|model)\b")
_MOST_LABELS = 10_000
_FORMS = {"table": "table", "text": "text", "document": "text", "image": "image"}


def render_home_page(model: ServedModel, *, needs_key: bool = False) -> bytes:
    """Return the page, with what it has to know of the model."""
    # Names come from users, and go into HTML; `<` would end the element of the script.
    data = json.dumps({**_describe_model(model), "needs_key": needs_key}).replace("<", "\\u003c")
    values = {"title": escape(model.version), "model": data}
    return _PLACEHOLDER.sub(lambda match: values[match[1]], _read_template()).encode()


@cache
def build_security_headers() -> bytes:
    """Return the header lines that keep the page from running and loading anything but its own."""
    digests: dict[str, list[str]] = {"script": [], "style": []}
    for kind, text in _INLINE.findall(_read_template()):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        digests[kind].append(f"'sha256-{digest}'")
    policy = "; ".join(
        [
            "default-src 'none'",
            *(f"{kind}-src {' '.join(listed)}" for kind, listed in digests.items()),
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )
    return b"Content-Security-Policy: %b\r\nX-Content-Type-Options: nosniff\r\n" % policy.encode()


@cache
def _read_template() -> str:
    return files("mlscale.serve.protocol").joinpath("try_page.html").read_text(encoding="utf-8")


def _describe_model(model: ServedModel) -> dict[str, Any]:
    """Return what the page's script reads."""
    servable = model.servable
    encoder, names = servable.encoder, servable.names
    form = _FORMS.get(encoder.kind, "json")
    if isinstance(encoder, ImageEncoder) and encoder.shape[0] not in (1, 3):
        form = "json"
    tensors = {port.name: _build_zeros(port.shape[1:]) for port in servable.inputs} if form == "json" else {}
    return {
        "name": model.name,
        "form": form,
        "raw": encoder.describe_raw_input(),
        "labels": list(names.labels[:_MOST_LABELS]),
        "about": _describe_task(model),
        "example": next(iter(tensors.values())) if len(tensors) == 1 else tensors,
        "shapes": "; ".join(f"{port.name}: {port.dtype} of {list(port.shape[1:])}" for port in servable.inputs),
    }


def _describe_task(model: ServedModel) -> str:
    servable = model.servable
    labels, targets = servable.labels, servable.names.targets
    if labels:
        form = servable.task_type.label_form
        # Of a third-party type the form of labels may not be known.
        what = {"several": "any number of {} labels", "mask": "one of {} classes for each pixel"}
        return f"Predicts {what.get(form or '', 'one of {} classes').format(f'{len(labels):,}')}"
    shown = ", ".join(f"{target.name} in {target.unit}" if target.unit else target.name for target in targets)
    return f"Predicts {shown or servable.task_type.predicts or servable.task_type.name}"


def _build_zeros(shape: tuple[int, ...]) -> Any:
    values: Any = 0
    for size in reversed(shape):
        values = [values] * max(size, 1)
    return values
