"""The contracts between commands: JSON schemas with a format version. A document of today must load in two releases.

The first key of a document has its kind and format, `"format": "mlscale/run/1"`. The number rises only when a reader of
the last format would misread the new one; keys may be added at any time, so readers ignore unknown ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from mlscale.atomic_files import convert_to_json
from mlscale.errors import MLScaleError

# The current format of each contract; its schema is <name>.json in this folder.
FORMATS = {
    "run": 1, "manifest": 1, "result": 1, "code": 1, "sweep": 1, "checkpoint": 1, "index": 2,
    "version": 1, "aliases": 1, "servable": 2, "reference": 2, "event": 2, "label": 2,
    "alert": 1, "monitor_state": 1, "monitor_check": 1, "turn": 1, "notice": 1, "outbox_item": 1,
    "compressed": 1, "samples": 1, "predictions": 1, "encoder": 1, "warmup": 1, "job": 1, "dataset": 1, "tokens": 1,
}  # fmt: skip


def load_schema(name: str) -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a contract, one of `FORMATS`."""
    schema: dict[str, Any] = json.loads(resources.files(__name__).joinpath(f"{name}.json").read_text(encoding="utf-8"))
    return schema


def list_output_kinds() -> list[str]:
    """Return the kinds of documents that actions print for programs, `runs-ls` for `mlscale runs ls output=json`."""
    files = resources.files(__name__).joinpath("outputs").iterdir()
    return sorted(file.name.removesuffix(".json") for file in files)


def load_output_schema(kind: str) -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a document that an action prints, one of `list_output_kinds`."""
    file = resources.files(__name__).joinpath("outputs", f"{kind}.json")
    schema: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return schema


def get_format_tag(name: str) -> str:
    """Return the value of `format` for a new document."""
    return f"mlscale/{name}/{FORMATS[name]}"


def compute_checksum(document: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a JSON document without its own key `sha256`."""
    rest = {key: value for key, value in document.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def add_checksum(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document as it is written, with its checksum as `sha256`."""
    written = json.loads(json.dumps(convert_to_json(document)))
    return {**written, "sha256": compute_checksum(written)}


def has_right_checksum(document: Mapping[str, Any]) -> bool:
    """Return False if a document is not what its checksum states; those of earlier versions state none."""
    return document.get("sha256") in (None, compute_checksum(document))


def expect_format(name: str, document: Mapping[str, Any], where: str) -> None:
    """Raise an error for a document of another kind, or of a later format than this version reads.

    Raises:
        MLScaleError: it is one of these; exit code 2.
    """
    # Earlier formats pass: this version must read them.
    family, _, number = str(document.get("format", "")).rpartition("/")
    if family != f"mlscale/{name}" or not number.isdigit():
        raise MLScaleError(
            f"not a document of the format mlscale/{name}",
            where=where,
            fix="name the file that mlscale has written, or restore it from a copy",
        )
    if int(number) > FORMATS[name]:
        raise MLScaleError(
            f"this {name} document was written by a later mlscale (format {number}; this one reads {FORMATS[name]})",
            where=where,
            fix="pip install --upgrade mlscale",
        )
