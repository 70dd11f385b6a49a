"""Print the document that an action has for programs: `output=json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlscale.json_text import format_json

OUTPUT_FORMAT = 1  # rises when a reader of the last format would misread the new one


def print_document(kind: str, document: Mapping[str, Any]) -> None:
    """Print a document on stdout; its first key names its kind and format.

    Args:
        kind: the command and its action, `runs-ls`: the name of its schema in `outputs` next to this file.
        document: its other keys. NaN and infinities, which JSON lacks, become null.
    """
    tag = {"format": f"mlscale/{kind}/{OUTPUT_FORMAT}"}
    # First for people, and last: the record of a version, say, has a format of its own.
    print(format_json(tag | dict(document) | tag, indent=2))
