"""The registry in a folder: no server, safe for concurrent writers, consistent whenever a process is killed.

    <root>/versions/resnet/v7/version.json    the record of resnet:v7, sealed
    <root>/versions/resnet/v7/files/          its files, read only: hard links to the objects
    <root>/versions/resnet/aliases.json       champion, challenger, previous and others
    <root>/objects/ab/abcd…                   each content once, by its SHA-256

A version is written aside and committed by one rename, under the lock of its model; so is every move of an alias.
Readers take no lock: they see the state before a change, or the one after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlscale.atomic_files import iterate_regular_files, make_folders, report_disk_errors
from mlscale.config.names.suggest import find_nearest
from mlscale.errors import Exit, MLScaleError
from mlscale.file_locks import hold_lock
from mlscale.runs.identity import get_current_time
from mlscale.versions.aliases import FILE as ALIASES
from mlscale.versions.aliases import Aliases, CorruptAliasesError
from mlscale.versions.object_store import (
    ObjectStore,
    collect_sources,
    commit_version,
    has_content,
    list_version_numbers,
    restore_version_files,
)
from mlscale.versions.version_record import KINDS, Kind, Version, hash_version_content, read_version
from mlscale.versions.version_reference import (
    CHAMPION,
    LATEST,
    PREVIOUS,
    VersionReference,
    check_alias,
    check_model_name,
    parse_reference,
)

_LOCK_SECONDS = 60.0  # a lock is held while a few small files are written; a minute means that something hangs


@dataclass(frozen=True)
class Published:
    """The result of publishing.

    Attributes:
        version: the version with that content.
        new: False where it existed before.
    """

    version: Version
    new: bool


class LocalRegistry:
    """Versions of models in a folder.

    Args:
        root: the folder; created when something is published.
    """

    def __init__(self, root: str | Path = "registry") -> None:
        self.root = Path(root).absolute()
        self._objects = ObjectStore(self.root / "objects")

    # Reading

    def list_model_names(self) -> list[str]:
        """Return the names of models that have versions, sorted."""
        folders = sorted((self.root / "versions").glob("*"))
        return [folder.name for folder in folders if list_version_numbers(folder)]

    def list_versions(self, name: str) -> list[Version]:
        """Return the versions of a model, oldest first, without those with a corrupted record: see
        `find_corrupted_versions`."""
        return [entry for entry in self._read_all_versions(name).values() if isinstance(entry, Version)]

    def find_corrupted_versions(self, name: str) -> dict[Path, str]:
        """Return the versions of a model whose record can't be read, by folder, each with the reason."""
        entries = self._read_all_versions(name)
        return {path: error.why or error.what for path, error in entries.items() if isinstance(error, MLScaleError)}

    def list_references(self) -> list[str]:
        """Return all references to versions of this registry, for shell completion."""
        references: list[str] = []
        for name in self.list_model_names():
            references += [name, f"{name}:{LATEST}"]
            references += [f"{name}:v{number}" for number in list_version_numbers(self._get_model_folder(name))]
            references += [f"{name}@{alias}" for alias in self.get_aliases(name).of]
        return references

    def get_aliases(self, name: str) -> Aliases:
        """Return the aliases of a model."""
        return Aliases.read_aliases(self._get_model_folder(name))

    def resolve_version(self, ref: str) -> Version:
        """Return the version for `ref`: `resnet:v7`, `resnet:latest`, `resnet@champion`; `resnet` is the champion, or
        without one the latest version. Its files are not read: see `fetch`.

        Raises:
            MLScaleError: version not found, or its record is corrupted.
        """
        reference = parse_reference(ref)
        # Read without a lock, so the order matters: a version that has an alias is committed before it gets the alias.
        of = {} if reference.number else self.get_aliases(reference.name).of
        existing = list_version_numbers(self._get_model_folder(reference.name))
        if not existing:
            raise self._make_no_model_error(reference)
        number = self._resolve_number(reference, of, existing)
        if number not in existing:
            span = f"v{existing[0]} to v{existing[-1]}" if len(existing) > 1 else f"v{existing[0]}"
            raise MLScaleError(
                f"{reference.name} has no version v{number}",
                where=str(self._get_model_folder(reference.name)),
                why=f"it has {span}",
                fix=f"mlscale versions ls {reference.name}",
            )
        return read_version(self._get_model_folder(reference.name) / f"v{number}")

    def fetch(self, ref: str) -> Version:
        """Return the version for `ref` after comparing each of its files with its digest: `version.payload` holds what
        was published.

        Raises:
            MLScaleError: version not found, or it is corrupted.
        """
        return self.verify_version(self.resolve_version(ref))

    def verify_version(self, version: Version) -> Version:
        """Return `version` after comparing each of its files with its digest.

        Raises:
            MLScaleError: it is corrupted.
        """
        wrong = self.find_changed_files(version)
        if wrong:
            raise MLScaleError(
                f"{version.ref} is corrupt: it does not hold what was published",
                where=str(version.payload),
                why="; ".join(wrong),
                fix="mlscale versions ls, for another version; or publish the same content again, which repairs it",
            )
        return version

    def find_changed_files(self, version: Version) -> list[str]:
        """Return what differs between a version's files and its record, one sentence each; reads all files."""
        wrong = []
        for name, file in version.files.items():
            path = version.payload / name
            if not path.is_file():
                wrong.append(f"{name} is gone")
            elif not has_content(path, file):
                wrong.append(f"{name} was altered")
        # A file that was added changes what a servable or a checkpoint loads, so it counts as a change.
        present = {path.relative_to(version.payload).as_posix() for path in iterate_regular_files(version.payload)}
        return wrong + [f"{name} was added" for name in sorted(present - set(version.files))]

    def find_version_of_run(self, run_id: str) -> Version | None:
        """Return the latest version that the run with that id made; None where there is none."""
        versions = [version for name in self.list_model_names() for version in self.list_versions(name)]
        made = [version for version in versions if (version.run or {}).get("id") == run_id]
        return max(made, key=lambda version: version.created, default=None)

    # Writing

    def publish(
        self,
        name: str,
        files: Path | Mapping[str, Path],
        *,
        kind: Kind,
        metrics: Mapping[str, float | None] | None = None,
        run: Mapping[str, Any] | None = None,
        data_version: str | None = None,
        parent: str | None = None,
        notes: str = "",
        aliases: Sequence[str] = (),
    ) -> Published:
        """Publish these files as a version, atomically. The same content is the same version: then its record stays
        unchanged, corrupted files are restored, and only the aliases are given.

        Args:
            name: the model.
            files: a folder, or the source of each file by its path in the version. They are copied.
            kind: checkpoint or servable.
            metrics, run, data_version, parent, notes: see `Version`.
            aliases: for the version, such as `challenger`.

        Raises:
            MLScaleError: a bad name, a file that can't be read, or a folder that can't be written to (exit code 5).
        """
        assert kind in KINDS, kind
        check_model_name(name)
        for alias in aliases:
            check_alias(alias)
        sources = collect_sources(files)
        with report_disk_errors("registry.root"):
            make_folders(self._get_model_folder(name))
            # Before adding: the objects of this version have no links until it is committed.
            self._objects.remove_unused_files()
            # Copied without the lock, which others wait for: it takes as long as the files are large.
            stored = {path: self._objects.add_file(source) for path, source in sources.items()}
            draft = Version(
                path=self._get_model_folder(name),
                name=name,
                number=0,
                kind=kind,
                digest=hash_version_content(stored),
                created=get_current_time(),
                files=stored,
                metrics=dict(metrics or {}),
                run=run,
                data_version=data_version,
                parent=parent,
                notes=notes,
            )
            with self._hold_model_lock(name):
                version = self._find_same_content(draft)
                new = version is None
                if version is None:
                    version = commit_version(draft, self._objects)
                else:
                    restore_version_files(version, self._objects)
                for alias in aliases:
                    self._write_aliases(name, self.get_aliases(name).assign_alias(alias, version.number, "publish"))
        # After the lock is released: sending to a mirror may take a minute.
        self._mirror_change()
        return Published(version, new)

    def promote(self, ref: str, alias: str = CHAMPION, *, replacing: str | None = None) -> Version:
        """Give a version an alias, atomically for readers. A new champion makes the one before it `previous`.

        Args:
            ref: the version; a bare name is not enough.
            alias: the alias to give.
            replacing: the version that must have the alias until now, if the two were compared; None for any.

        Raises:
            MLScaleError: version not found, it is corrupted, or another process has moved the alias meanwhile.
        """
        check_alias(alias)
        if parse_reference(ref).is_bare:
            raise MLScaleError(
                f"'{ref}' does not name the version to promote",
                where=f"command line: {ref}",
                why="a champion is replaced by a version, not by the name of all",
                fix=f"mlscale versions promote {ref}:{LATEST} alias={alias}",
            )
        # All files are verified before the lock is taken: reading them may take minutes.
        version = self.fetch(ref)
        before = self.resolve_version(replacing).number if replacing else None
        with report_disk_errors("registry.root"), self._hold_model_lock(version.name):
            try:
                aliases = self.get_aliases(version.name)
            except CorruptAliasesError:
                if replacing:  # a program's comparison, which knows nothing of the other aliases
                    raise
                # A person names the champion: the other aliases can be given again.
                corrupt = self._get_model_folder(version.name) / ALIASES
                corrupt.replace(corrupt.with_suffix(".corrupt"))
                aliases = Aliases()
            # Read again under the lock: the comparison that led to this promotion may be out of date.
            holder = aliases.of.get(alias)
            if replacing and holder != before:
                raise MLScaleError(
                    f"{version.name}@{alias} is not {replacing} any more",
                    where=str(self._get_model_folder(version.name)),
                    why=f"it was moved to v{holder} meanwhile" if holder else "it was removed meanwhile",
                    fix=f"mlscale evaluate {version.ref} against={version.name}@{alias}, and promote it then",
                )
            self._write_aliases(version.name, aliases.assign_alias(alias, version.number, "promote"))
        self._mirror_change()
        return version

    def rollback(self, name: str) -> Version:
        """Make `previous` the champion again, and the champion `previous`; return the new champion.

        Raises:
            MLScaleError: model not found, it has no previous champion, or that one is corrupted.
        """
        if not list_version_numbers(self._get_model_folder(check_model_name(name))):
            raise self._make_no_model_error(VersionReference(name))
        where = str(self._get_model_folder(name))
        # All files are verified without the lock: reading them may take minutes.
        version = self.fetch(f"{name}:v{self.get_aliases(name).swap_champion(where).of[CHAMPION]}")
        with report_disk_errors("registry.root"), self._hold_model_lock(name):
            swapped = self.get_aliases(name).swap_champion(where)
            if swapped.of[CHAMPION] != version.number:
                raise MLScaleError(
                    f"{name}@champion was moved meanwhile", where=where, fix=f"mlscale versions ls {name}"
                )
            self._write_aliases(name, swapped)
        self._mirror_change()
        return version

    def _mirror_change(self) -> None:
        """Do nothing; a hook for mirrors, called after a change is written and the lock is released."""

    # Inside

    def _hold_model_lock(self, name: str) -> AbstractContextManager[None]:
        lock = self._get_model_folder(name) / ".lock"
        error = MLScaleError(
            "another process is writing to the registry",
            where=str(lock),
            fix="try again when it has ended",
            exit=Exit.ENVIRONMENT,
        )
        return hold_lock(lock, error, _LOCK_SECONDS, is_required=True)

    def _get_model_folder(self, name: str) -> Path:
        return self.root / "versions" / name

    def _read_all_versions(self, name: str) -> dict[Path, Version | MLScaleError]:
        entries: dict[Path, Version | MLScaleError] = {}
        for number in list_version_numbers(self._get_model_folder(check_model_name(name))):
            path = self._get_model_folder(name) / f"v{number}"
            try:
                entries[path] = read_version(path)
            except MLScaleError as error:
                entries[path] = error
        return entries

    def _resolve_number(self, reference: VersionReference, of: Mapping[str, int], existing: Sequence[int]) -> int:
        if reference.number is not None:
            return reference.number
        if reference.alias == LATEST or (reference.is_bare and CHAMPION not in of):
            return existing[-1]
        alias = reference.alias or CHAMPION
        if alias in of:
            return of[alias]
        known = ", ".join(sorted(of)) or "none"
        best = find_nearest(alias, of)
        fix = f"mlscale versions promote {reference.name}:v{existing[-1]} alias={alias}"
        raise MLScaleError(
            f"no version of {reference.name} is {alias}",
            where=str(self._get_model_folder(reference.name)),
            why=f"aliases: {known}",
            fix=f"{reference.name}@{best}" if best else "mlscale versions ls" if alias == PREVIOUS else fix,
        )

    def _make_no_model_error(self, reference: VersionReference) -> MLScaleError:
        known = self.list_model_names()
        if not known:
            return MLScaleError(
                "no versions found",
                where=str(self.root),
                fix="mlscale versions add last\nregistry.root=<folder>",
            )
        best = find_nearest(reference.name, known)
        return MLScaleError(
            f"no model '{reference.name}'",
            where=str(self.root),
            why=f"models: {', '.join(known)}",
            fix=reference.rename(best) if best else "mlscale versions ls",
        )

    def _find_same_content(self, draft: Version) -> Version | None:
        return next((version for version in self.list_versions(draft.name) if version.digest == draft.digest), None)

    def _write_aliases(self, name: str, aliases: Aliases) -> None:
        aliases.write_aliases(self._get_model_folder(name))
