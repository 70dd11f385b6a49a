"""Publish a servable as a version: the unchanged folder, after each file was compared with its digest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlscale.atomic_files import iterate_regular_files
from mlscale.contracts.servable_yaml import DOCUMENT as DOCUMENT
from mlscale.contracts.servable_yaml import read_document
from mlscale.errors import MLScaleError
from mlscale.runs.folder import RunFolder
from mlscale.secrets.mask import Masker
from mlscale.versions.from_run import build_provenance, find_parent_version
from mlscale.versions.local_registry import LocalRegistry, Published
from mlscale.versions.object_store import has_content
from mlscale.versions.version_record import File, is_payload_path


def publish_servable(
    registry: LocalRegistry,
    folder: Path,
    *,
    run: RunFolder | None = None,
    name: str | None = None,
    notes: str = "",
    parent: str | None = None,
    aliases: tuple[str, ...] = (),
) -> Published:
    """Publish a servable; its metrics are those of the exported model.

    Args:
        registry: the registry to publish to.
        folder: the servable.
        run: the run that it was exported from, if available: the source of commit, initial weights and parent.
        name: the model's; the servable's by default.
        notes: free text of the user.
        parent: the version that training started from; None: the latest one that the run's parent made.
        aliases: for the version.

    Raises:
        MLScaleError: it is not a servable, corrupted, or of another run.
    """
    document = read_servable(folder)
    made = document["run"] or {}
    if run is not None and made.get("id") != run.id:
        raise MLScaleError(
            "the servable is not that of this run",
            where=str(folder),
            why=f"it is from {made.get('id')}",
            fix="mlscale versions add <the servable's folder>",
        )
    known = build_provenance(run) if run else {"name": made.get("folder"), **made} if made.get("id") else None
    return registry.publish(
        name or document["name"],
        folder,
        kind="servable",
        metrics=document["metrics"],
        run={**known, "checkpoint": document["checkpoint"].get("name")} if known else None,
        data_version=document["data_version"],
        parent=parent or (find_parent_version(registry, run) if run else None),
        notes=Masker().mask_text(notes),
        aliases=aliases,
    )


def read_servable(folder: Path) -> dict[str, Any]:
    """Return the document of a servable after checking that its files are exactly those that the document lists.

    Raises:
        MLScaleError: they are not, or there is no document.
    """
    document = read_document(folder)
    try:
        files = {str(name): File(entry["sha256"], entry["bytes"]) for name, entry in document["files"].items()}
        # Read without a use: a missing key raises here, with the message below, and not in the middle of publishing.
        document["run"], document["checkpoint"], document["metrics"], document["data_version"], document["name"]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        where = str(folder / DOCUMENT)
        raise MLScaleError(
            "a servable's document can't be read",
            where=where,
            why=repr(error),
            fix="mlscale export <its run>, which makes the servable again",
        ) from error
    wrong = [name for name, file in files.items() if not (is_payload_path(name) and has_content(folder / name, file))]
    present = {path.relative_to(folder).as_posix() for path in iterate_regular_files(folder)}
    # A file that the document does not list has no digest, so a later change to it would not be detected.
    wrong += sorted(present - set(files) - {DOCUMENT})
    if wrong:
        raise MLScaleError(
            "the servable is corrupt",
            where=str(folder),
            why=f"files that do not match its document: {', '.join(wrong)}",
            fix="mlscale export <its run>, which makes it again",
        )
    return document
