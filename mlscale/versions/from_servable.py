"""A servable as a version: the folder as it is, after each of its files was held against the digest it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlscale.contracts.servable_yaml import DOCUMENT as DOCUMENT
from mlscale.contracts.servable_yaml import read_document
from mlscale.errors import MLScaleError
from mlscale.files import artefacts
from mlscale.runs.folder import RunFolder
from mlscale.secrets.mask import Masker
from mlscale.versions.from_run import origin, parent_of
from mlscale.versions.local_registry import LocalRegistry, Published
from mlscale.versions.object_store import holds
from mlscale.versions.version_record import File, is_place


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
        registry: where to.
        folder: the servable.
        run: the run that it is from, where that is at hand: it tells the code, and where training began.
        name: the model's; the servable's by default.
        notes: in the user's words.
        parent: the version that training started from; None: the latest one that the run's parent made.
        aliases: for the version.

    Raises:
        MLScaleError: it is no servable, a damaged one, or that of another run.
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
    known = origin(run) if run else {"name": made.get("folder"), **made} if made.get("id") else None
    return registry.publish(
        name or document["name"],
        folder,
        kind="servable",
        metrics=document["metrics"],
        run={**known, "checkpoint": document["checkpoint"].get("name")} if known else None,
        data_version=document["data_version"],
        parent=parent or (parent_of(registry, run) if run else None),
        notes=Masker().mask(notes),
        aliases=aliases,
    )


def read_servable(folder: Path) -> dict[str, Any]:
    """The document of a servable that is whole: every file is as the document says, and there is no other.

    Raises:
        MLScaleError: it is not, or there is none.
    """
    document = read_document(folder)
    try:
        files = {str(name): File(entry["sha256"], entry["bytes"]) for name, entry in document["files"].items()}
        document["run"], document["checkpoint"], document["metrics"], document["data_version"], document["name"]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        where = str(folder / DOCUMENT)
        raise MLScaleError(
            "a servable's document can't be read",
            where=where,
            why=repr(error),
            fix="mlscale export makes the servable again",
        ) from error
    wrong = [name for name, file in files.items() if not (is_place(name) and holds(folder / name, file))]
    there = {each.relative_to(folder).as_posix() for each in artefacts(folder)}
    wrong += sorted(there - set(files) - {DOCUMENT})
    if wrong:
        raise MLScaleError(
            "the servable is damaged",
            where=str(folder),
            why=f"not what its document says: {', '.join(wrong)}",
            fix="mlscale export makes it again",
        )
    return document
