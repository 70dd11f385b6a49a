"""Documents of the contracts 'alert' and 'notice' as they are sent: JSON or plain text, and their key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

_DETAILS = ("id", "model", "version", "run", "folder", "host", "since", "time")  # of a document, if it has them


def encode_document(document: Mapping[str, Any]) -> bytes:
    """Return a document as JSON in UTF-8; NaN and infinities raise ValueError."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False).encode()


def format_document(document: Mapping[str, Any]) -> str:
    """Return a document as plain text: its sentence, metrics and origin."""
    lines = [str(document["sentence"]), ""]
    lines += [f"{name}: {value:.6g}" for name, value in document["metrics"].items() if value is not None]
    lines += ["", *(f"{name}: {document[name]}" for name in _DETAILS if name in document)]
    return "\n".join(lines) + "\n"


def build_idempotency_key(document: Mapping[str, Any]) -> str:
    """Return the key by which a recipient recognises a document that arrives again: <id>/<status> of an alert,
    <run>/<event> of a notice; ASCII, without spaces. Empty for other documents."""
    words = (document.get("id") or document.get("run"), document.get("status") or document.get("event"))
    return quote("/".join(map(str, words)), safe="/@:+.-_") if all(words) else ""
