"""The server's life: load, listen, answer, follow, drain."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlscale.errors import MLScaleError
from mlscale.events.event_writer import EventWriter
from mlscale.events.store import EventStore
from mlscale.files import write_json
from mlscale.serve.app import App
from mlscale.serve.hot_swap import Reloader, Source
from mlscale.serve.http.access import Access, check_exposure
from mlscale.serve.http.admission import RESERVED
from mlscale.serve.http.exchange import Connections, Limits
from mlscale.serve.http.listener import Listener
from mlscale.serve.http.responses import Answers
from mlscale.serve.http.sockets import Stop, allow_files, bound, grow_in_place, is_loopback, new_loop, stop_signal
from mlscale.serve.inference import Inference
from mlscale.serve.protocol.labels_route import LabelSink
from mlscale.serve.protocol.prometheus import Metrics
from mlscale.serve.served_model import Model
from mlscale.serve.workers import Workers
from mlscale.versions.trained_model import TrainedModel

_SWEEP_S = 1.0
_OTHER_FILES = 256
_UNREADY_S = 5.0
"""What a load balancer takes to notice, where one may be before the server."""


@dataclass(frozen=True)
class Settings:
    """How to serve; see conf/verb/serve.yaml."""

    host: str
    port: int
    max_queue: int
    limits: Limits
    drain_s: float
    unready_s: float | None
    follow: bool
    poll_s: float
    control: bool | None
    accept_change: bool
    ready_file: Path | None
    events: EventStore | None
    sample_share: float
    flush_s: float
    events_bytes: int
    access: Access
    tls: ssl.SSLContext | None
    behind_proxy: bool


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
        MLScaleError: the model can't be loaded, other machines could ask without a key, or the port not be had (exit
            code 5).
    """
    with bound(settings.host, settings.port) as listening:
        check_exposure(
            settings.host,
            loopback=is_loopback(listening),
            key=settings.access.key,
            tls=settings.tls is not None,
            behind_proxy=settings.behind_proxy,
        )
        located, model, instead = source.first()
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(_Server(source, settings, say, located, model, instead).run(listening))


class _Server:
    def __init__(
        self,
        source: Source,
        settings: Settings,
        say: Callable[[str], None],
        located: TrainedModel,
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
        self._workers = Workers(loop, answers)
        self._inference = Inference(
            loop,
            self._first,
            answers,
            self._workers,
            events,
            max_queue=settings.max_queue,
            body_bytes=settings.limits.body_bytes,
        )
        reloader = Reloader(
            self._source,
            self._located,
            self._first,
            self._swap,
            self._not_swapped,
            accept_change=settings.accept_change,
        )
        local = is_loopback(listening) and not settings.behind_proxy
        control = local if settings.control is None else settings.control
        load = self._loader(reloader) if control else None
        self._app = App(self._inference, answers, self._workers, self._access(local), sink, load)
        connections = Connections(settings.limits, self._app.screen, self._app.handle, answers.early)
        grow_in_place()
        allow_files(settings.limits.connections + RESERVED + _OTHER_FILES)
        gc.collect()
        gc.freeze()  # what is there stays: collections look at what requests make
        listener = Listener(listening, connections, settings.tls)
        tasks = [asyncio.create_task(self._each_second(connections, events))]
        if settings.follow:
            tasks.append(asyncio.create_task(reloader.follow(settings.poll_s)))
        if self._instead:
            self._app.stale = self._instead
            self._say(self._instead)
        self._announce(listening)
        await stop.wait()
        await self._unready(connections, stop, local)
        listener.close()
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

    def _access(self, local: bool) -> Access:
        """The name of `host` is the server's; names are checked where no proxy or key keeps other pages out."""
        access = self._settings.access
        return replace(access, bound=self._settings.host.lower(), check_host=local or bool(access.hosts))

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
        scheme = "https" if self._settings.tls else "http"
        url = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
        self._say(f"serving {self._first.version} on {url}")
        if self._settings.behind_proxy:
            needs = "" if self._settings.access.key else " and authenticate: this server asks for no key"
            self._say(f"behind_proxy=true: the proxy before it has to terminate TLS{needs}")
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

    async def _unready(self, connections: Connections, stop: Stop, local: bool) -> None:
        """Tell those that send clients here to send no more, and give them time; all is answered meanwhile."""
        self._app.ready, connections.draining = False, True
        seconds = self._settings.unready_s
        if seconds is None:
            seconds = 0.0 if local else _UNREADY_S
        if stop.by_person or not seconds:
            return
        self._say(f"not ready: for {seconds:g} s requests are answered as before")
        end = time.monotonic() + seconds
        while time.monotonic() < end and stop.count < 2:
            await asyncio.sleep(0.05)

    async def _drained(self, connections: Connections, stop: Stop) -> None:
        """Wait until every request was answered and read, for `drain_s` at most, or until told again."""
        end = time.monotonic() + self._settings.drain_s
        while (connections.all or not self._inference.idle) and time.monotonic() < end and stop.count < 2:
            connections.close_idle()
            await asyncio.sleep(0.01)

    def _close(self, reloader: Reloader, events: EventWriter | None, sink: LabelSink | None) -> None:
        self._inference.close()
        self._workers.close()
        reloader.close()
        if events:
            events.close()
        if sink:
            sink.close()
