"""Batches without a timer: a request alone is computed at once, those that arrive meanwhile are the next batch.

A request belongs to the version that was active when it arrived; a batch holds requests of one version.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.encoder import EncodedSamples, join_samples
from mlscale.serve.http.request_error import Refused
from mlscale.serve.served_model import Outputs, ServedModel


@dataclass(eq=False, slots=True)
class InferenceJob:
    """The samples of one request.

    Attributes:
        model: the version that answers it.
        samples: as the graph takes them.
        ids: one for each sample.
        arrived: `time.perf_counter` at the last byte of the request.
        done: called with the outputs or the error, the start of its batch (`time.perf_counter`) and its seconds.
        group: the user or session that sent it; None where it is not known.
    """

    model: ServedModel
    samples: EncodedSamples
    ids: Sequence[str]
    arrived: float
    done: Callable[[Outputs | Exception, float, float], None]
    group: str | None = None


class _Part(NamedTuple):
    """Jobs that were computed together, their samples, and the outputs or the error."""

    jobs: list[InferenceJob]
    samples: EncodedSamples
    result: Outputs | Exception


Computed = Callable[[ServedModel, Sequence[InferenceJob], EncodedSamples, Outputs, float], None]


@dataclass(eq=False)
class Batcher:
    """A queue that computes jobs in order of arrival, up to `max_batch` rows of their model at once; a larger job is
    computed by itself. To be used in the thread of the event loop only.

    Attributes:
        loop: the event loop.
        max_queue: the most rows that may wait.
        computed: called after each batch, before its jobs are answered: model, jobs, samples, outputs, seconds.
        is_alone: returns whether a single client is connected.
        rows: rows that wait.
    """

    loop: asyncio.AbstractEventLoop
    max_queue: int
    computed: Computed
    is_alone: Callable[[], bool] = lambda: False
    rows: int = 0
    _waiting: deque[InferenceJob] = field(default_factory=deque)
    _busy: bool = False
    _row_s: float = 0.0
    # One thread: batches of a model are computed one after the other, each with the threads of its engine.
    _worker: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "model"))

    def submit_job(self, job: InferenceJob) -> None:
        """Queue a job.

        Raises:
            Refused: the queue is full (503, with the seconds after which to try again), or the job exceeds it (400).
        """
        rows = job.samples.rows
        self.refuse_if_overloaded(job.model, rows)
        self._waiting.append(job)
        self.rows += rows
        if self._busy:
            return
        self._busy = True
        # At once for a lone client, whom each turn of the loop delays; else after all sockets that can be read now:
        # they make one batch.
        if self.is_alone():
            self._start_batch()
        else:
            self.loop.call_soon(self._start_batch)

    def refuse_if_overloaded(self, model: ServedModel, rows: int) -> None:
        """Raise unless as many rows may be submitted.

        Raises:
            Refused: see `submit_job`.
        """
        encoder = model.servable.encoder
        if rows > self.max_queue and isinstance(encoder, DocumentEncoder):
            read = f"{rows} windows of {encoder.length} {encoder.unit}s"
            raise Refused(
                f"the text is read in {read}; the server takes max_queue={self.max_queue} of them in a request"
            )
        if rows > self.max_queue:
            raise Refused(f"inference request batch-size must be <= {self.max_queue} for '{model.name}'")
        if self.rows + rows > self.max_queue:
            # A hint for Retry-After: the time that the samples in the queue take at the recent speed.
            seconds = max(1, math.ceil(self.rows * self._row_s))
            raise Refused(f"{self.rows} rows wait already; try again", 503, b"Retry-After: %d\r\n" % seconds)

    @property
    def idle(self) -> bool:
        """True if no job waits or runs."""
        return not self._busy

    def close(self) -> None:
        """End the worker thread; no job may wait."""
        self._worker.shutdown(wait=True)

    def _start_batch(self) -> None:
        if not self._waiting:
            self._busy = False
            return
        jobs = self._take_jobs()
        model = jobs[0].model
        begin = time.perf_counter()
        # No thread: it would cost more than a small model takes. Sockets have their turn before the next batch.
        if model.inline and sum(job.samples.rows for job in jobs) <= model.max_batch:
            part = _compute_together(jobs)
            # Otherwise the batch is computed again in the thread, each job by itself.
            if len(jobs) == 1 or not isinstance(part.result, Exception):
                self._finish_part(part, begin, time.perf_counter() - begin)
                self._busy = bool(self._waiting)
                if self._busy:
                    self.loop.call_soon(self._start_batch)
                return
        future = self._worker.submit(_compute_parts, jobs)

        # Runs in the worker thread: everything else belongs to the event loop.
        def forward_parts(done: Future[list[_Part]]) -> None:
            self.loop.call_soon_threadsafe(self._finish_parts, done.result(), begin, time.perf_counter() - begin)

        future.add_done_callback(forward_parts)

    def _finish_parts(self, parts: list[_Part], begin: float, seconds: float) -> None:
        for part in parts:
            self._finish_part(part, begin, seconds)
        self._start_batch()

    def _take_jobs(self) -> list[InferenceJob]:
        """Return the first job, and those behind it of the same version that fit into the batch."""
        first = self._waiting.popleft()
        jobs, rows = [first], first.samples.rows
        # A batch never mixes versions, and never overtakes: it ends at the first job of another version.
        while self._waiting and self._waiting[0].model is first.model:
            if rows + self._waiting[0].samples.rows > first.model.max_batch:
                break
            jobs.append(self._waiting.popleft())
            rows += jobs[-1].samples.rows
        self.rows -= rows
        return jobs

    def _finish_part(self, part: _Part, begin: float, seconds: float) -> None:
        jobs, samples, result = part
        if isinstance(result, Exception):
            jobs[0].done(result, begin, seconds)
            return
        # Exponential moving average of the seconds per row.
        self._row_s += 0.1 * (seconds / max(1, samples.rows) - self._row_s)
        self.computed(jobs[0].model, jobs, samples, result, seconds)
        if len(jobs) == 1:
            jobs[0].done(result, begin, seconds)
            return
        at = 0
        for job in jobs:
            job.done(result[at : at + job.samples.size], begin, seconds)
            at += job.samples.size


def _compute_parts(jobs: list[InferenceJob]) -> list[_Part]:
    """Compute jobs together; where that fails, each by itself, since one of them may have caused the failure."""
    part = _compute_together(jobs)
    if len(jobs) == 1 or not isinstance(part.result, Exception):
        return [part]
    return [_compute_together([job]) for job in jobs]


def _compute_together(jobs: list[InferenceJob]) -> _Part:
    samples = join_samples([job.samples for job in jobs])
    try:
        return _Part(jobs, samples, jobs[0].model.compute(samples))
    except Exception as error:  # whatever a graph does: it must not end the server
        return _Part(jobs, samples, error.with_traceback(None))  # the traceback would keep the inputs in memory
