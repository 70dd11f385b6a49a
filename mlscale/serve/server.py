"""The life cycle of the server: load, listen, answer, follow the alias, drain."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import shlex
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mlscale.atomic_files import write_json
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.errors import MLScaleError
from mlscale.events.event_writer import EventWriter
from mlscale.events.store import EventStore
from mlscale.report.text import format_count
from mlscale.serve.app import App
from mlscale.serve.hot_swap import ModelSource, Reloader
from mlscale.serve.http.access import Access, check_exposure
from mlscale.serve.http.admission import RESERVED
from mlscale.serve.http.connection import HttpConnection
from mlscale.serve.http.exchange import ConnectionLimits, Connections
from mlscale.serve.http.responses import ResponseSender
from mlscale.serve.http.sockets import (
    StopSignal,
    allow_files,
    bind_socket,
    create_event_loop,
    install_stop_signal,
    is_loopback,
    set_mmap_threshold,
)
from mlscale.serve.inference import Inference
from mlscale.serve.prometheus import ServerMetrics
from mlscale.serve.protocol.labels_route import LabelQuota, LabelSink
from mlscale.serve.protocol.openapi import build_example
from mlscale.serve.served_model import ServedModel
from mlscale.serve.workers import Workers
from mlscale.versions.trained_model import TrainedModel

_SWEEP_S = 1.0
_OTHER_FILES = 256
_UNREADY_S = 5.0
"""Seconds that a load balancer in front of the server may take to notice that it is not ready."""


@dataclass(frozen=True)
class ServerSettings:
    """The settings of `mlscale serve`; conf/command/serve.yaml explains each."""

    host: str
    port: int
    max_queue: int
    limits: ConnectionLimits
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
    labels_bytes: int
    labels_per_hour: int | None
    access: Access
    tls: ssl.SSLContext | None
    behind_proxy: bool
    access_log: bool


@dataclass(frozen=True)
class ServerSummary:
    """The summary of a server that has stopped.

    Attributes:
        metrics: its counters.
        version: the version that served last.
        seconds: the time from its start to its end.
        events, dropped: counts of the events that were written, and lost.
        runtime: the engine that computed them, in words.
    """

    metrics: ServerMetrics
    version: str
    seconds: float
    events: int
    dropped: int
    runtime: str = ""


def serve_model(source: ModelSource, settings: ServerSettings, log: Callable[[str], None]) -> ServerSummary:
    """Serve until SIGTERM or SIGINT; then answer the open requests, write the events, and return.

    Args:
        source: locates and loads the model.
        settings: the settings of `mlscale serve`.
        log: writes a line to the log.

    Raises:
        MLScaleError: the model can't be loaded, other machines could send requests without a key, or the port is not
            available (exit code 5).
    """
    # The port before the model: a port in use is reported at once, not after a load of seconds.
    with bind_socket(settings.host, settings.port) as listening:
        check_exposure(
            settings.host,
            loopback=is_loopback(listening),
            key=settings.access.key,
            tls=settings.tls is not None,
            behind_proxy=settings.behind_proxy,
        )
        located, model, instead = source.load_first()
        with asyncio.Runner(loop_factory=create_event_loop) as runner:
            return runner.run(_Server(source, settings, log, located, model, instead).run(listening))


class _Server:
    def __init__(
        self,
        source: ModelSource,
        settings: ServerSettings,
        log: Callable[[str], None],
        located: TrainedModel,
        model: ServedModel,
        instead: str,
    ) -> None:
        self._source, self._settings, self._log = source, settings, log
        self._located, self._first, self._instead = located, model, instead

    async def run(self, listening: socket.socket) -> ServerSummary:
        """Serve from the first request to the last, then release everything."""
        settings, begin = self._settings, time.monotonic()
        loop = asyncio.get_running_loop()
        stop = install_stop_signal(loop)
        self._metrics = ServerMetrics()
        answers = ResponseSender(self._metrics, self._log, access_log=settings.access_log)
        store = settings.events
        events = self._create_event_writer(store) if store else None
        sink = LabelSink(store, loop, self._settings.labels_bytes) if store else None
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
            self._swap_model,
            self._record_failed_swap,
            accept_change=settings.accept_change,
        )
        # A proxy makes every client look local, so a loopback address proves nothing behind one.
        local = is_loopback(listening) and not settings.behind_proxy
        control = local if settings.control is None else settings.control
        load = self._create_loader(reloader) if control else None
        quota = LabelQuota(settings.labels_per_hour)
        self._app = App(self._inference, answers, self._workers, self._build_access(local), sink, quota, load)
        connections = Connections(
            settings.limits, self._app.screen_request, self._app.handle_exchange, answers.send_early_refusal
        )
        self._inference.batcher.is_alone = lambda: len(connections.all) == 1
        set_mmap_threshold()
        # Each connection is a file; the default limit of a shell would refuse clients before `max_connections` does.
        allow_files(settings.limits.connections + RESERVED + _OTHER_FILES)
        gc.collect()
        gc.freeze()  # later collections skip the objects that exist now
        listener = Listener(listening, connections, settings.tls)
        tasks = [asyncio.create_task(self._run_each_second(connections, events))]
        if settings.follow:
            tasks.append(asyncio.create_task(reloader.follow_alias(settings.poll_s)))
        if self._instead:
            self._app.stale = self._instead
            self._log(self._instead)
        self._announce_address(listening)
        await stop.wait()
        # Before the backlog is closed: the server answers while load balancers take it out.
        await self._wait_unready(connections, stop, local)
        listener.close()
        if settings.ready_file:
            with contextlib.suppress(OSError):  # the drain matters more
                settings.ready_file.unlink()
        self._log(f"stopping: {self._inference.batcher.rows} rows wait")
        await self._drain_connections(connections, stop)
        # Cancelled only now: the sweep enforces the time limits of connections during the drain, too.
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in list(connections.all):
            connection.abort()
        # In a thread: the events are written to disk, which may take long.
        await loop.run_in_executor(None, self._close_all, reloader, events, sink)
        written = events.written if events else 0
        dropped = events.dropped if events else 0
        model = self._inference.model
        return ServerSummary(self._metrics, model.version, time.monotonic() - begin, written, dropped, model.runtime)

    def _build_access(self, local: bool) -> Access:
        """Return the access rules: `host` is a name of the server, and names are checked where no proxy or key protects
        it from other web pages."""
        access = self._settings.access
        return replace(access, bound=self._settings.host.lower(), check_host=local or bool(access.hosts))

    def _create_event_writer(self, store: EventStore) -> EventWriter:
        settings = self._settings
        return store.open_writer(
            self._first.name,
            flush_s=settings.flush_s,
            sample_share=settings.sample_share,
            max_bytes=settings.events_bytes,
        )

    def _announce_address(self, listening: socket.socket) -> None:
        host, port = listening.getsockname()[:2]
        scheme = "https" if self._settings.tls else "http"
        url = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
        self._log(f"serving {self._first.version} on {url}")
        self._log(f"computed by {self._first.runtime}, {format_count(self._source.runtime.threads, 'thread')}")
        self._log(f"try it    {build_request_line(self._first, url, needs_key=bool(self._settings.access.key))}")
        if self._settings.behind_proxy:
            needs = "" if self._settings.access.key else " and authenticate: this server asks for no key"
            self._log(f"behind_proxy=true: the proxy before it has to terminate TLS{needs}")
        # The ready file is last: whoever waits for it may send requests at once.
        if self._settings.ready_file:
            write_json(self._settings.ready_file, {"url": url, "pid": os.getpid(), "version": self._first.version})

    def _swap_model(self, model: ServedModel) -> None:
        """Swap the model: one assignment, between two batches."""
        before, self._inference.model = self._inference.model, model
        self._app.stale = ""
        self._metrics.swaps["ok"] += 1
        self._log(f"serving {model.version}, {before.version} before")

    def _record_failed_swap(self, why: str) -> None:
        """Record that no swap took place, and why; '' where none was needed."""
        if why:
            self._metrics.swaps["failed"] += 1
            self._log(why)
        self._app.stale = why

    def _create_loader(self, reloader: Reloader) -> Any:
        # asyncio holds tasks by weak references only: without this set one could be collected while it runs.
        running: set[asyncio.Task[None]] = set()

        async def run_load(ref: str | None, accept_change: bool, done: Callable[[MLScaleError | None], None]) -> None:
            try:
                await reloader.load_version(ref, accept_change=accept_change)
            except MLScaleError as error:
                done(error)
            except Exception as error:
                self._log(f"a bug in mlscale: load: {error!r}")
                done(MLScaleError("internal error"))
            else:
                done(None)

        def start_load(ref: str | None, accept_change: bool, done: Callable[[MLScaleError | None], None]) -> None:
            task = asyncio.get_running_loop().create_task(run_load(ref, accept_change, done))
            running.add(task)
            task.add_done_callback(running.discard)

        return start_load

    async def _run_each_second(self, connections: Connections, events: EventWriter | None) -> None:
        """Close connections that are too slow, and log once why events are lost; every second until cancelled."""
        reported = ""
        while True:
            await asyncio.sleep(_SWEEP_S)
            connections.close_overdue()
            problem = events.problem if events else ""
            if problem != reported:
                self._log(f"events are lost: {problem}" if problem else "events are kept again")
                reported = problem

    async def _wait_unready(self, connections: Connections, stop: StopSignal, local: bool) -> None:
        """Turn readiness off and give load balancers time to notice; requests are answered meanwhile."""
        self._app.ready, connections.draining = False, True
        seconds = self._settings.unready_s
        if seconds is None:
            seconds = 0.0 if local else _UNREADY_S
        # Ctrl-C is a person who waits, not a load balancer.
        if stop.by_person or not seconds:
            return
        self._log(f"not ready: for {seconds:g} s requests are answered as before")
        end = time.monotonic() + seconds
        while time.monotonic() < end and stop.count < 2:
            await asyncio.sleep(0.05)

    async def _drain_connections(self, connections: Connections, stop: StopSignal) -> None:
        """Wait until every request was answered and read, for `drain_s` at most, or until a second signal."""
        end = time.monotonic() + self._settings.drain_s
        while (connections.all or not self._inference.idle) and time.monotonic() < end and stop.count < 2:
            connections.close_idle()
            await asyncio.sleep(0.01)

    def _close_all(self, reloader: Reloader, events: EventWriter | None, sink: LabelSink | None) -> None:
        self._inference.close()
        self._workers.close()
        reloader.close()
        if events:
            events.close()
        if sink:
            sink.close()


_BACKLOG, _AT_ONCE, _PAUSE_S = 1024, 64, 0.1


class Listener:
    """Creates a `HttpConnection` for each client; to be used in the thread of the event loop only.

    asyncio's own servers count a TLS client after its handshake: clients that never complete one are not counted, and
    hold a file each. Here each counts from the start.

    Args:
        listening: a bound socket.
        shared: the state that connections share.
        context: the TLS context; None: no TLS.
    """

    def __init__(self, listening: socket.socket, shared: Connections, context: ssl.SSLContext | None) -> None:
        self._listening, self._shared, self._context = listening, shared, context
        self._loop = asyncio.get_running_loop()
        self._negotiating: set[asyncio.Task[None]] = set()
        listening.setblocking(False)
        listening.listen(_BACKLOG)
        self._start_accepting()

    def close(self) -> None:
        """Accept the clients in the backlog, then stop listening."""
        self._loop.remove_reader(self._listening)
        while self._accept_some():
            pass
        self._listening.close()

    def _start_accepting(self) -> None:
        if self._listening.fileno() >= 0:
            self._loop.add_reader(self._listening, self._accept_some)

    def _accept_some(self) -> bool:
        """Accept some clients; return whether there may be more."""
        # At most some at once, so that a flood of clients does not stop the requests of others.
        for _ in range(_AT_ONCE):
            try:
                client, peer = self._listening.accept()
            except BlockingIOError:
                return False
            except OSError:  # the client is gone, or no file descriptors are left
                # A listening socket without file descriptors stays readable: the loop would spin.
                self._loop.remove_reader(self._listening)
                self._loop.call_later(_PAUSE_S, self._start_accepting)
                return False
            client.setblocking(False)
            with contextlib.suppress(OSError):
                # Without this a small response may wait for the client's delayed acknowledgement, 40 ms on Linux.
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = HttpConnection(self._shared)
            task = self._loop.create_task(self._negotiate_connection(connection, client))
            self._negotiating.add(task)
            task.add_done_callback(partial(self._finish_negotiation, connection, client))
            # Before `connection_made`, which TLS calls after the handshake only: limits and deadline hold from here.
            connection.register_peer(peer, task.cancel)
        return True

    async def _negotiate_connection(self, connection: HttpConnection, client: socket.socket) -> None:
        seconds = None if self._context is None else self._shared.limits.head_s
        await self._loop.connect_accepted_socket(
            lambda: connection, client, ssl=self._context, ssl_handshake_timeout=seconds
        )

    def _finish_negotiation(self, connection: HttpConnection, client: socket.socket, task: asyncio.Task[None]) -> None:
        """Close a client whose TLS handshake failed, took too long, or was aborted."""
        self._negotiating.discard(task)
        if task.cancelled() or task.exception() is not None:
            client.close()
            connection.connection_lost(None)


_MOST_CHARACTERS = 400  # of a row: a longer one would hide the lines above it


def build_request_line(model: ServedModel, url: str, *, needs_key: bool) -> str:
    """Return the curl command for a sample of the model's kind; where no such line is short, the address of examples.

    Args:
        model: that is served.
        url: of the server.
        needs_key: requests need the server's key.
    """
    body = _format_body(model)
    if body is None:
        return f"{url}/openapi.json describes what to send"
    key = " -H 'x-api-key: <the key>'" if needs_key else ""
    return f"curl -s{key} {body} {url}/predict"


def _format_body(model: ServedModel) -> str | None:
    encoder = model.servable.encoder
    if encoder.kind == "image":
        return "-H 'Content-Type: image/jpeg' --data-binary @photo.jpg"
    if encoder.kind in ("text", "document"):
        return "-H 'Content-Type: text/plain' --data-binary 'a text'"
    if isinstance(encoder, TableEncoder):
        row = json.dumps(build_example(encoder.describe_raw_input())["example"], ensure_ascii=False)
        return f"-d {shlex.quote(row)}" if len(row) <= _MOST_CHARACTERS else None
    return None
