"""Runs slow work outside the event loop: decompression and small images in threads, long JSON and large images in
processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

from mlscale.serve.http.exchange import Exchange, decompress_body
from mlscale.serve.http.request_error import Refused
from mlscale.serve.http.responses import ResponseSender
from mlscale.serve.json_process import JsonProcess
from mlscale.serve.protocol import image_input as images

INLINE_BYTES, INLINE_NUMBERS = 64 << 10, 4096
"""Bytes of JSON that are parsed, and numbers that are written as JSON, in the event loop: some milliseconds of it."""
_THREADS = 2
_LARGE_IMAGES = 8
"""Large images that may wait while one is decoded: more would wait longer than clients do."""

_LARGE = object()
"""A marker: the image was not decoded yet, it is for the process."""


class Workers:
    """Runs work for exchanges; call its methods in the thread of the event loop, where `then` is called, too.

    Args:
        loop: the event loop.
        answers: answers clients whose work fails.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, answers: ResponseSender) -> None:
        self._loop, self._answers = loop, answers
        # One thread for each process: `JsonProcess` is for one thread, and its calls queue here.
        self._threads, self._one = ThreadPoolExecutor(_THREADS, "read"), ThreadPoolExecutor(1, "json")
        self._json, self._running = JsonProcess(), 0
        self._image = ThreadPoolExecutor(1, "image")
        # A process of their own: a large image takes seconds, and JSON must not wait for it.
        self._images, self._large = JsonProcess(), 0

    @property
    def idle(self) -> bool:
        """True if nothing runs or waits."""
        return not self._running

    def close(self) -> None:
        """End the threads and processes; no work may wait."""
        self._threads.shutdown(wait=True)
        self._one.shutdown(wait=True)
        self._image.shutdown(wait=True)
        self._json.close()
        self._images.close()

    def unpack_body(
        self, exchange: Exchange, limit: int, then: Callable[[], None], reject: Callable[[Refused], None]
    ) -> None:
        """Replace a compressed body by the decompressed one, then call `then`."""
        if b"content-encoding" not in exchange.headers:
            then()
            return

        def hold_unpacked(body: bytes | bytearray) -> None:
            exchange.replace_body(body)
            then()

        self.run_in_thread(
            exchange, lambda: decompress_body(exchange.headers, exchange.body, limit), hold_unpacked, reject
        )

    def run_in_thread(
        self,
        exchange: Exchange,
        work: Callable[[], Any],
        then: Callable[[Any], None],
        reject: Callable[[Refused], None],
    ) -> None:
        """Run `work` in a thread and call `then` with its result, or `reject` if it raises Refused; any other error is
        answered with status 500."""
        self._run_work(self._threads, exchange, work, then, reject)

    def run_in_process(
        self,
        exchange: Exchange,
        call: tuple[Any, ...],
        then: Callable[[Any], None],
        reject: Callable[[Refused], None],
        after: Callable[[Any], Any] = lambda value: value,
        *,
        memory_bytes: int,
    ) -> None:
        """Run a call, (function, arguments…), in the JSON process within `memory_bytes`, then `after` in the thread.
        Results and errors are handled as in `run_in_thread`."""
        self._run_work(
            self._one, exchange, lambda: after(self._json.call_function(*call, memory_bytes=memory_bytes)), then, reject
        )

    def run_image_decoding(
        self,
        exchange: Exchange,
        call: tuple[Any, ...],
        then: Callable[[Any], None],
        reject: Callable[[Refused], None],
        *,
        memory_bytes: int,
    ) -> None:
        """Decode images, the last argument of the call: a small one in a thread, others in turn in a process.
        Results and errors are handled as in `run_in_thread`."""
        function, *arguments = call

        def decode_small() -> Any:
            return _LARGE if images.is_large(arguments[0], arguments[-1]) else function(*arguments)

        def decode_large() -> Any:
            try:
                return self._images.call_function(*call, memory_bytes=memory_bytes)
            finally:
                # Counted in the event loop alone, where `go_on` reads it: no lock is needed.
                self._loop.call_soon_threadsafe(self._decrease_large)

        def handle_decoded(value: object) -> None:
            if value is not _LARGE:
                then(value)
                return
            # `>`: the image that is decoded is counted, too.
            if self._large > _LARGE_IMAGES:
                raise Refused("too many large images wait to be decoded", 503, b"Retry-After: 1\r\n")
            self._large += 1
            self._run_work(self._image, exchange, decode_large, then, reject)

        self.run_in_thread(exchange, decode_small, handle_decoded, reject)

    def _decrease_large(self) -> None:
        self._large -= 1

    def _run_work(
        self,
        where: Executor,
        exchange: Exchange,
        work: Callable[[], Any],
        then: Callable[[Any], None],
        reject: Callable[[Refused], None],
    ) -> None:
        self._running += 1

        def handle_result(done: Future[Any]) -> None:
            self._running -= 1
            try:
                then(done.result())
            except Refused as refused:
                reject(refused)
            except Exception as error:
                self._answers.send_internal_error(exchange, error)
            finally:
                del done  # its traceback refers to this frame: the body would stay until a garbage collection

        future = where.submit(work)
        # `work` runs in a worker thread, but connections and counters belong to the event loop.
        future.add_done_callback(lambda done: self._loop.call_soon_threadsafe(handle_result, done))
