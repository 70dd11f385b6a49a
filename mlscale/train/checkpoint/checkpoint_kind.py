"""Determine the kind of a checkpoint, best, last or periodic, from the states of the callbacks that save it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, SupportsFloat

from mlscale.runs.checkpoint_files.checkpoint_record import PERIODIC, CheckpointKind, CheckpointRecord


def build_checkpoint_record(checkpoint: Mapping[str, Any], path: Path) -> CheckpointRecord:
    """Return the record of a checkpoint; its kind follows from the states that ModelCheckpoint callbacks keep in it."""
    kind, metric, value = _determine_kind(checkpoint.get("callbacks", {}), path)
    return CheckpointRecord(
        kind=kind,
        step=int(checkpoint.get("global_step", 0)),
        epoch=int(checkpoint.get("epoch", 0)),
        resumable="optimizer_states" in checkpoint,
        metric=metric,
        value=value,
    )


def _determine_kind(callbacks: Mapping[str, Any], path: Path) -> tuple[CheckpointKind, str | None, float | None]:
    """Return the kind of the checkpoint at `path`, the metric of the ModelCheckpoint that writes it, and its value."""
    states = [state for state in callbacks.values() if isinstance(state, Mapping) and "best_k_models" in state]
    for state in states:
        best = {_resolve_folder(name): value for name, value in (state.get("best_k_models") or {}).items()}
        if _resolve_folder(path) in best:
            return "best", state.get("monitor"), _parse_finite(best[_resolve_folder(path)])
        if state.get("last_model_path") and _resolve_folder(state["last_model_path"]) == _resolve_folder(path):
            return "last", None, None
        if state.get("best_model_path") and _resolve_folder(state["best_model_path"]) == _resolve_folder(path):
            return "periodic", None, None  # a callback without a metric keeps what it saved last
    if path.stem == "last":
        return "last", None, None
    return ("periodic" if PERIODIC.fullmatch(path.name) else "other"), None, None


def _resolve_folder(path: str | Path) -> Path:
    # The folder alone is resolved: `last.ckpt` may be a link to another checkpoint.
    return Path(path).parent.resolve() / Path(path).name


def _parse_finite(value: SupportsFloat | None) -> float | None:
    number = float(value) if value is not None else float("nan")
    return number if abs(number) < float("inf") else None
