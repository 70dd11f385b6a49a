"""The steps of an inference request: parse, batch, compute, encode, record as events.

Workers do what is slow (long JSON, images, compressed bodies), so that other requests need not wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, cast

import numpy as np

from mlscale.data.encoders.encoder import EncodedSamples
from mlscale.events.event_writer import EventWriter
from mlscale.serve.batcher import Batcher, InferenceJob
from mlscale.serve.http.exchange import COMPRESSED_TO, Exchange, compress_body
from mlscale.serve.http.request_error import Refused
from mlscale.serve.http.request_log import draw_id, format_trace, read_client_id, read_group, read_request_id
from mlscale.serve.http.responses import ResponseSender, check_method
from mlscale.serve.protocol import image_input as images
from mlscale.serve.protocol.predict_route import describe_large_body
from mlscale.serve.served_model import Outputs, ServedModel
from mlscale.serve.workers import INLINE_BYTES, INLINE_NUMBERS, Workers

Written = tuple[bytes, bytes, bytes]
"""A response: its body, its content type, and more header lines."""
_WRITTEN_BYTES = 256
"""Bytes of memory that a number takes while it is written as text."""


class ParsedRequest(Protocol):
    """A parsed request of any route: a named tuple; `ids` are there where the route takes one for each sample, `files`
    where it takes images that are not decoded yet."""

    @property
    def samples(self) -> EncodedSamples:
        """The n samples, as the graph takes them."""

    @property
    def id(self) -> str:
        """The client's; '' where it gave none."""

    def _replace(self, *, samples: EncodedSamples) -> ParsedRequest: ...


class InferenceProtocol(NamedTuple):
    """The functions that parse the requests of a route and encode its responses.

    Attributes:
        route: its name in metrics.
        limit: from a model, headers and the most rows to the most bytes of a body; None where that is not known.
        text_bytes: from a model, headers and a body to the number of bytes of JSON and texts in it.
        read: from a model, headers and a body to a request; raises Refused.
        numbers: from such a request and outputs to the count of numbers that the response will hold as text.
        has_files: from outputs to whether the response holds files that are read for it.
        select: from such a request and outputs to those that the response is written from.
        write: from a model, that request, ids and outputs to the response; raises Refused.
    """

    route: str
    limit: Callable[[ServedModel, Mapping[bytes, bytes], int], int | None]
    text_bytes: Callable[[ServedModel, Mapping[bytes, bytes], bytes | bytearray], int]
    read: Callable[[ServedModel, Mapping[bytes, bytes], bytes | bytearray], ParsedRequest]
    numbers: Callable[[Any, Outputs], int]
    has_files: Callable[[Outputs], bool]
    select: Callable[[Any, Outputs], Outputs]
    write: Callable[[ServedModel, Any, Sequence[str], Outputs], Written]


class Inference:
    """Answers inference requests; to be used in the thread of the event loop only.

    Args:
        loop: the event loop.
        model: the version that answers the next requests; set another one to swap.
        answers: sends and counts responses.
        workers: run slow parsing and encoding outside the event loop.
        events: records predictions; None: they are not recorded.
        max_queue: the most samples that may wait.
        body_bytes: the most bytes of a request body, decompressed.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        model: ServedModel,
        answers: ResponseSender,
        workers: Workers,
        events: EventWriter | None,
        *,
        max_queue: int,
        body_bytes: int,
    ) -> None:
        self.model, self.events = model, events
        self.batcher = Batcher(loop, max_queue, self._record_batch)
        self._answers, self._workers, self._body_bytes = answers, workers, body_bytes

    @property
    def idle(self) -> bool:
        """True if every request was answered."""
        return self.batcher.idle and self._workers.idle

    def close(self) -> None:
        """End the threads; no request may wait."""
        self.batcher.close()

    def get_body_limit(self, protocol: InferenceProtocol, headers: Mapping[bytes, bytes]) -> int:
        """Return the most bytes that the body of a request may have, as sent and decompressed."""
        own = protocol.limit(self.model, headers, self.batcher.max_queue)
        return self._body_bytes if own is None else min(own, self._body_bytes)

    def refuse_large_body(self, headers: Mapping[bytes, bytes], limit: int) -> None:
        """Raise if a raw sample states a length over the limit.

        Raises:
            Refused: it does (413), or its type is not taken at all (415).
        """
        # Longer numbers are refused as such; a body without a length is limited as it arrives.
        stated = headers.get(b"content-length", b"0")[:20]
        if stated.isdigit() and int(stated) > limit:
            kind = images.parse_content_type(headers)
            raise describe_large_body(self.model, kind, int(stated), limit)

    def start_inference(self, exchange: Exchange, protocol: InferenceProtocol) -> None:
        """Start an inference request; the response is sent when its batch was computed."""
        exchange.route = protocol.route
        check_method(exchange, b"POST")
        if b"content-encoding" in exchange.headers:
            # The model is bound here: a swap while the body is decompressed does not affect this request.
            read = partial(self._read_request, exchange, self.model, protocol)
            limit = self.get_body_limit(protocol, exchange.headers)
            self._workers.unpack_body(exchange, limit, read, partial(self._reject_request, exchange))
        else:
            self._read_request(exchange, self.model, protocol)

    def _read_request(self, exchange: Exchange, model: ServedModel, protocol: InferenceProtocol) -> None:
        headers, body = exchange.headers, exchange.body
        reject, submit = (
            partial(self._reject_request, exchange),
            partial(self._submit_request, exchange, model, protocol),
        )
        # The process gets `model.portable`: an engine can't be pickled.
        call = (protocol.read, model.portable, headers, body)
        try:
            most = INLINE_BYTES // model.byte_cost
            if len(body) > most and protocol.text_bytes(model, headers, body) > most:
                memory_bytes = model.limits.json_memory_bytes
                self._workers.run_in_process(exchange, call, submit, reject, memory_bytes=memory_bytes)
            elif images.parse_content_type(headers) in images.KINDS:
                memory_bytes = images.estimate_memory_bytes(model)
                self._workers.run_image_decoding(exchange, call, submit, reject, memory_bytes=memory_bytes)
            else:
                submit(protocol.read(model, headers, body))
        except Refused as refused:
            reject(refused)

    def _submit_request(
        self, exchange: Exchange, model: ServedModel, protocol: InferenceProtocol, request: ParsedRequest
    ) -> None:
        if files := getattr(request, "files", ()):
            self._decode_files(exchange, model, protocol, request, files)
            return
        samples = request.samples
        named = request.id or read_request_id(exchange.headers)
        exchange.id = named  # of a refusal, too
        # Before there is an id for each of a million rows.
        self.batcher.refuse_if_overloaded(model, samples.rows)
        ids = self._build_ids(named, getattr(request, "ids", ()), samples.size)
        exchange.id = ids[0]
        done = partial(self._send_result, exchange, model, protocol, request, ids)
        job = InferenceJob(model, samples, ids, exchange.arrived, done, read_group(exchange.headers))
        self.batcher.submit_job(job)

    def _decode_files(
        self,
        exchange: Exchange,
        model: ServedModel,
        protocol: InferenceProtocol,
        request: ParsedRequest,
        files: Sequence[bytes],
    ) -> None:
        """Decode the images of a request, then submit it."""
        self.batcher.refuse_if_overloaded(model, len(files))

        def submit_decoded(samples: EncodedSamples) -> None:
            decoded = cast(Any, request)._replace(samples=samples, files=())
            self._submit_request(exchange, model, protocol, decoded)

        self._workers.run_image_decoding(
            exchange,
            (images.decode_image_samples, model.portable, list(files)),
            submit_decoded,
            partial(self._reject_request, exchange),
            memory_bytes=images.estimate_memory_bytes(model) + len(files) * model.tensor_bytes,
        )

    def _send_result(
        self,
        exchange: Exchange,
        model: ServedModel,
        protocol: InferenceProtocol,
        request: ParsedRequest,
        ids: Sequence[str],
        result: Outputs | Exception,
        began: float,
        seconds: float,
    ) -> None:
        exchange.began, exchange.compute_s = began, seconds
        if isinstance(result, Exception):
            trace = format_trace(exchange.headers)
            known = f" (id {ids[0]}, trace {trace})" if trace else f" (id {ids[0]})"
            self._answers.log(f"{model.version} failed{known}: {' '.join(str(result).split())[:500]}")
            self._record_unpredicted(ids, model, exchange, "failed", request.samples)
            self._answers.send_refusal(exchange, Refused(f"the model '{model.name}' failed on these inputs", 500))
            return
        refuse, send = partial(self._answers.send_refusal, exchange), partial(self._send_written, exchange, model)
        write = partial(protocol.write, model, request, ids, result)
        try:
            if (numbers := protocol.numbers(request, result)) > INLINE_NUMBERS:
                # Without the samples and other outputs, which are not needed: they would be copied to the process.
                slim, selected = request._replace(samples=EncodedSamples({}, {})), protocol.select(request, result)
                call = (protocol.write, model.portable, slim, ids, selected)
                compress = partial(_compress_written, exchange)
                self._workers.run_in_process(
                    exchange, call, send, refuse, compress, memory_bytes=numbers * _WRITTEN_BYTES
                )
                return
            if protocol.has_files(result):  # to read them takes milliseconds, in which others are not stopped
                self._workers.run_in_thread(exchange, lambda: _compress_written(exchange, write()), send, refuse)
                return
            written = write()
        except Refused as refused:
            refuse(refused)
            return
        if len(written[0]) > COMPRESSED_TO and b"accept-encoding" in exchange.headers:
            self._workers.run_in_thread(exchange, partial(_compress_written, exchange, written), send, refuse)
        else:
            send(written)

    def _send_written(self, exchange: Exchange, model: ServedModel, written: Written) -> None:
        body, kind, headers = written
        headers += b"mlscale-version: %b\r\nmlscale-id: %b\r\n" % (model.version.encode(), exchange.id.encode())
        self._answers.send_body(exchange, body, kind, headers)

    def _build_ids(self, named: str, client_ids: Sequence[str], rows: int) -> Sequence[str]:
        """Return an id for each sample: the client's, or a generated one."""
        if client_ids:
            return client_ids
        named = named or draw_id()
        return [named] if rows == 1 else [f"{named}-{row}" for row in range(rows)]

    # Events

    def _record_batch(
        self,
        model: ServedModel,
        jobs: Sequence[InferenceJob],
        samples: EncodedSamples,
        outputs: Outputs,
        seconds: float,
    ) -> None:
        """Count a batch, and record its events."""
        metrics = self._answers.metrics
        metrics.batches.add_value(samples.rows)
        metrics.compute_s += seconds
        predicted = int(np.count_nonzero(outputs.finite))
        metrics.predictions[model.version] += predicted
        if predicted < samples.size:
            metrics.unpredicted[model.version, "failed"] += samples.size - predicted
        if self.events is None:
            return
        now = time.perf_counter()
        latency = [1000 * (now - job.arrived) for job in jobs for _ in job.ids]
        ids = [id_ for job in jobs for id_ in job.ids]
        self.events.add_events(
            ids,
            subject=model.event_subject,
            samples=samples,
            predictions=outputs.columns,
            is_finite=outputs.finite,
            latency_ms=latency,
            groups=[job.group for job in jobs for _ in job.ids],
        )

    def _reject_request(self, exchange: Exchange, refused: Refused) -> None:
        """Refuse a request and record an event for it, except where the server is overloaded (503)."""
        # Recording an event for each refusal would add load when there is too much already.
        if refused.status != 503:
            # Not by an id of the client's: it may send the request again, and label the prediction by that.
            id_ = draw_id()
            self._record_unpredicted([id_], self.model, exchange, "rejected", None)
            exchange.id = refused.request_id or read_client_id(exchange.headers) or id_
        self._answers.send_refusal(exchange, refused)

    def _record_unpredicted(
        self, ids: Sequence[str], model: ServedModel, exchange: Exchange, outcome: str, samples: EncodedSamples | None
    ) -> None:
        """Record an event for a request without a prediction."""
        self._answers.metrics.unpredicted[model.version, outcome] += len(ids)
        if self.events is not None:
            spent = 1000 * (time.perf_counter() - exchange.arrived)
            self.events.add_events(ids, subject=model.event_subject, samples=samples, latency_ms=spent, outcome=outcome)


def _compress_written(exchange: Exchange, written: Written) -> Written:
    body, kind, headers = written
    body, headers = compress_body(body, headers, exchange.headers)
    return body, kind, headers
