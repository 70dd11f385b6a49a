"""The weights that a run starts from: their file, and the digest that identifies its content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mlscale.atomic_files import compute_sha256
from mlscale.config.names.suggest import format_override
from mlscale.errors import MLScaleError
from mlscale.runs import safetensors_files as safetensors
from mlscale.runs.checkpoint_files.checkpoint_digest import read_content_digest, verify_checkpoint
from mlscale.runs.checkpoint_files.checkpoint_record import SUFFIX, describe_checkpoint_state
from mlscale.runs.checkpoint_files.checkpoint_search import find_best_checkpoint_file
from mlscale.runs.checkpoint_files.sharded_folder import is_checkpoint, is_sharded
from mlscale.runs.find import find_run
from mlscale.runs.folder import RunFolder
from mlscale.runs.recover import is_run_folder, warn_once
from mlscale.runs.remote_checkpoints.run_store import restore_missing
from mlscale.runs.remote_checkpoints.store_access import is_remote
from mlscale.runs.run_reader import RUN

STATE_DICT_SUFFIXES = (".pt", ".pth", ".bin")
"""The suffixes of files with a plain `state_dict`, written by `torch.save`."""
_LICENCES = ("license", "licence")  # in a safetensors file's metadata


@dataclass(frozen=True)
class InitialWeights:
    """The initial weights of a run.

    Attributes:
        checkpoint: the file, absolute; of a sharded model its index.
        sha256: of its content, in hex; of a sharded model, of the digests of all its files.
        run: the id of the run that saved it; None where the file is not in a run folder.
        source: their origin: `run`, `version`, `file`, or the library of a model with its own weights, `torchvision`
            or `timm`.
        name: the name of the version or of the model's own weights; None where the file is enough.
        licence: their licence, as their author states it; None where it is unknown.
    """

    checkpoint: Path
    sha256: str
    run: str | None = None
    source: str = "file"
    name: str | None = None
    licence: str | None = None

    def build_init_document(self) -> dict[str, Any]:
        """Return the document for run.json."""
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"checkpoint": str(self.checkpoint)}

    @classmethod
    def parse_document(cls, document: Mapping[str, Any] | None) -> InitialWeights | None:
        """Return the object for a document of this or an earlier mlscale; None for none.

        Raises:
            MLScaleError: it is corrupted.
        """
        if not document:
            return None
        try:
            rest = {key: document[key] for key in ("source", "name", "licence") if key in document}
            return cls(Path(document["checkpoint"]), document["sha256"], document["run"], **rest)
        except (KeyError, TypeError) as error:
            raise MLScaleError(
                "run.json is corrupt",
                where="run.json: init",
                why=repr(error),
                fix="init_from=<a checkpoint of the run>, for a new run; or restore run.json from a copy",
            ) from error

    def check_unchanged(self) -> None:
        """Raise an error unless the file has the same content as at the start of the run.

        Raises:
            MLScaleError: it has changed, or is missing.
        """
        if not is_checkpoint(self.checkpoint) or compute_weights_digest(self.checkpoint) != self.sha256:
            raise MLScaleError(
                "the weights that the run starts from are not there any more",
                where=str(self.checkpoint),
                why="the file has changed since the run began" if self.checkpoint.exists() else "the file is gone",
                fix="init_from=<a checkpoint or run>, for a new run",
            )

    def format_weights_line(self) -> str:
        """Return the line that is printed about it before the run."""
        what = f"{self.name}: " if self.name else ""
        licence = f", {self.licence}" if self.licence else ""
        return f"weights   from {what}{self.checkpoint}{licence}"


def find_initial_weights(text: str, root: str | Path = "runs") -> InitialWeights:
    """Return the weights for `text`: a file of weights by its path, a folder with a sharded model, or the best
    checkpoint of a run (its last one, if no best one was saved). Versions are resolved by the registry.

    Raises:
        MLScaleError: file or run not found, the run has no checkpoint, it is truncated, or its digest does not match.
    """
    if is_remote(text) and is_weights_file_name(text):
        raise MLScaleError(
            "the address of a file is not read",
            where=f"init_from={text}",
            why="a file of an object store has another name than its checkpoint, and no digest next to it",
            fix="init_from=<the address of a run>\ninit_from=<a file that was copied from there>",
        )
    path = Path(text).expanduser()
    if path.is_dir() and not is_run_folder(path) and not is_sharded(path):
        path = _find_weights_in_folder(path)
    elif not is_checkpoint(path) or path.name == RUN:
        if is_weights_file_name(text):
            raise MLScaleError("checkpoint not found", where=f"init_from={text}", fix="mlscale runs checkpoints last")
        path = find_start_checkpoint(find_run(text, root))
    return resolve_weights_file(path.absolute())


def resolve_weights_file(path: Path) -> InitialWeights:
    """Return the weights in the file `path`, absolute.

    Raises:
        MLScaleError: it is truncated, altered, or of an unknown format.
    """
    if path.name.endswith((safetensors.SUFFIX, safetensors.INDEX)):
        files = safetensors.list_shard_files(path) if path.name.endswith(safetensors.INDEX) else (path,)
        licence = next(filter(None, map(_read_licence, files)), None)
        return InitialWeights(path, compute_weights_digest(path), licence=licence)
    checkpoint = verify_checkpoint(path)
    # A bare pickle is not an archive, so `verify` takes it for a truncated one.
    if checkpoint.is_corrupt and (path.is_dir() or not is_bare_pickle(path)):
        raise MLScaleError(
            "a run can't start from this checkpoint",
            where=str(path),
            why=describe_checkpoint_state(checkpoint),
            fix=f"mlscale runs checkpoints {path.parents[1]}, which shows the whole ones"
            if path.parent.name == "checkpoints"
            else "init_from=<another checkpoint, or a run>",
        )
    run = _find_owning_run(path)
    # A fine-tuned model is still under the licence of the weights that its run started from.
    before = InitialWeights.parse_document(run.run.get("init")) if run else None
    source, licence = ("run" if run else "file"), before.licence if before else None
    return InitialWeights(path, compute_weights_digest(path), run.id if run else None, source, licence=licence)


def find_start_checkpoint(run: RunFolder) -> Path:
    """Return the checkpoint to start from: the best one, else the last one.

    Raises:
        MLScaleError: the run has none.
    """
    folder, document = run.path / "checkpoints", run.run
    restore_missing(run.path, "best")
    best = find_best_checkpoint_file(folder, document["metric"] or "", document["mode"] or "max")
    for path in (best, folder / f"last{SUFFIX}"):
        if path is not None and is_checkpoint(path):
            return path
    raise MLScaleError(
        f"the run {run.path.name} has no checkpoint to start from",
        where=str(folder),
        fix="init_from=<another run, or a checkpoint>",
    )


def is_weights_file_name(text: str) -> bool:
    """Return True if `text` has the suffix of a file of weights."""
    return text.endswith((SUFFIX, safetensors.SUFFIX, safetensors.INDEX, *STATE_DICT_SUFFIXES))


def compute_weights_digest(path: Path) -> str:
    """Return the SHA-256, in hex, of the file `path`, or of the digests of all files of a sharded model or checkpoint.

    Raises:
        MLScaleError: the index of a sharded model is corrupted, or a file of it is missing.
    """
    if path.is_dir():
        return read_content_digest(path)
    if not path.name.endswith(safetensors.INDEX):
        return compute_sha256(path)
    # The lines that `sha256sum` prints, so that the digest can be computed without mlscale.
    lines = "".join(f"{compute_sha256(file)}  {file.name}\n" for file in (path, *safetensors.list_shard_files(path)))
    return hashlib.sha256(lines.encode()).hexdigest()


def _read_licence(path: Path) -> str | None:
    """Return the licence in a safetensors file's metadata, if its author states one."""
    with safetensors.open_safetensors(path) as file:
        metadata = file.metadata() or {}
    return next((metadata[key] for key in _LICENCES if metadata.get(key)), None)


def is_bare_pickle(path: Path) -> bool:
    """Return True for a bare pickle, the format of `torch.save` before version 1.6: its integrity can't be checked."""
    with path.open("rb") as file:
        # A pickle begins with the opcode PROTO (0x80) and its protocol, here 2 to 4.
        return file.read(2) in (b"\x80\x02", b"\x80\x03", b"\x80\x04")


def _find_weights_in_folder(folder: Path) -> Path:
    """Return the sharded model, or the one file of weights, in a folder that is not a run folder."""
    files = sorted(folder.glob(f"*{safetensors.INDEX}")) or sorted(folder.glob(f"*{safetensors.SUFFIX}"))
    if len(files) == 1:
        return files[0]
    raise MLScaleError(
        "this folder is not a run, and holds no weights" if not files else "this folder holds several files of weights",
        where=str(folder),
        why=", ".join(path.name for path in files[:5]),
        fix=format_override("init_from", str(files[0]))
        if files
        else "init_from=<a run, a checkpoint or a file of weights>",
    )


def _find_owning_run(path: Path) -> RunFolder | None:
    folder = path.parents[1] if path.parent.name == "checkpoints" else None
    if folder is None or not is_run_folder(folder):
        return None
    try:
        return RunFolder.open(folder)
    except MLScaleError as error:  # the rest of the run is lost, but its weights can be used
        warn_once(f"{error.where}: {error.what}: {error.why}")
        return None
