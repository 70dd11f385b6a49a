"""The server's life: load, listen, answer, follow, drain."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlscale.errors import MLScaleError
from mlscale.events.store import EventStore
from mlscale.events.writer import EventWriter
from mlscale.registry.servables import Located
from mlscale.runs.files import write_json
from mlscale.serve.answers import Answers
from mlscale.serve.app import App
from mlscale.serve.connection import Connection
from mlscale.serve.http import Connections, Limits
from mlscale.serve.inference import Inference
from mlscale.serve.labels import LabelSink
from mlscale.serve.metrics import Metrics
from mlscale.serve.model import Model
from mlscale.serve.reload import Reloader, Source
from mlscale.serve.sockets import Stop, bound, new_loop, stop_signal

_SWEEP_S = 1.0
_BACKLOG = 1024


@dataclass(frozen=True)
class Settings:
    """How to serve; see conf/verb/serve.yaml."""

    host: str
    port: int
    max_queue: int
    limits: Limits
    drain_s: float
    follow: bool
    poll_s: float
    control: bool | None
    accept_change: bool
    ready_file: Path | None
    events: EventStore | None
    sample_share: float
    flush_s: float
    events_bytes: int


@dataclass(frozen=True)
class Served:
    """What a server did until it was told to stop.

    Attributes:
        metrics: its counts.
        version: that served last.
        seconds: that it was open.
        events, dropped: that were written, and lost.
    """

    metrics: Metrics
    version: str
    seconds: float
    events: int
    dropped: int


def serve(source: Source, settings: Settings, say: Callable[[str], None]) -> Served:
    """Serve until SIGTERM or SIGINT; then answer what was asked, write the events, and return.

    Args:
        source: where the model comes from.
        settings: how.
        say: writes a line to the log.

    Raises:
        MLScaleError: the model can't be loaded, or the port not be had (exit code 5).
    """
    with bound(settings.host, settings.port) as listening:
        located, model, instead = source.first()
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(_Server(source, settings, say, located, model, instead).run(listening))


class _Server:
    def __init__(
        self,
        source: Source,
        settings: Settings,
        say: Callable[[str], None],
        located: Located,
        model: Model,
        instead: str,
    ) -> None:
        self._source, self._settings, self._say = source, settings, say
        self._located, self._first, self._instead = located, model, instead

    async def run(self, listening: socket.socket) -> Served:
        """From the first request to the last."""
        settings, begin = self._settings, time.monotonic()
        loop = asyncio.get_running_loop()
        stop = stop_signal(loop)
        self._metrics = Metrics()
        answers = Answers(self._metrics, self._say)
        store = settings.events
        events = self._writer(store) if store else None
        sink = LabelSink(store, loop) if store else None
        self._inference = Inference(
            loop, self._first, answers, events, max_queue=settings.max_queue, body_bytes=settings.limits.body_bytes
        )
        reloader = Reloader(
            self._source,
            self._located,
            self._first,
            self._swap,
            self._not_swapped,
            accept_change=settings.accept_change,
        )
        load = self._loader(reloader) if self._may_control() else None
        self._app = App(self._inference, answers, sink, load, body_bytes=settings.limits.body_bytes)
        connections = Connections(settings.limits, self._app.handle, answers.early)
        gc.collect()
        gc.freeze()  # what is there stays: collections look at what requests make
        server = await loop.create_server(lambda: Connection(connections), sock=listening, backlog=_BACKLOG)
        tasks = [asyncio.create_task(self._each_second(connections, events))]
        if settings.follow:
            tasks.append(asyncio.create_task(reloader.follow(settings.poll_s)))
        if self._instead:
            self._app.stale = self._instead
            self._say(self._instead)
        self._announce(listening)
        await stop.wait()
        self._app.ready = False
        server.close()
        self._say(f"stopping: {self._inference.batcher.rows} samples wait")
        await self._drained(connections, stop)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in list(connections.all):
            each.abort()
        await loop.run_in_executor(None, self._close, reloader, events, sink)
        written = events.written if events else 0
        dropped = events.dropped if events else 0
        version = self._inference.model.version
        return Served(self._metrics, version, time.monotonic() - begin, written, dropped)

    def _writer(self, store: EventStore) -> EventWriter:
        settings = self._settings
        return store.writer(
            self._first.name,
            flush_s=settings.flush_s,
            sample_share=settings.sample_share,
            max_bytes=settings.events_bytes,
        )

    def _announce(self, listening: socket.socket) -> None:
        host, port = listening.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._say(f"serving {self._first.version} on {url}")
        if self._settings.ready_file:
            write_json(self._settings.ready_file, {"url": url, "pid": os.getpid(), "version": self._first.version})

    def _swap(self, model: Model) -> None:
        """The change: one assignment, between two batches."""
        before, self._inference.model = self._inference.model, model
        self._app.stale = ""
        self._metrics.swaps["ok"] += 1
        self._say(f"serving {model.version}, {before.version} before")

    def _not_swapped(self, why: str) -> None:
        """Nothing was changed: '' where there was no need."""
        if why:
            self._metrics.swaps["failed"] += 1
            self._say(why)
        self._app.stale = why

    def _loader(self, reloader: Reloader) -> Any:
        running: set[asyncio.Task[None]] = set()

        async def work(ref: str | None, accept_change: bool, done: Callable[[MLScaleError | None], None]) -> None:
            try:
                await reloader.load(ref, accept_change=accept_change)
            except MLScaleError as error:
                done(error)
            except Exception as error:
                self._say(f"a bug of ours: load: {error!r}")
                done(MLScaleError("internal error"))
            else:
                done(None)

        def load(ref: str | None, accept_change: bool, done: Callable[[MLScaleError | None], None]) -> None:
            task = asyncio.get_running_loop().create_task(work(ref, accept_change, done))
            running.add(task)
            task.add_done_callback(running.discard)

        return load

    def _may_control(self) -> bool:
        if self._settings.control is not None:
            return self._settings.control
        try:
            return ipaddress.ip_address(self._settings.host).is_loopback
        except ValueError:
            return self._settings.host == "localhost"

    async def _each_second(self, connections: Connections, events: EventWriter | None) -> None:
        """Close what is too slow; tell once why events are lost."""
        told = ""
        while True:
            await asyncio.sleep(_SWEEP_S)
            connections.sweep()
            problem = events.problem if events else ""
            if problem != told:
                self._say(f"events are lost: {problem}" if problem else "events are kept again")
                told = problem

    async def _drained(self, connections: Connections, stop: Stop) -> None:
        """Wait until every request was answered and read, for `drain_s` at most, or until told again."""
        connections.drain()
        end = time.monotonic() + self._settings.drain_s
        while (connections.all or not self._inference.idle) and time.monotonic() < end and stop.count < 2:
            await asyncio.sleep(0.01)

    def _close(self, reloader: Reloader, events: EventWriter | None, sink: LabelSink | None) -> None:
        self._inference.close()
        reloader.close()
        if events:
            events.close()
        if sink:
            sink.close()
