"""Read a run's folder: its documents, results and checkpoints, its status, and whether its files were changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlscale.atomic_files import (
    compute_sha256,
)
from mlscale.runs import recover
from mlscale.runs.host import processes as process

if TYPE_CHECKING:
    pass


RUN, MANIFEST, CONFIG, DERIVED = recover.RUN, recover.MANIFEST, recover.CONFIG, recover.DERIVED
ENCODER = "encoder.json"
"""How a raw sample becomes what the model takes (contract `encoder`); runs on data without an encoder have none."""


@dataclass(frozen=True)
class RunReader:
    """An existing run's folder, as far as it is read.

    Attributes:
        path: the folder, absolute.
        id: 12 characters that sort by time.
    """

    path: Path
    id: str

    @property
    def run(self) -> dict[str, Any]:
        """The content of run.json, or what can be recovered of it."""
        return recover.read_run_document(self.path)

    @property
    def manifest(self) -> dict[str, Any] | None:
        """The content of manifest.json; None until the run is sealed, and where the manifest is corrupted."""
        return recover.read_run_manifest(self.path)

    @property
    def config_text(self) -> str:
        """The text of config.yaml: the composed config, interpolations kept.

        Raises:
            MLScaleError: it is corrupted.
        """
        recover.read_yaml_values(self.path / CONFIG)
        return (self.path / CONFIG).read_text(encoding="utf-8")

    @property
    def derived(self) -> dict[str, Any]:
        """The content of derived.yaml: the values that were filled in at the start.

        Raises:
            MLScaleError: it is corrupted.
        """
        return recover.read_yaml_values(self.path / DERIVED)

    @property
    def results(self) -> dict[str, dict[str, Any]]:
        """The results by command."""
        return recover.read_run_results(self.path)

    @property
    def checkpoints(self) -> list[Path]:
        """The entries of `checkpoints/`, oldest first."""
        paths = (path for path in (self.path / "checkpoints").glob("*") if not path.name.startswith("."))
        return sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path.name))

    @property
    def status(self) -> str:
        """The status: done, failed, diverged or interrupted once sealed; before that running, elsewhere (started on
        another machine, so that its process can't be checked), crashed (its process ended without sealing it), or
        queued (no job has begun it)."""
        manifest = self.manifest
        if manifest is not None:
            return str(manifest["status"])
        if self.run["attempts"][-1].get("queued"):
            return "queued"
        return process.get_process_state(self.run["attempts"][-1])

    def find_changed_artefacts(self) -> list[str]:
        """Return the paths of artefacts that are missing or differ from the manifest; empty for an unsealed run."""
        sealed = (self.manifest or {}).get("artefacts", {})
        return [name for name, entry in sealed.items() if not _is_unchanged(self.path / name, entry)]


def _is_unchanged(path: Path, entry: Mapping[str, Any]) -> bool:
    # The size first: it is known at once, and a digest reads the entire file.
    return path.is_file() and path.stat().st_size == entry.get("bytes") and compute_sha256(path) == entry.get("sha256")
