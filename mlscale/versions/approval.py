"""The servers that have approved a version: `mlscale export … check=server` notes them in its servable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlscale.contracts.servable_yaml import read_document
from mlscale.errors import Exit, MLScaleError
from mlscale.versions.version_record import Version


def list_approvals(version: Version) -> dict[str, str]:
    """Return the server that has approved each target of a version, by the target's name.

    Raises:
        MLScaleError: its document can't be read.
    """
    return {name: str(entry["approved_by"]) for name, entry in _read_targets(version).items() if entry["approved_by"]}


def list_built_targets(version: Version) -> list[str]:
    """Return the names of the targets of a version, approved or not."""
    return list(_read_targets(version))


def _read_targets(version: Version) -> dict[str, dict[str, Any]]:
    if version.kind != "servable":
        return {}
    targets = read_document(version.payload).get("export_targets") or {}
    return {str(name): {"approved_by": None, **entry} for name, entry in targets.items()}


def require_approval(version: Version, targets: Sequence[str]) -> None:
    """Raise an error unless a version was approved by the server of each target.

    Raises:
        MLScaleError: it was not; exit code 4.
    """
    approvals = list_approvals(version)
    missing = [name for name in targets if name not in approvals]
    if not missing:
        return
    run = (version.run or {}).get("id") or "<its run>"
    by = f"approved by {', '.join(f'{name} ({server})' for name, server in approvals.items())}" if approvals else ""
    raise MLScaleError(
        f"{version.ref} is not approved by {' and '.join(missing)}",
        where=str(version.payload),
        why=by or "no target's own server has answered its raw samples",
        fix=f"mlscale export {run} target=[{','.join(targets)}] check=server\n"
        f"mlscale versions add {run} servable=true name={version.name}",
        exit=Exit.GATE,
    )
