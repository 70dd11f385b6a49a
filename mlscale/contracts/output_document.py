"""Print the document that an action has for programs: `output=json`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Answer:
    """What an action has found or done.

    Attributes:
        kind: of its document: the command and its action, `runs-ls`.
        document: for programs.
        blocks: texts for people, each from a new line; empty ones are left out.
        notes: lines for people, on stderr.
        exit: the exit code.
    """

    kind: str
    document: Mapping[str, Any]
    blocks: Sequence[str] = ()
    notes: Sequence[str] = ()
    exit: int = 0


def print_answer(answer: Answer, output: str) -> int:
    """Print an answer: its document for `json`, else its texts; return the exit code."""
    if output == "json":
        print_document(answer.kind, answer.document)
    else:
        for file, texts in ((sys.stdout, answer.blocks), (sys.stderr, answer.notes)):
            print(*filter(None, texts), sep="\n", end="\n" if any(texts) else "", file=file)
    return int(answer.exit)
