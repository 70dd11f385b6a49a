"""Read the files of a servable's folder, which is not trusted: each is compared with its digest first."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mlscale.contracts.servable_yaml import DOCUMENT
from mlscale.errors import MLScaleError


def read_verified(folder: Path, name: str, digest: str, size: int, *, keep: bool) -> bytes:
    """Return the content of a file (empty unless `keep`) after checking its size and digest against servable.yaml.

    Raises:
        MLScaleError: it is outside of the folder, is absent, or has another digest.
    """
    path = folder / name  # an absolute name replaces the folder
    if not path.resolve().is_relative_to(folder.resolve()):  # links are followed
        raise MLScaleError(
            "a servable has files of its own folder only",
            where=f"{folder / DOCUMENT}: files.{name}",
            fix="mlscale export <its run>, which makes the servable again",
        )
    try:
        if path.stat().st_size != size:
            raise _build_altered_error(path, f"it has {path.stat().st_size:,} bytes, not {size:,}")
        with path.open("rb") as file:
            # The bytes that are returned are those that were digested: the file can't be replaced in between.
            if keep:
                content = file.read()
                actual_digest = hashlib.sha256(content).hexdigest()
            else:
                content, actual_digest = b"", hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _build_altered_error(path, error.strerror or str(error)) from error
    if actual_digest != digest:
        raise _build_altered_error(path, "its SHA-256 is another")
    return content


def _build_altered_error(path: Path, why: str) -> MLScaleError:
    return MLScaleError(
        "the servable is corrupt or altered",
        where=str(path),
        why=f"{why}: it is not what was exported",
        fix="export it again: mlscale export <run>",
    )
