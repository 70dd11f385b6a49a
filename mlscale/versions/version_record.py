"""A version: its content, its provenance and its sealed record, the contract 'version'."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from mlscale.atomic_files import ASIDE, convert_to_json, read_json
from mlscale.contracts import expect_format, get_format_tag
from mlscale.errors import MLScaleError

Kind = Literal["checkpoint", "servable"]
KINDS: tuple[str, ...] = get_args(Kind)
RECORD, PAYLOAD = "version.json", "files"


@dataclass(frozen=True)
class File:
    """One file of a version.

    Attributes:
        sha256: of its content, in hex.
        bytes: its size.
    """

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Version:
    """An immutable entry of the registry.

    Attributes:
        path: its folder, absolute.
        name, number: `resnet` and 7 of `resnet:v7`.
        kind: checkpoint: weights and the config they were trained with; servable: an exported model.
        digest: of the content: the same files have the same digest, whatever their metadata.
        created: ISO 8601, with its time zone.
        files: its files, by path below `payload`.
        metrics: name_unit to value; None where a value was not a number.
        run: the run that made it (id, name, path, metric, mode, config_hash, commit, …), or None.
        data_version: the digest of the data's index, or None.
        parent: the version that training started from, such as `resnet:v6`, or None.
        notes: free text of the user.
    """

    path: Path
    name: str
    number: int
    kind: Kind
    digest: str
    created: str
    files: Mapping[str, File]
    metrics: Mapping[str, float | None]
    run: Mapping[str, Any] | None = None
    data_version: str | None = None
    parent: str | None = None
    notes: str = ""

    @property
    def ref(self) -> str:
        """The permanent reference, such as `resnet:v7`."""
        return f"{self.name}:v{self.number}"

    @property
    def payload(self) -> Path:
        """The folder of its files, which are read only."""
        return self.path / PAYLOAD

    @property
    def bytes(self) -> int:
        """The total size of its files."""
        return sum(file.bytes for file in self.files.values())

    @property
    def value(self) -> float | None:
        """The best value of the run's key metric, else its last; None where the run has none."""
        metric = (self.run or {}).get("metric")
        return self.metrics.get(f"best_{metric}", self.metrics.get(metric)) if metric else None

    def build_version_record(self) -> dict[str, Any]:
        """Return the content of version.json, sealed: the last key is the digest of all others."""
        content = convert_to_json(
            {
                "format": get_format_tag("version"),
                "name": self.name,
                "version": self.number,
                "kind": self.kind,
                "digest": self.digest,
                "created": self.created,
                "files": {
                    name: {"sha256": file.sha256, "bytes": file.bytes} for name, file in sorted(self.files.items())
                },
                "metrics": dict(self.metrics),
                "run": self.run,
                "data_version": self.data_version,
                "parent": self.parent,
                "notes": self.notes,
            }
        )
        return {**content, "seal": _compute_seal(content)}


def hash_version_content(files: Mapping[str, File]) -> str:
    """Return the digest of a version's content: of its files' paths and digests, and of nothing else."""
    # As JSON, a name with a line break can't look like two entries.
    lines = "".join(f"{file.sha256}  {json.dumps(name)}\n" for name, file in sorted(files.items()))
    return "sha256:" + hashlib.sha256(lines.encode()).hexdigest()


def read_version(folder: Path) -> Version:
    """Return the version in `folder` after comparing its record with its seal; the files are not read.

    Raises:
        MLScaleError: the record is absent, corrupted, altered, or of a later format.
    """
    where = folder / RECORD
    document = read_json(where)
    expect_format("version", document, str(where))
    content = {key: value for key, value in document.items() if key != "seal"}
    if document.get("seal") != _compute_seal(content):
        raise MLScaleError(
            "the record of a version was altered",
            where=str(where),
            why="its digest differs",
            fix="mlscale versions add <run>, which adds its run again; or restore the version's folder from a copy",
        )
    try:
        version = _parse_version(folder, document)
    except (AttributeError, KeyError, TypeError) as error:
        raise MLScaleError(
            "the record of a version is corrupt",
            where=str(where),
            why=repr(error),
            fix="mlscale versions add <run>, which adds its run again; or restore the version's folder from a copy",
        ) from error
    # The seal is not a secret: a manipulated record may have a valid one, so its paths are checked as well.
    named = all(map(is_payload_path, version.files)) and folder.name == f"v{version.number}"
    if not named or version.digest != hash_version_content(version.files):
        raise MLScaleError(
            "the record of a version does not fit its place",
            where=str(where),
            fix="mlscale versions add <run>, which adds its run again; or restore the version's folder from a copy",
        )
    return version


def is_payload_path(name: str) -> bool:
    """Return True if `name` is a normalised relative path that stays inside a version's payload."""
    pure = PurePosixPath(name)
    odd = any(part == ".." or part.startswith(ASIDE) for part in pure.parts)
    return not pure.is_absolute() and str(pure) == name and name != "." and not odd


def _parse_version(folder: Path, document: Mapping[str, Any]) -> Version:
    return Version(
        path=folder.absolute(),
        name=document["name"],
        number=document["version"],
        kind=document["kind"],
        digest=document["digest"],
        created=document["created"],
        files={name: File(entry["sha256"], entry["bytes"]) for name, entry in document["files"].items()},
        metrics=document["metrics"],
        run=document["run"],
        data_version=document["data_version"],
        parent=document["parent"],
        notes=document.get("notes", ""),
    )


def _compute_seal(content: Mapping[str, Any]) -> str:
    # One fixed form, independent of the order and the spacing in the file.
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    # Names of files need not be UTF-8: Python reads other bytes as surrogates.
    return hashlib.sha256(text.encode("utf-8", errors="surrogateescape")).hexdigest()
