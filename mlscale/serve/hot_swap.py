"""Hot swap: the next version is loaded while the current one serves, and takes over between two batches.

A version that can't be loaded, for whatever reason, changes nothing: the current one continues, and the log says why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mlscale.errors import MLScaleError
from mlscale.export.engines.runtime import Runtime
from mlscale.export.servable_trial import describe_schema_change
from mlscale.serve.served_model import ServedModel, load_model
from mlscale.versions import LocalRegistry
from mlscale.versions.aliases import FILE
from mlscale.versions.model_reference import resolve_reference
from mlscale.versions.trained_model import TrainedModel, get_version_model, require_servable
from mlscale.versions.version_record import read_version
from mlscale.versions.version_reference import CHAMPION, PREVIOUS, parse_reference


@dataclass(frozen=True)
class ModelSource:
    """The model reference of the command line, and the places where it is looked up.

    Attributes:
        text: the reference on the command line.
        registry: holds the versions; None where there is none.
        runs_dir: the folder of the runs.
        runtime: what computes a batch.
        max_batch: the most rows that are computed at once.
    """

    text: str
    registry: LocalRegistry | None
    runs_dir: Path
    runtime: Runtime
    max_batch: int

    def locate_servable(self, ref: str | None = None, *, quiet: bool = True) -> TrainedModel:
        """Return the servable that `text` means now, or the version `ref`.

        Raises:
            MLScaleError: no such servable was found.
        """
        if ref is not None and self.registry is not None:
            model = get_version_model(self.registry.resolve_version(ref), self.runs_dir)
        else:
            model = resolve_reference(ref or self.text, runs_dir=self.runs_dir, registry=self.registry, quiet=quiet)
        return require_servable(model, self.runs_dir)

    def load_located(self, located: TrainedModel) -> ServedModel:
        """Load a servable; each file of a version is compared with its digest.

        Raises:
            MLScaleError: it is corrupt, or does not compute.
        """
        assert located.servable is not None
        if located.is_registered and self.registry is not None:
            self.registry.verify_version(read_version(located.path))
        return load_model(
            located.servable,
            name=located.name,
            version=located.version,
            runtime=self.runtime,
            max_batch=self.max_batch,
        )

    def load_first(self) -> tuple[TrainedModel, ServedModel, str]:
        """Locate and load the model to serve at the start; where the champion can't be loaded, the previous champion.

        Returns:
            the located servable, its model, and a sentence where it is not the one that was named; '' otherwise.

        Raises:
            MLScaleError: it can't be loaded, and there is no previous champion that can.
        """
        try:
            located = self.locate_servable(quiet=False)
            return located, self.load_located(located), ""
        except MLScaleError as error:
            if (previous := self._find_previous_champion()) is None:
                raise
            try:
                located = self.locate_servable(previous)
                model = self.load_located(located)
            except MLScaleError:
                # The error of the version that was named is the one to report, not that of the fallback.
                raise error from None
            reason = f"{self.text} could not be loaded ({format_load_error(error)})"
            return located, model, f"{reason}; {located.version}, the champion before it, serves instead"

    def _find_previous_champion(self) -> str | None:
        """Return the reference of the previous champion if the champion was named; None otherwise."""
        # Paths are not references: only a name in the registry has a champion before it.
        if self.registry is None or "/" in self.text or self.text.startswith((".", "~")):
            return None
        try:
            named = parse_reference(self.text)
        except MLScaleError:
            return None
        return f"{named.name}@{PREVIOUS}" if named.is_bare or named.alias == CHAMPION else None

    def read_state(self, located: TrainedModel) -> tuple[object, ...] | None:
        """Return a value that changes when `text` may mean another version; None if fixed (a folder or a number)."""
        if self.registry is None or not located.is_registered or self._is_fixed():
            return None
        folder = self.registry.root / "versions" / located.name
        # The file of aliases is replaced when one moves; the folder changes when a version is added, which a bare name
        # without a champion resolves to.
        return (_read_file_state(folder / FILE), _read_file_state(folder))

    def _is_fixed(self) -> bool:
        """Return whether `text` names one version for good: by its number, or by its folder."""
        try:
            return parse_reference(self.text).number is not None
        except MLScaleError:
            return True


class Reloader:
    """Loads and swaps versions, one at a time.

    Args:
        source: locates and loads models.
        located: the version that serves now.
        model: the same, loaded.
        swap: called in the event loop with the model that takes over.
        failed: called in the event loop with the reason why a version could not be loaded; '' when it is resolved.
        accept_change: allow a version with another schema (input, output or class names) than the current one.
    """

    def __init__(
        self,
        source: ModelSource,
        located: TrainedModel,
        model: ServedModel,
        swap: Callable[[ServedModel], None],
        failed: Callable[[str], None],
        *,
        accept_change: bool,
    ) -> None:
        self._source, self._located, self._model = source, located, model
        self._swap, self._failed = swap, failed
        self._accept_change = accept_change
        self._one = asyncio.Lock()
        # Files are read in a thread: a load takes seconds, in which the event loop must answer.
        self._thread = ThreadPoolExecutor(1, "load")

    async def load_version(self, ref: str | None, *, accept_change: bool = False) -> None:
        """Load and serve the version `ref`, or the one that the command line's reference resolves to now.

        Raises:
            MLScaleError: it could not be loaded, is a version of another model, or has another schema than the
                current one, and that was not accepted; the current one continues to serve.
        """
        # A client must not name files, nor write to the log.
        if ref is not None and parse_reference(ref).name != self._located.name:
            raise self._build_version_error(ref)
        loop = asyncio.get_running_loop()
        # The lock spans locate, load and swap: two loads at once could finish in the wrong order.
        async with self._one:
            try:
                located = await loop.run_in_executor(self._thread, self._source.locate_servable, ref)
                self._check_located(located, ref)
                if located.version != self._located.version:
                    model = await loop.run_in_executor(self._thread, self._source.load_located, located)
                    if not (accept_change or self._accept_change):
                        self._raise_if_schema_changed(model)
                    self._located, self._model = located, model
                    self._swap(model)
                else:
                    # The current version is the right one, so an earlier failure is resolved.
                    self._failed("")
            except MLScaleError as error:
                self._failed(
                    f"{ref or self._source.text} could not be loaded ({format_load_error(error)}); "
                    f"{self._located.version} serves on"
                )
                raise

    async def follow_alias(self, every_s: float) -> None:
        """Poll for a moved alias every `every_s` seconds until cancelled; one poll is two calls of `stat`."""
        loop = asyncio.get_running_loop()
        # Taken before the first load: an alias that moves during the load is seen by the next poll.
        seen = await loop.run_in_executor(self._thread, self._source.read_state, self._located)
        changed = True  # it may have moved since it was located
        while seen is not None:
            if changed:
                try:
                    await self.load_version(None)
                except MLScaleError:  # logged by it, and tried again at the next change
                    pass
                # Any error: this task has to outlive it, or no later version would be noticed.
                except Exception as error:
                    self._failed(
                        f"{self._source.text} could not be loaded ({error!r}); {self._located.version} serves on"
                    )
            await asyncio.sleep(every_s)
            now = await loop.run_in_executor(self._thread, self._source.read_state, self._located)
            changed, seen = now != seen, now

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=True)

    def _check_located(self, located: TrainedModel, ref: str | None) -> None:
        if located.name != self._located.name or (ref is not None and not located.is_registered):
            raise self._build_version_error(ref or self._source.text)

    def _build_version_error(self, text: str) -> MLScaleError:
        name = self._located.name
        return MLScaleError(f"'{text}' is not a version of {name}", where=f"ref={text}", fix=f"{name}:v<number>")

    def _raise_if_schema_changed(self, model: ServedModel) -> None:
        if change := describe_schema_change(self._model.servable, model.servable):
            raise MLScaleError(
                f"{model.version} has another schema than {self._model.version}",
                where=f"ref={model.version}",
                why=f"{change}: clients of the one would get errors or wrong answers from the other",
                fix="accept_change=true",
            )


def format_load_error(error: MLScaleError) -> str:
    """Return an error and its reason as one line for a log."""
    return "; ".join(text for text in (error.what, error.why) if text)


def _read_file_state(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    # Files are replaced by renaming: the inode changes even where time and size are equal.
    return (status.st_ino, status.st_mtime_ns, status.st_size)
