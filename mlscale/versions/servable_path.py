"""Where a servable lies that a command names: `resnet@champion`, `resnet:v7`, or a folder. One rule for all verbs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from mlscale.contracts.servable_yaml import DOCUMENT, read_document
from mlscale.errors import MLScaleError
from mlscale.versions.local_registry import LocalRegistry

_DIGITS = 12


@dataclass(frozen=True)
class Located:
    """A servable that was found; its files are not read yet.

    Attributes:
        folder: what `mlscale.export.servable.load` reads, absolute.
        name: the model's, by which its events are kept.
        ref: the version, such as `resnet:v7`; None for a plain folder.
        version: what answers and events call it: `ref`, or for a plain folder the name and the first 12 hex digits of
            the SHA-256 of its servable.yaml, such as `resnet:3f9a0c12de45`.
    """

    folder: Path
    name: str
    ref: str | None
    version: str


def locate(text: str | Path, registry: LocalRegistry | None) -> Located:
    """Find what `text` means: a version where it has a ':' or '@', a folder where that holds a servable or `text` is a
    path, else the champion of the model with that name.

    Args:
        text: as typed after `servable=`.
        registry: where versions are; None where there is none.

    Raises:
        MLScaleError: there is no such version or folder, or it holds no servable but a checkpoint, say.
    """
    words = str(text)
    folder = Path(words).expanduser().absolute()
    is_path = isinstance(text, Path) or "/" in words or words.startswith((".", "~"))
    if is_path or (not any(mark in words for mark in ":@") and (folder / DOCUMENT).is_file()):
        return _in_folder(folder)
    if registry is None:
        raise MLScaleError(
            f"'{words}' is a version, and there is no registry",
            where="servable",
            fix="registry=local registry.root=<its folder>, or servable=<the folder of a servable>",
        )
    version = registry.resolve(words)
    if version.kind != "servable":
        raise MLScaleError(
            f"{version.ref} is a {version.kind}: weights to go on training with, no servable",
            where=str(version.path),
            why="a servable is what mlscale export makes of a run",
            fix=f"mlscale export run={(version.run or {}).get('id', 'last')}\n"
            f"mlscale versions add {(version.run or {}).get('id', 'last')} --servable",
        )
    return Located(version.payload, version.name, version.ref, version.ref)


def _in_folder(folder: Path) -> Located:
    """A servable that is no version."""
    name = read_document(folder).get("name")
    if not isinstance(name, str):
        raise MLScaleError(
            f"{DOCUMENT} names no model", where=str(folder / DOCUMENT), fix="mlscale export makes it again"
        )
    digest = hashlib.sha256((folder / DOCUMENT).read_bytes()).hexdigest()
    return Located(folder, name, None, f"{name}:{digest[:_DIGITS]}")
