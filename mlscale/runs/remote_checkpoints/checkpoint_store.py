"""The checkpoints of a run in an object store: their files first, and last a small document, which is the commit.

An object store has no rename. So the files of a checkpoint are uploaded under names that only this content has,
`last-<digest>.ckpt`, or those of a sharded one below `last-<digest>/`; once all are there, `last.json` is written, by
one request. It has the record, the digest and the files. Until then it names the files of the checkpoint before, and
what no document names is left of an upload that was killed.

Below `run/` are files of the run's folder, as they are there.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any

from mlscale.contracts import expect_format, get_format_tag
from mlscale.errors import MLScaleError
from mlscale.runs.checkpoint_files.checkpoint_digest import (
    read_checkpoint_metadata,
    read_content_digest,
    verify_checkpoint,
)
from mlscale.runs.checkpoint_files.checkpoint_record import SUFFIX, CheckpointRecord
from mlscale.runs.checkpoint_files.sharded_folder import open_aside_folder, replace_path

_DOCUMENT = ".json"
_DIGITS = 16  # of the digest in names of files
RUN_FOLDER = "run/"  # files of the run's folder


@dataclass(frozen=True)
class RemoteCheckpoint:
    """A committed checkpoint in an object store.

    Attributes:
        name: as in a run's folder, such as `last.ckpt`.
        record: its metadata.
        digest: as `read_content_digest` returns it.
        files: the bytes of its files, by their names below the run's address.
        is_complete: all of them exist, with these sizes.
    """

    name: str
    record: CheckpointRecord
    digest: str
    files: Mapping[str, int]
    is_complete: bool = True

    @property
    def bytes(self) -> int:
        """Its size."""
        return sum(self.files.values())


class CheckpointStore:
    """The checkpoints of one run at an address. Methods raise whatever the network does, and repeat nothing.

    Args:
        address: of the run, such as `s3://bucket/folder/<run id>`.
        files: the store, of fsspec's packages.
    """

    def __init__(self, address: str, files: Any) -> None:
        self.address, self._files = address.rstrip("/"), files
        self._root = PurePosixPath(address.partition("://")[2])
        self._stored: dict[str, str] = {}  # SHA-256 of files of the run, by name, as far as known

    def list_checkpoints(self) -> list[RemoteCheckpoint]:
        """Return all committed checkpoints, by their progress; documents that can't be read are left out."""
        sizes = self._list_sizes()
        checkpoints: list[RemoteCheckpoint] = []
        for name in sizes:
            if name.endswith(_DOCUMENT) and "/" not in name:
                document = self._read_document(name)
                checkpoint = _parse_document(name, document, sizes) if document is not None else None
                checkpoints += [checkpoint] if checkpoint else []
        return sorted(checkpoints, key=lambda checkpoint: (checkpoint.record.step, checkpoint.record.time))

    def put_checkpoint(self, name: str, path: Path) -> None:
        """Upload the checkpoint at `path`, a file or a folder, as `name`, and remove what it replaces."""
        record = read_checkpoint_metadata(path).record
        assert record is not None  # it was committed here
        digest = read_content_digest(path)
        stem = f"{_get_stem(name)}-{digest[:_DIGITS]}"
        parts = sorted(path.iterdir()) if path.is_dir() else [path]
        uploads = {f"{stem}/{part.name}" if path.is_dir() else f"{stem}{SUFFIX}": part for part in parts}
        before = self._read_document(_get_stem(name) + _DOCUMENT)
        for remote, part in uploads.items():
            self._files.put_file(str(part), self._locate(remote))
        document = {
            "format": get_format_tag("checkpoint"),
            **asdict(record),
            "digest": digest,
            "files": {remote: part.stat().st_size for remote, part in uploads.items()},
        }
        self._files.pipe_file(self._locate(_get_stem(name) + _DOCUMENT), json.dumps(document, indent=1).encode())
        self._remove_files(file for file in (before or {}).get("files", {}) if file not in uploads)

    def fetch_checkpoint(self, checkpoint: RemoteCheckpoint, folder: Path) -> Path:
        """Download a checkpoint into `folder`, in place of what has its name there, and return its path.

        Raises:
            MLScaleError: it is not what was uploaded.
        """
        target = folder / checkpoint.name
        with open_aside_folder(target) as aside:
            is_file = list(checkpoint.files) == [f"{_get_stem(checkpoint.name)}-{checkpoint.digest[:_DIGITS]}{SUFFIX}"]
            # The folder of a sharded one is the folder aside itself.
            content = aside / checkpoint.name if is_file else aside
            for remote in checkpoint.files:
                self._files.get_file(self._locate(remote), str(content if is_file else aside / Path(remote).name))
            if verify_checkpoint(content).state != "ok" or read_content_digest(content) != checkpoint.digest:
                raise MLScaleError(
                    f"the checkpoint {checkpoint.name} in the object store is not what was uploaded",
                    where=f"{self.address}/{checkpoint.name}",
                    why="its digest differs",
                    fix="mlscale runs checkpoints <the run>, which lists the others",
                )
            replace_path(content, target)
        return target

    def remove_checkpoint(self, name: str) -> None:
        """Remove a checkpoint; nothing where it does not exist."""
        document = self._read_document(_get_stem(name) + _DOCUMENT)
        if document is not None:
            # The document first: what is left of a removal that is killed is not a checkpoint any more.
            self._remove_files([_get_stem(name) + _DOCUMENT])
            self._remove_files(document.get("files", {}))

    def remove_incomplete(self) -> int:
        """Remove what killed uploads have left, and return the number of files; no other process may upload."""
        self._abort_uploads()
        names = list(self._list_sizes())
        documents = [name for name in names if name.endswith(_DOCUMENT) and "/" not in name]
        used = {file for name in documents for file in (self._read_document(name) or {}).get("files", {})}
        left = [
            name for name in names if name not in used and name not in documents and not name.startswith(RUN_FOLDER)
        ]
        self._remove_files(left)
        return len(left)

    def put_run_file(self, name: str, content: bytes) -> bool:
        """Store a file of the run's folder; return False where it is stored already."""
        digest = hashlib.sha256(content).hexdigest()
        if name not in self._stored and (stored := self.read_run_file(name)) is not None:
            self._stored[name] = hashlib.sha256(stored).hexdigest()
        if self._stored.get(name) == digest:
            return False
        self._files.pipe_file(self._locate(f"{RUN_FOLDER}{name}"), content)
        self._stored[name] = digest
        return True

    def read_run_file(self, name: str) -> bytes | None:
        """Return the content of a file of the run's folder; None where it is not stored."""
        try:
            return bytes(self._files.cat_file(self._locate(f"{RUN_FOLDER}{name}")))
        except FileNotFoundError:
            return None

    def list_run_files(self) -> list[str]:
        """Return the names of the stored files of the run's folder."""
        return sorted(name.removeprefix(RUN_FOLDER) for name in self._list_sizes() if name.startswith(RUN_FOLDER))

    def remove_run_file(self, name: str) -> None:
        """Remove a file of the run's folder; nothing where it is not stored."""
        self._stored.pop(name, None)
        self._remove_files([f"{RUN_FOLDER}{name}"])

    def list_runs(self) -> list[str]:
        """Return the ids of the runs with files one level below the address, the newest first."""
        paths = self._files.glob(f"{self._root}/*/{RUN_FOLDER}run.json")
        return sorted((PurePosixPath(path).parts[-3] for path in paths), reverse=True)

    def check_access(self) -> None:
        """Write a small object, read it again and remove it."""
        # A name of its own: another run may check the same address at this moment.
        path = self._locate(f".access-{secrets.token_hex(4)}")
        self._files.pipe_file(path, b"mlscale")
        self._files.cat_file(path)
        self._files.rm_file(path)

    def _locate(self, name: str) -> str:
        return str(self._root / name)

    def _list_sizes(self) -> dict[str, int]:
        """Return the bytes of every object below the address, by its name."""
        entries = self._files.find(str(self._root), detail=True)
        names = {path: str(PurePosixPath(path).relative_to(self._root)) for path in entries}
        return {names[path]: int(entry["size"]) for path, entry in entries.items()}

    def _read_document(self, name: str) -> dict[str, Any] | None:
        try:
            document = json.loads(self._files.cat_file(self._locate(name)))
        except (FileNotFoundError, ValueError):
            return None
        return document if isinstance(document, dict) else None

    def _remove_files(self, names: Iterable[str]) -> None:
        for name in names:
            try:
                self._files.rm_file(self._locate(name))
            except FileNotFoundError:
                continue

    def _abort_uploads(self) -> None:
        """Free the space of uploads in parts that S3 keeps, unseen, until they are completed or aborted."""
        call = getattr(self._files, "call_s3", None)
        if call is None:  # others remove them by themselves
            return
        bucket, key = self._root.parts[0], "/".join(self._root.parts[1:])
        for upload in call("list_multipart_uploads", Bucket=bucket, Prefix=f"{key}/").get("Uploads", []):
            call("abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])


def _get_stem(name: str) -> str:
    return name.removesuffix(SUFFIX)


def _parse_document(name: str, document: Mapping[str, Any], sizes: Mapping[str, int]) -> RemoteCheckpoint | None:
    try:
        expect_format("checkpoint", document, name)
        record = CheckpointRecord(
            **{field.name: document[field.name] for field in fields(CheckpointRecord) if field.name in document}
        )
        files = {str(file): int(count) for file, count in document["files"].items()}
        is_complete = all(sizes.get(file) == count for file, count in files.items())
        return RemoteCheckpoint(
            name.removesuffix(_DOCUMENT) + SUFFIX, record, str(document["digest"]), files, is_complete
        )
    except (KeyError, TypeError, ValueError, AttributeError, MLScaleError):
        return None
