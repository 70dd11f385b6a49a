"""The outbox of a mirror: the difference between the registry and the receipts of what was sent.

`<root>/outbox/wandb/` holds the mirror's project, and for each model a receipt of what arrived there. What is to be
sent is all that the registry holds and no receipt lists. So nothing is lost when a process is killed right after a
change, and sending twice changes nothing.
"""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mlscale.atomic_files import make_folders, read_json, write_json, write_text
from mlscale.errors import MLScaleError
from mlscale.runs.identity import generate_id
from mlscale.versions.local_registry import LocalRegistry
from mlscale.versions.version_record import Version

_PROJECT_FILE, _FAILURE_FILE = "mirror.json", "failure.txt"
_PAUSE_SECONDS = 300.0  # after a failure: every promotion would wait for the timeout of a dead server


@dataclass(frozen=True)
class MirrorProject:
    """The project of a mirror.

    Attributes:
        project, entity: names in W&B; entity None is the default of the API key.
        id: of the W&B run that logs this registry's artifacts: one for all, or each delivery would be a run.
    """

    project: str
    entity: str | None
    id: str


@dataclass(frozen=True)
class MirrorReceipt:
    """The versions and aliases of a model that have arrived.

    Attributes:
        versions: number to the name in W&B, such as `acme/digits/resnet:v0`.
        aliases: alias to number, as they were last sent.
    """

    versions: Mapping[int, str] = field(default_factory=dict)
    aliases: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class PendingItem:
    """A version, or the aliases of a model, that has not arrived yet.

    Attributes:
        model: its name.
        version: None for the aliases.
    """

    model: str
    version: Version | None = None

    def __str__(self) -> str:
        return self.version.ref if self.version else f"aliases of {self.model}"


class MirrorOutbox:
    """The folder of a mirror in a registry.

    Args:
        root: the registry's folder.
    """

    def __init__(self, root: Path) -> None:
        self.registry = LocalRegistry(root)
        self.folder = self.registry.root / "outbox" / "wandb"

    @property
    def mirror_project(self) -> MirrorProject | None:
        """The project of the mirror; None without a mirror."""
        path = self.folder / _PROJECT_FILE
        if not path.is_file():
            return None
        document = read_json(path)
        try:
            return MirrorProject(document["project"], document["entity"], document["id"])
        except KeyError as error:
            raise MLScaleError(
                "can't read where the registry's mirror is",
                where=str(path),
                why=repr(error),
                fix=f"rm {shlex.quote(str(path))}, and then: mlscale versions sync project=<project>",
            ) from error

    def start_mirroring(self, project: str, entity: str | None) -> MirrorProject:
        """Start mirroring this registry to a project.

        Raises:
            MLScaleError: it is mirrored to another project: the receipts are of that one.
        """
        mirror = self.mirror_project
        if mirror is None:
            # One W&B run for the registry's whole life: the next delivery resumes it by this id.
            mirror = MirrorProject(project, entity, f"registry-{generate_id()}")
            make_folders(self.folder)
            write_json(self.folder / _PROJECT_FILE, asdict(mirror))
        if (mirror.project, mirror.entity) != (project, entity):
            target = f"{mirror.entity}/{mirror.project}" if mirror.entity else mirror.project
            raise MLScaleError(
                f"this registry is mirrored to {target} already",
                where=str(self.folder / _PROJECT_FILE),
                why="what has arrived there is not elsewhere",
                fix=f"registry.project={mirror.project} registry.entity={mirror.entity or 'null'}, "
                "or remove that file's folder: then all versions are sent to the new place",
            )
        return mirror

    def read_receipt(self, name: str) -> MirrorReceipt:
        """Return the receipt of a model; an empty one where it can't be read, for sending again changes nothing."""
        try:
            document = read_json(self._get_receipt_path(name))
            versions = {int(number): str(remote_name) for number, remote_name in document["versions"].items()}
            return MirrorReceipt(versions, {str(alias): int(number) for alias, number in document["aliases"].items()})
        except (MLScaleError, AttributeError, KeyError, TypeError, ValueError):
            return MirrorReceipt()

    def write_receipt(self, name: str, receipt: MirrorReceipt) -> None:
        """Write the receipt of a model."""
        document: dict[str, Any] = asdict(receipt)
        write_json(self._get_receipt_path(name), document)

    def list_pending(self) -> list[PendingItem]:
        """Return what has not arrived yet, by model: its versions, oldest first, and its aliases if they have moved."""
        pending: list[PendingItem] = []
        for name in self.registry.list_model_names():
            receipt, versions = self.read_receipt(name), self.registry.list_versions(name)
            # Not in the receipts, whatever happened: a version committed just before a kill is found, too.
            pending += [PendingItem(name, version) for version in versions if version.number not in receipt.versions]
            # Behind the versions: an alias can't be sent before its version.
            if dict(self.registry.get_aliases(name).of) != dict(receipt.aliases):
                pending.append(PendingItem(name))
        return pending

    def record_failure(self, why: str) -> None:
        """Note that sending has failed: for a while nothing is sent automatically."""
        write_text(self.folder / _FAILURE_FILE, why)

    def clear_failure(self) -> None:
        """Remove the note of a failure."""
        (self.folder / _FAILURE_FILE).unlink(missing_ok=True)

    def explain_pause(self) -> str:
        """Return the failure of the last minutes, after which nothing is sent automatically; '' without one."""
        path = self.folder / _FAILURE_FILE
        age = time.time() - path.stat().st_mtime if path.is_file() else math.inf
        # A clock that was set back must not stop the sending.
        return f"{path.read_text(encoding='utf-8')}, {age:.0f} s ago" if -1 < age < _PAUSE_SECONDS else ""

    def _get_receipt_path(self, name: str) -> Path:
        return self.folder / "sent" / f"{name}.json"
