"""What would stop the event loop is done beside it: decompression and small images in threads, long JSON and large
images in processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

from mlscale.serve.http.exchange import Exchange, decompressed
from mlscale.serve.http.request_error import Refused
from mlscale.serve.http.responses import Answers
from mlscale.serve.json_process import JsonProcess
from mlscale.serve.protocol import image_input as images

INLINE_BYTES, INLINE_NUMBERS = 64 << 10, 4096
"""JSON that is read, and numbers that are written as JSON, in the event loop: some milliseconds of it."""
_THREADS = 2
_LARGE_IMAGES = 8
"""That may wait for the process, besides the one that is decoded: more would wait longer than clients do."""

_LARGE = object()
"""Says that an image was not decoded yet."""


class Workers:
    """Does work for exchanges; every method is for the thread of the event loop, where `then` is called, too.

    Args:
        loop: the event loop.
        answers: how clients are answered where the work fails.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, answers: Answers) -> None:
        self._loop, self._answers = loop, answers
        self._threads, self._one = ThreadPoolExecutor(_THREADS, "read"), ThreadPoolExecutor(1, "json")
        self._json, self._running = JsonProcess(), 0
        self._image = ThreadPoolExecutor(1, "image")
        self._images, self._large = JsonProcess(), 0

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits."""
        return not self._running

    def close(self) -> None:
        """End threads and process; nothing may wait."""
        self._threads.shutdown(wait=True)
        self._one.shutdown(wait=True)
        self._image.shutdown(wait=True)
        self._json.close()
        self._images.close()

    def unpack(
        self, exchange: Exchange, limit: int, then: Callable[[], None], reject: Callable[[Refused], None]
    ) -> None:
        """Put the decompressed body in place of a compressed one and go on with `then`."""
        if b"content-encoding" not in exchange.headers:
            then()
            return

        def unpacked(body: bytes | bytearray) -> None:
            exchange.hold(body)
            then()

        self.thread(exchange, lambda: decompressed(exchange.headers, exchange.body, limit), unpacked, reject)

    def thread(
        self,
        exchange: Exchange,
        work: Callable[[], Any],
        then: Callable[[Any], None],
        reject: Callable[[Refused], None],
    ) -> None:
        """Do `work` in a thread and go on with what it gives; answer where it breaks, call `reject` if it refuses."""
        self._run(self._threads, exchange, work, then, reject)

    def json(
        self,
        exchange: Exchange,
        call: tuple[Any, ...],
        then: Callable[[Any], None],
        reject: Callable[[Refused], None],
        after: Callable[[Any], Any] = lambda value: value,
        *,
        memory_bytes: int,
    ) -> None:
        """Like `thread`, for a call, (function, arguments…), in the process, which may take so much memory for it;
        `after` is done in the thread."""
        self._run(self._one, exchange, lambda: after(self._json.call(*call, memory_bytes=memory_bytes)), then, reject)

    def image(
        self,
        exchange: Exchange,
        call: tuple[Any, ...],
        then: Callable[[Any], None],
        reject: Callable[[Refused], None],
        *,
        memory_bytes: int,
    ) -> None:
        """Like `json`, for an image, the last argument; a small one is decoded in a thread, others in turn."""
        function, *arguments = call

        def small() -> Any:
            return _LARGE if images.is_large(arguments[-1]) else function(*arguments)

        def large() -> Any:
            try:
                return self._images.call(*call, memory_bytes=memory_bytes)
            finally:
                self._loop.call_soon_threadsafe(self._one_less)

        def go_on(value: Any) -> None:
            if value is not _LARGE:
                then(value)
                return
            if self._large > _LARGE_IMAGES:
                raise Refused("too many large images wait to be decoded", 503, b"Retry-After: 1\r\n")
            self._large += 1
            self._run(self._image, exchange, large, then, reject)

        self.thread(exchange, small, go_on, reject)

    def _one_less(self) -> None:
        self._large -= 1

    def _run(
        self,
        where: Executor,
        exchange: Exchange,
        work: Callable[[], Any],
        then: Callable[[Any], None],
        reject: Callable[[Refused], None],
    ) -> None:
        self._running += 1

        def back(done: Future[Any]) -> None:
            self._running -= 1
            try:
                then(done.result())
            except Refused as refused:
                reject(refused)
            except Exception as error:
                self._answers.broken(exchange, error)
            finally:
                del done  # its error's traceback holds this frame: the body would stay until a garbage collection

        future = where.submit(work)
        future.add_done_callback(lambda done: self._loop.call_soon_threadsafe(back, done))
