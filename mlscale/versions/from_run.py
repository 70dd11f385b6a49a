"""Publish a run's checkpoint as a version: its files and their provenance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlscale.atomic_files import compute_sha256
from mlscale.errors import MLScaleError
from mlscale.runs.checkpoint_files.checkpoint_digest import verify_checkpoint
from mlscale.runs.checkpoint_files.checkpoint_record import SUFFIX, describe_checkpoint_state
from mlscale.runs.checkpoint_files.sharded_folder import is_checkpoint
from mlscale.runs.folder import RunFolder
from mlscale.runs.remote_checkpoints.run_store import restore_missing
from mlscale.runs.run_reader import CONFIG, DERIVED, ENCODER
from mlscale.versions.local_registry import LocalRegistry, Published

WEIGHTS = "model.ckpt"
_ENDED = ("done", "interrupted")
_OF_WEIGHTS = ("source", "name", "run", "sha256", "licence")  # of the initial weights; not their path


def publish_run(
    registry: LocalRegistry,
    run: RunFolder,
    *,
    name: str | None = None,
    checkpoint: str = "best",
    notes: str = "",
    aliases: tuple[str, ...] = (),
) -> Published:
    """Publish a checkpoint of a run with the config it was trained with: `model.ckpt`, `config.yaml`, `derived.yaml`,
    and the encoder of its data, `encoder.json`.

    Args:
        registry: the registry to publish to.
        run: a sealed run, done or interrupted.
        name: the model's; the run's by default.
        checkpoint: best or last. For a run without a best one, as it never validated, its last is used.
        notes: free text of the user.
        aliases: for the version.

    Raises:
        MLScaleError: the run has not ended well, has no such checkpoint, or was changed since it was sealed.
    """
    document, manifest = run.run, run.manifest
    if manifest is None or manifest["status"] not in _ENDED:
        raise MLScaleError(
            f"the run {run.path.name} is {run.status}",
            where=str(run.path),
            why="a version is made of a run that has ended, with its measurements",
            fix=f"mlscale runs resume {run.id}\nmlscale runs ls",
        )
    path = _find_valid_checkpoint(run, checkpoint)
    files = {WEIGHTS: path, CONFIG: run.path / CONFIG, DERIVED: run.path / DERIVED}
    if (run.path / ENCODER).exists():
        files[ENCODER] = run.path / ENCODER
    _check_as_sealed(run, files, manifest["artefacts"])
    return registry.publish(
        name or document["name"],
        files,
        kind="checkpoint",
        metrics=manifest["metrics"],
        run={**build_provenance(run), "checkpoint": path.name},
        data_version=document["data_version"],
        parent=find_parent_version(registry, run),
        notes=run.masker.mask_text(notes),
        aliases=aliases,
    )


def build_provenance(run: RunFolder) -> dict[str, Any]:
    """Return the provenance that a version stores of the run that made it."""
    document = run.run
    code, initial = document["code"] or {}, document.get("init") or {}
    return {
        "id": run.id,
        "name": document["name"],
        "path": str(run.path),
        "status": run.status,
        "metric": document["metric"],
        "mode": document["mode"],
        "config_hash": document["config_hash"],
        "commit": code.get("commit"),
        "dirty": code.get("dirty"),
        "loggers": document["loggers"],
        "parent": document["parent"],
        # Copied, so that `ownership.doubt` can check the version's files, too.
        **({"proof": document["proof"]} if document.get("proof") else {}),
        **({"weights": {key: initial[key] for key in _OF_WEIGHTS if key in initial}} if initial else {}),
    }


def find_parent_version(registry: LocalRegistry, run: RunFolder) -> str | None:
    """Return the version that the run started from: the latest that its parent run made; None where there is none."""
    before = run.run["parent"]
    made = registry.find_version_of_run(before) if before else None
    return made.ref if made else None


def _find_valid_checkpoint(run: RunFolder, name: str) -> Path:
    folder = run.path / "checkpoints"
    restore_missing(run.path, name)
    path = folder / f"{name}{SUFFIX}"
    if not is_checkpoint(path) and name == "best":
        path = folder / f"last{SUFFIX}"
    if not is_checkpoint(path):
        available = ", ".join(sorted(file.stem for file in folder.glob(f"*{SUFFIX}"))) or "none"
        raise MLScaleError(
            f"the run has no checkpoint '{name}'",
            where=str(folder),
            why=f"it has: {available}",
            fix="mlscale like=<the run> callbacks=default, which trains again and keeps the best and the last",
        )
    if path.is_dir():
        raise MLScaleError(
            "a version holds a checkpoint of one file, and this one is sharded",
            where=str(path),
            fix=f"mlscale runs consolidate {run.id}",
        )
    verified = verify_checkpoint(path)
    if verified.is_corrupt:
        raise MLScaleError(
            "the checkpoint can't be published",
            where=str(path),
            why=describe_checkpoint_state(verified),
            fix=f"mlscale runs checkpoints {run.id}, then: mlscale versions add {run.id} checkpoint=last",
        )
    return path


def _check_as_sealed(run: RunFolder, files: dict[str, Path], sealed: dict[str, Any]) -> None:
    """Raise an error if a file differs from the run's seal: the metrics would then be those of another model."""
    for path in files.values():
        name = path.relative_to(run.path).as_posix()
        if name not in sealed or not path.is_file() or compute_sha256(path) != sealed[name]["sha256"]:
            raise MLScaleError(
                f"{name} is not what the run was sealed with",
                where=str(path),
                why="the run's metrics would be those of something else",
                fix=f"mlscale runs show {run.id} verify=true",
            )
