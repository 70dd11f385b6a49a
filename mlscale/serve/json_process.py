"""A process that reads and writes long JSON, or decodes large images: Python's decoders hold the interpreter's lock
from the first byte to the last, and Pillow's for parts of it, so a thread would stop the event loop as well.

It starts when it is first needed, runs one call at a time, each within a limit of memory, and is replaced when it dies,
takes too long or too much. Arrays and long answers pass without a copy that would hold the lock of the server.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from mlscale.serve.http.request_error import Refused

_LONGEST_S = 30.0
_SPARE_BYTES = 64 << 20
"""Of memory that any call may take: what libraries set up on their first use."""
_LONG_BYTES = 1 << 20
"""Of an answer, that are sent as they are."""
_TOO_MUCH = "the request takes too much memory"
_START = "import sys; sys.path[:] = sys.argv[1:]; from mlscale.serve.json_process import main; main()"


class JsonProcess:
    """Calls functions in another process; for one thread at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._calls: Connection | None = None
        self._answers: Connection | None = None

    def call(self, function: Callable[..., Any], *arguments: Any, memory_bytes: int) -> Any:
        """Return what `function`, of a module, returns. A body, the last argument, is not copied on the way.

        Args:
            function: what is called in the process.
            arguments: of the function.
            memory_bytes: that the call may take besides its arguments and four times the body.

        Raises:
            Refused: the function did so; it took more memory (413); or the process died or took too long (503).
        """
        process, calls, answers = self._started()
        body = arguments[-1] if isinstance(arguments[-1], bytes | bytearray) else None
        late = threading.Timer(_LONGEST_S, process.kill)
        late.start()
        try:
            most = memory_bytes + _SPARE_BYTES + (0 if body is None else 4 * len(body))
            _send(calls, (function, arguments if body is None else arguments[:-1], body is not None, most))
            if body is not None:
                calls.send_bytes(body)
            outcome, value = _receive(answers)
        except (OSError, EOFError) as error:
            self.close()
            raise Refused("the request takes too much memory or time", 503, b"Retry-After: 1\r\n") from error
        finally:
            late.cancel()
        if outcome == "out of memory":  # what is left of the call may fill it
            self.close()
        if outcome != "ok":
            raise Refused(*value)
        return value

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for pipe in (self._calls, self._answers):
            if pipe is not None:
                pipe.close()
        self._process = self._calls = self._answers = None

    def _started(self) -> tuple[subprocess.Popen[bytes], Connection, Connection]:
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None or self._calls is None or self._answers is None:
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            words = [sys.executable, "-c", _START, *map(str, sys.path)]
            self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            with self._process.stdin as calls, self._process.stdout as answers:
                self._calls = Connection(os.dup(calls.fileno()), readable=False)
                self._answers = Connection(os.dup(answers.fileno()), writable=False)
        return self._process, self._calls, self._answers


def main() -> None:
    """Answer calls until the server is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which drains
    calls, answers = Connection(os.dup(0), writable=False), Connection(os.dup(1), readable=False)
    os.dup2(2, 1)  # what a library prints is no answer
    with contextlib.suppress(EOFError, OSError):
        while True:
            function, arguments, body_follows, most = _receive(calls)
            if body_follows:
                arguments = (*arguments, calls.recv_bytes())
            _send(answers, _answer(function, arguments, most))


def _answer(function: Callable[..., Any], arguments: tuple[Any, ...], most: int) -> tuple[str, Any]:
    """Return 'ok' and the value; or 'refused' or 'out of memory' and the arguments of the refusal."""
    try:
        with _memory_limit(most):
            return "ok", _as_buffers(function(*arguments))
    except Refused as refused:
        lacks = isinstance(refused.__cause__, MemoryError)
        return ("out of memory", (_TOO_MUCH, 413)) if lacks else ("refused", _arguments(refused))
    except MemoryError:
        return "out of memory", (_TOO_MUCH, 413)
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            return "out of memory", (_TOO_MUCH, 413)
        print(f"a bug of ours: {function.__name__}: {error!r}", file=sys.stderr, flush=True)
        return "refused", ("internal error", 500)


def _arguments(refused: Refused) -> tuple[str, int, bytes]:
    return refused.message, refused.status, refused.headers


@contextlib.contextmanager
def _memory_limit(most: int) -> Iterator[None]:
    """Let this process take `most` bytes more than it has, where the system can limit it: beyond, MemoryError."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        before = resource.getrlimit(resource.RLIMIT_AS)
    except (ImportError, OSError):  # not Linux
        yield
        return
    limit = pages * resource.getpagesize() + most
    if before[1] != resource.RLIM_INFINITY:
        limit = min(limit, before[1])
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _as_buffers(value: Any) -> Any:
    """Return a tuple with its long texts ready to be sent as they are; anything else as it is."""
    if not isinstance(value, tuple) or hasattr(value, "_fields"):
        return value
    return tuple(
        pickle.PickleBuffer(each) if isinstance(each, bytes) and len(each) > _LONG_BYTES else each for each in value
    )


def _send(pipe: Connection, value: Any) -> None:
    """Send a value; arrays follow it as they are in memory."""
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(value, 5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    pipe.send((pickled, [view.nbytes for view in views]))
    for view in views:
        while view.nbytes:
            view = view[os.write(pipe.fileno(), view) :]


def _receive(pipe: Connection) -> Any:
    """Receive what `_send` has sent.

    Raises:
        EOFError: the other side is gone.
    """
    pickled, sizes = pipe.recv()
    buffers = [np.empty(size, np.uint8) for size in sizes]
    for buffer in buffers:
        view = buffer.data
        while view.nbytes:
            count = os.readv(pipe.fileno(), [view])
            if not count:
                raise EOFError
            view = view[count:]
    return pickle.loads(pickled, buffers=buffers)  # noqa: S301 - the server and what it has started
