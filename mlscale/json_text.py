"""JSON that people read, too: letters as they are, and escaped only where a stream or an encoding has none for them."""

from __future__ import annotations

import codecs
import json
import sys
from typing import TextIO

from mlscale.atomic_files import convert_to_json


def format_json(value: object, stream: TextIO | None = None, indent: int | None = None) -> str:
    r"""Return a value as JSON for a stream of texts, stdout by default. NaN and infinities, which JSON lacks, are null.

    Letters that are not ASCII are written as they are to streams of UTF-8, the encoding of JSON, and as \u escapes to
    others: these are the same document for a program, whatever encoding it reads.
    """
    plain = convert_to_json(value)
    text = json.dumps(plain, ensure_ascii=False, indent=indent)
    encoding = getattr(stream or sys.stdout, "encoding", None) or "utf-8"
    if text.isascii() or (codecs.lookup(encoding).name == "utf-8" and _is_utf8(text)):
        return text
    return json.dumps(plain, indent=indent)


def _is_utf8(text: str) -> bool:
    """Return whether a text has a form in UTF-8; halves of surrogate pairs, as in names of files, have none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
