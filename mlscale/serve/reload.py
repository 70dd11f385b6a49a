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
from mlscale.registry import LocalRegistry
from mlscale.registry.aliases import FILE
from mlscale.registry.reference import parse
from mlscale.registry.servables import Located, locate
from mlscale.serve.model import Model, load_model


@dataclass(frozen=True)
class Source:
    """Where models come from.

    Attributes:
        text: what was named on the command line.
        registry: where versions are; None where there is none.
        threads: that compute one batch.
        max_batch: rows that are computed at once.
    """

    text: str
    registry: LocalRegistry | None
    threads: int
    max_batch: int

    def locate(self, ref: str | None = None) -> Located:
        """What `text` means now, or the version `ref`.

        Raises:
            MLScaleError: there is no such servable.
        """
        return locate(ref or self.text, self.registry)

    def load(self, located: Located) -> Model:
        """Load a servable; each file of a version is held against its digest.

        Raises:
            MLScaleError: it is damaged, or does not compute.
        """
        if located.ref is not None and self.registry is not None:
            self.registry.fetch(located.ref)
        return load_model(
            located.folder,
            name=located.name,
            version=located.version,
            threads=self.threads,
            max_batch=self.max_batch,
        )

    def state(self, located: Located) -> tuple[object, ...] | None:
        """What changes when `text` may mean something else; None where it never does: a folder, or a number."""
        if self.registry is None or located.ref is None or parse(self.text).number is not None:
            return None
        folder = self.registry.root / "versions" / located.name
        return (_state(folder / FILE), _state(folder))


class Reloader:
    """Changes the version that serves; one change at a time.

    Args:
        source: where models come from.
        located: what serves now.
        swap: called in the event loop with the model that is to serve.
        failed: called in the event loop with a sentence, where one could not be loaded.
    """

    def __init__(
        self, source: Source, located: Located, swap: Callable[[Model], None], failed: Callable[[str], None]
    ) -> None:
        self._source, self._located = source, located
        self._swap, self._failed = swap, failed
        self._one = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, "load")

    async def load(self, ref: str | None) -> None:
        """Serve the version `ref`, or what the command line's name means now.

        Raises:
            MLScaleError: it could not be loaded, or is a version of another model; the old one serves.
        """
        loop = asyncio.get_running_loop()
        async with self._one:
            try:
                located = await loop.run_in_executor(self._thread, self._source.locate, ref)
                self._check(located, ref)
                if located.version != self._located.version:
                    model = await loop.run_in_executor(self._thread, self._source.load, located)
                    self._located = located
                    self._swap(model)
                else:
                    self._failed("")
            except MLScaleError as error:
                why = "; ".join(text for text in (error.what, error.why) if text)
                self._failed(
                    f"{ref or self._source.text} could not be loaded ({why}); {self._located.version} serves on"
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

    def _check(self, located: Located, ref: str | None) -> None:
        if located.name != self._located.name or (ref is not None and located.ref is None):
            raise MLScaleError(
                f"'{ref or self._source.text}' is no version of {self._located.name}",
                fix=f"{self._located.name}:v<number>",
            )


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns, found.st_size)
