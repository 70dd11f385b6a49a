"""Hot swap: the next version is loaded beside the one that serves, and takes over between two batches.

A version that does not load, for whatever reason, changes nothing: the old one goes on, and it is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mlscale.errors import MLScaleError
from mlscale.export.servable_trial import schema_change
from mlscale.serve.served_model import Model, load_model
from mlscale.versions import LocalRegistry
from mlscale.versions.aliases import FILE
from mlscale.versions.model_reference import resolve_reference
from mlscale.versions.trained_model import TrainedModel, as_servable, of_version
from mlscale.versions.version_record import read
from mlscale.versions.version_reference import CHAMPION, PREVIOUS, parse


@dataclass(frozen=True)
class Source:
    """Where models come from.

    Attributes:
        text: the reference on the command line.
        registry: where versions are; None where there is none.
        runs_dir: where runs are.
        threads: that compute one batch.
        max_batch: rows that are computed at once.
    """

    text: str
    registry: LocalRegistry | None
    runs_dir: Path
    threads: int
    max_batch: int

    def locate(self, ref: str | None = None, *, quiet: bool = True) -> TrainedModel:
        """Return the servable that `text` means now, or the version `ref`.

        Raises:
            MLScaleError: there is no such servable.
        """
        if ref is not None and self.registry is not None:
            model = of_version(self.registry.resolve(ref), self.runs_dir)
        else:
            model = resolve_reference(ref or self.text, runs_dir=self.runs_dir, registry=self.registry, quiet=quiet)
        return as_servable(model, self.runs_dir)

    def load(self, located: TrainedModel) -> Model:
        """Load a servable; each file of a version is held against its digest.

        Raises:
            MLScaleError: it is damaged, or does not compute.
        """
        assert located.servable is not None
        if located.is_registered and self.registry is not None:
            self.registry.verified(read(located.path))
        return load_model(
            located.servable,
            name=located.name,
            version=located.version,
            threads=self.threads,
            max_batch=self.max_batch,
        )

    def first(self) -> tuple[TrainedModel, Model, str]:
        """Locate and load what is to serve at the start; where the champion can't be loaded, the one before it.

        Returns:
            what serves, the model, and a sentence where it is not what was named; '' otherwise.

        Raises:
            MLScaleError: it can't be loaded, and there is no champion before it that can.
        """
        try:
            located = self.locate(quiet=False)
            return located, self.load(located), ""
        except MLScaleError as error:
            if (previous := self._previous()) is None:
                raise
            try:
                located = self.locate(previous)
                model = self.load(located)
            except MLScaleError:
                raise error from None
            told = f"{self.text} could not be loaded ({short(error)})"
            return located, model, f"{told}; {located.version}, the champion before it, serves instead"

    def _previous(self) -> str | None:
        """The reference of the champion before, where the champion was named."""
        if self.registry is None or "/" in self.text or self.text.startswith((".", "~")):
            return None
        try:
            named = parse(self.text)
        except MLScaleError:
            return None
        return f"{named.name}@{PREVIOUS}" if named.bare or named.alias == CHAMPION else None

    def state(self, located: TrainedModel) -> tuple[object, ...] | None:
        """What changes when `text` may mean something else; None where it never does: a folder, or a number."""
        if self.registry is None or not located.is_registered or self._is_fixed():
            return None
        folder = self.registry.root / "versions" / located.name
        return (_state(folder / FILE), _state(folder))

    def _is_fixed(self) -> bool:
        """Return whether `text` names one version for good: by its number, or by its folder."""
        try:
            return parse(self.text).number is not None
        except MLScaleError:
            return True


class Reloader:
    """Changes the version that serves; one change at a time.

    Args:
        source: where models come from.
        located: what serves now.
        model: the same, loaded.
        swap: called in the event loop with the model that is to serve.
        failed: called in the event loop with a sentence, where one could not be loaded.
        accept_change: let a version serve that takes or answers something else than the one before.
    """

    def __init__(
        self,
        source: Source,
        located: TrainedModel,
        model: Model,
        swap: Callable[[Model], None],
        failed: Callable[[str], None],
        *,
        accept_change: bool,
    ) -> None:
        self._source, self._located, self._model = source, located, model
        self._swap, self._failed = swap, failed
        self._accept_change = accept_change
        self._one = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, "load")

    async def load(self, ref: str | None, *, accept_change: bool = False) -> None:
        """Serve the version `ref`, or what the command line's name means now.

        Raises:
            MLScaleError: it could not be loaded, is a version of another model, or takes or answers something else
                than the one that serves, and that was not accepted; the old one serves.
        """
        if ref is not None and parse(ref).name != self._located.name:  # a client names no file, nor anything in the log
            raise self._no_version(ref)
        loop = asyncio.get_running_loop()
        async with self._one:
            try:
                located = await loop.run_in_executor(self._thread, self._source.locate, ref)
                self._check(located, ref)
                if located.version != self._located.version:
                    model = await loop.run_in_executor(self._thread, self._source.load, located)
                    if not (accept_change or self._accept_change):
                        self._raise_if_schema_changed(model)
                    self._located, self._model = located, model
                    self._swap(model)
                else:
                    self._failed("")
            except MLScaleError as error:
                self._failed(
                    f"{ref or self._source.text} could not be loaded ({short(error)}); "
                    f"{self._located.version} serves on"
                )
                raise

    async def follow(self, every_s: float) -> None:
        """Look for a moved alias until cancelled; a look is two calls of `stat`."""
        loop = asyncio.get_running_loop()
        seen = await loop.run_in_executor(self._thread, self._source.state, self._located)
        changed = True  # it may have moved since it was located
        while seen is not None:
            if changed:
                try:
                    await self.load(None)
                except MLScaleError:  # told, and tried again when something changes
                    pass
                except Exception as error:
                    self._failed(
                        f"{self._source.text} could not be loaded ({error!r}); {self._located.version} serves on"
                    )
            await asyncio.sleep(every_s)
            now = await loop.run_in_executor(self._thread, self._source.state, self._located)
            changed, seen = now != seen, now

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=True)

    def _check(self, located: TrainedModel, ref: str | None) -> None:
        if located.name != self._located.name or (ref is not None and not located.is_registered):
            raise self._no_version(ref or self._source.text)

    def _no_version(self, text: str) -> MLScaleError:
        return MLScaleError(f"'{text}' is no version of {self._located.name}", fix=f"{self._located.name}:v<number>")

    def _raise_if_schema_changed(self, model: Model) -> None:
        if change := schema_change(self._model.servable, model.servable):
            raise MLScaleError(
                f"{model.version} has another schema than {self._model.version}",
                why=f"{change}: clients of the one would get errors or wrong answers from the other",
                fix="accept_change=true",
            )


def short(error: MLScaleError) -> str:
    """What an error is and why, for one line of a log."""
    return "; ".join(text for text in (error.what, error.why) if text)


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns, found.st_size)
