"""A request for inference from its bytes to its answer: read, batched, computed, written, kept as events.

What takes long to read or write (long JSON, images, compressed bodies) is done in threads, so that nobody waits for it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import count
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlscale.events.writer import EventWriter
from mlscale.serve.answers import Answers, only
from mlscale.serve.batcher import Batcher, Job
from mlscale.serve.http import Exchange, body_of
from mlscale.serve.model import Model, Outputs
from mlscale.serve.refused import Refused

_LONG_BODY, _LONG_ANSWER = 256 << 10, 50_000
"""Bytes of a body, numbers of an answer."""
_THREADS = 2


class Protocol(NamedTuple):
    """How requests of a route are read, and answers written.

    Attributes:
        route: its name in metrics.
        read: from a model, headers and a body to a request with `raw`, `id` and perhaps `ids`; raises Refused.
        write: from a model, that request, ids and outputs to a body, its type, and lines of the head; raises Refused.
    """

    route: str
    read: Callable[[Model, Mapping[bytes, bytes], bytes], Any]
    write: Callable[[Model, Any, Sequence[str], Outputs], tuple[bytes, bytes, bytes]]


class Inference:
    """Answers requests for inference; for the thread of the event loop.

    Args:
        loop: the event loop.
        model: the version that answers what arrives from now on; set another one to swap.
        answers: how clients are answered.
        events: where predictions go; None: nowhere.
        max_queue: samples that may wait.
        body_bytes: of a request, unpacked, at most.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        model: Model,
        answers: Answers,
        events: EventWriter | None,
        *,
        max_queue: int,
        body_bytes: int,
    ) -> None:
        self.model, self.events = model, events
        self.batcher = Batcher(loop, max_queue, self._computed)
        self._loop, self._answers, self._body_bytes = loop, answers, body_bytes
        self._threads = ThreadPoolExecutor(_THREADS, "read")
        self._token, self._count = secrets.token_hex(6), count()
        self._in_threads = 0

    @property
    def idle(self) -> bool:
        """Whether every request was answered."""
        return self.batcher.idle and not self._in_threads

    def close(self) -> None:
        """End the threads; nothing may wait."""
        self.batcher.close()
        self._threads.shutdown(wait=True)

    def infer(self, exchange: Exchange, protocol: Protocol) -> None:
        """Answer a request, later."""
        exchange.route = protocol.route
        only(exchange, b"POST")
        model, headers = self.model, exchange.headers
        image = headers.get(b"content-type", b"").startswith(b"image/")
        if len(exchange.body) > _LONG_BODY or image or b"content-encoding" in headers:

            def read() -> Any:
                return protocol.read(model, headers, body_of(exchange, self._body_bytes))

            self._threaded(exchange, read, partial(self._submit, exchange, model, protocol))
            return
        try:
            self._submit(exchange, model, protocol, protocol.read(model, headers, exchange.body))
        except Refused as refused:
            self._reject(exchange, refused)

    def _submit(self, exchange: Exchange, model: Model, protocol: Protocol, request: Any) -> None:
        ids = self._ids(request.id, getattr(request, "ids", ()), len(request.raw))
        done = partial(self._done, exchange, model, protocol, request, ids)
        self.batcher.submit(Job(model, request.raw, ids, exchange.arrived, done))

    def _done(
        self,
        exchange: Exchange,
        model: Model,
        protocol: Protocol,
        request: Any,
        ids: Sequence[str],
        said: Outputs | Exception,
    ) -> None:
        if isinstance(said, Exception):
            self._answers.say(f"{model.version} failed: {' '.join(str(said).split())[:500]}")
            self._nothing(ids, model, exchange, "failed", request.raw)
            self._answers.refuse(exchange, Refused(f"the model '{model.name}' failed on these inputs", 500))
            return
        named = b"mlscale-version: %b\r\nmlscale-id: %b\r\n" % (model.version.encode(), ids[0].encode())

        def send(written: tuple[bytes, bytes, bytes]) -> None:
            self._answers.plain(exchange, written[0], written[1], written[2] + named)

        write = partial(protocol.write, model, request, ids, said)
        if said.probabilities.size > _LONG_ANSWER:
            self._threaded(exchange, write, send)
            return
        try:
            send(write())
        except Refused as refused:
            self._answers.refuse(exchange, refused)

    def _threaded(self, exchange: Exchange, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Do `work` in a thread and go on with what it gives; answer where it refuses, or breaks."""
        self._in_threads += 1

        def back(done: Future[Any]) -> None:
            self._in_threads -= 1
            try:
                then(done.result())
            except Refused as refused:
                self._reject(exchange, refused)
            except Exception as error:
                self._answers.broken(exchange, error)

        future = self._threads.submit(work)
        future.add_done_callback(lambda done: self._loop.call_soon_threadsafe(back, done))

    def _ids(self, named: str, each: Sequence[str], rows: int) -> Sequence[str]:
        """An id for each sample: the client's, or one of ours."""
        if each:
            return each
        named = named or f"{self._token}-{next(self._count):x}"
        return [named] if rows == 1 else [f"{named}-{row}" for row in range(rows)]

    # Events

    def _computed(self, model: Model, jobs: Sequence[Job], raw: NDArray[Any], said: Outputs, seconds: float) -> None:
        """Count a batch, and keep its events."""
        metrics = self._answers.metrics
        metrics.batches.add(len(raw))
        metrics.compute_s += seconds
        metrics.predictions[model.version] += len(raw)
        if self.events is None:
            return
        now = time.perf_counter()
        spent = np.array([1000 * (now - job.arrived) for job in jobs], np.float32)
        latency = np.repeat(spent, [len(job.raw) for job in jobs])
        ids = [id_ for job in jobs for id_ in job.ids]
        finite = np.isfinite(said.probabilities).all(-1)
        if not finite.all():
            odd = np.flatnonzero(~finite)
            self.events.add(
                [ids[row] for row in odd],
                version=model.version,
                raw=raw[odd],
                latency_ms=latency[odd],
                outcome="failed",
            )
            rows = np.flatnonzero(finite)
            ids, raw, said, latency = [ids[row] for row in rows], raw[rows], said.take(rows), latency[rows]
        if ids:
            self.events.add(
                ids,
                version=model.version,
                raw=raw,
                labels=said.labels,
                probabilities=said.probabilities,
                latency_ms=latency,
            )

    def _reject(self, exchange: Exchange, refused: Refused) -> None:
        """Refuse a request, and keep that it was; not where there is too much to do already."""
        if refused.status != 503:
            self._nothing([f"{self._token}-{next(self._count):x}"], self.model, exchange, "rejected", None)
        self._answers.refuse(exchange, refused)

    def _nothing(
        self, ids: Sequence[str], model: Model, exchange: Exchange, outcome: str, raw: NDArray[Any] | None
    ) -> None:
        """Keep that a request came to nothing."""
        if self.events is not None:
            spent = 1000 * (time.perf_counter() - exchange.arrived)
            self.events.add(ids, version=model.version, raw=raw, latency_ms=spent, outcome=outcome)
