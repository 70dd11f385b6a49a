"""A process that parses and writes long JSON, or decodes large images: Python's JSON decoder holds the GIL from the
first byte to the last, and Pillow for parts of its work, so a thread would stop the event loop as well.

It starts when it is first needed, runs one call at a time, each within a limit of memory, and is replaced when it dies,
takes too long or too much memory. Arrays and long answers are sent without a copy that would hold the server's GIL.
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
"""Bytes of memory that any call may take: libraries allocate on their first use."""
_LONG_BYTES = 1 << 20
"""Bytes of an answer from which it is sent without pickling."""
_TOO_MUCH = "the request takes too much memory"
_START = "import sys; sys.path[:] = sys.argv[1:]; from mlscale.serve.json_process import main; main()"


class JsonProcess:
    """Calls functions in a child process; to be used by one thread at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._calls: Connection | None = None
        self._answers: Connection | None = None

    def call_function(self, function: Callable[..., Any], *arguments: object, memory_bytes: int) -> Any:
        """Call `function` (of a module) in the process and return its result; a body as last argument is sent uncopied.

        Args:
            function: the function to call.
            arguments: its arguments.
            memory_bytes: memory that the call may take in addition to its arguments and four times the body.

        Raises:
            Refused: the function raised it; it took too much memory (413); the process died or took too long (503).
        """
        process, calls, answers = self._ensure_process()
        body = arguments[-1] if isinstance(arguments[-1], bytes | bytearray) else None
        # A blocked read can't be interrupted from here, but ends with EOFError once the process is killed.
        late = threading.Timer(_LONGEST_S, process.kill)
        late.start()
        try:
            # Four times the body, for the copies of its text that parsing makes.
            most = memory_bytes + _SPARE_BYTES + (0 if body is None else 4 * len(body))
            _send_value(calls, (function, arguments if body is None else arguments[:-1], body is not None, most))
            if body is not None:
                calls.send_bytes(body)
            outcome, value = _receive_value(answers)
        except (OSError, EOFError) as error:
            self.close()
            raise Refused("the request takes too much memory or time", 503, b"Retry-After: 1\r\n") from error
        finally:
            late.cancel()
        if outcome == "out of memory":  # the rest of the call may still fill its memory
            self.close()
        if outcome != "ok":
            raise Refused(*value)
        return value

    def close(self) -> None:
        """Kill the process and close its pipes."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for pipe in (self._calls, self._answers):
            if pipe is not None:
                pipe.close()
        self._process = self._calls = self._answers = None

    def _ensure_process(self) -> tuple[subprocess.Popen[bytes], Connection, Connection]:
        # The process may have died since the last call, by the kernel's out-of-memory killer, say.
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None or self._calls is None or self._answers is None:
            # One call at a time, of small arrays: threads of OpenMP and BLAS would only take cores from the model.
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            # Not multiprocessing: its `spawn` would import the main module of the server again.
            words = [sys.executable, "-c", _START, *map(str, sys.path)]
            self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            # `Connection` closes its file descriptor itself, so it gets a copy of Popen's.
            with self._process.stdin as calls, self._process.stdout as answers:
                self._calls = Connection(os.dup(calls.fileno()), readable=False)
                self._answers = Connection(os.dup(answers.fileno()), writable=False)
        return self._process, self._calls, self._answers


def main() -> None:
    """Answer calls until the server has closed the pipe; the entry point of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which drains
    calls, answers = Connection(os.dup(0), writable=False), Connection(os.dup(1), readable=False)
    os.dup2(2, 1)  # prints of a library must not mix with the answers
    with contextlib.suppress(EOFError, OSError):
        while True:
            function, arguments, body_follows, most = _receive_value(calls)
            if body_follows:
                arguments = (*arguments, calls.recv_bytes())
            _send_value(answers, _execute_call(function, arguments, most))


def _execute_call(function: Callable[..., Any], arguments: tuple[Any, ...], most: int) -> tuple[str, Any]:
    """Return 'ok' and the value; or 'refused' or 'out of memory' and the arguments of the refusal."""
    try:
        with _limit_memory(most):
            return "ok", _wrap_long_bytes(function(*arguments))
    except Refused as refused:
        # A function may turn every exception into Refused, a MemoryError too, as `image_input.pixels` does.
        lacks = isinstance(refused.__cause__, MemoryError)
        return ("out of memory", (_TOO_MUCH, 413)) if lacks else ("refused", _get_refusal_arguments(refused))
    except MemoryError:
        return "out of memory", (_TOO_MUCH, 413)
    except Exception as error:
        # A library reports the system's ENOMEM as OSError, when it can't map memory.
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            return "out of memory", (_TOO_MUCH, 413)
        print(f"a bug in mlscale: {function.__name__}: {error!r}", file=sys.stderr, flush=True)
        return "refused", ("internal error", 500)


def _get_refusal_arguments(refused: Refused) -> tuple[str, int, bytes, str]:
    return refused.message, refused.status, refused.headers, refused.request_id


@contextlib.contextmanager
def _limit_memory(most: int) -> Iterator[None]:
    """Limit this process to `most` bytes more than it has now, where the system can; beyond, it gets a MemoryError."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        before = resource.getrlimit(resource.RLIMIT_AS)
    except (ImportError, OSError):  # not Linux
        yield
        return
    # The limit is on address space, of which the process already has much: count from there.
    limit = pages * resource.getpagesize() + most
    if before[1] != resource.RLIM_INFINITY:
        limit = min(limit, before[1])
    # A hard limit can't be raised again without privileges, so only the soft one is set, and restored.
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _wrap_long_bytes(value: object) -> Any:
    """Return a tuple with its long bytes wrapped so that they are sent without a copy; anything else unchanged."""
    # A named tuple is a parsed request: rebuilding it as a tuple would lose its fields.
    if not isinstance(value, tuple) or hasattr(value, "_fields"):
        return value
    return tuple(
        pickle.PickleBuffer(item) if isinstance(item, bytes) and len(item) > _LONG_BYTES else item for item in value
    )


def _send_value(pipe: Connection, value: object) -> None:
    """Send a value by pickle protocol 5; its arrays follow out of band, as they are in memory."""
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(value, 5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    pipe.send((pickled, [view.nbytes for view in views]))
    for view in views:
        while view.nbytes:
            # `os.write` may write a part of it, and releases the GIL while it waits.
            view = view[os.write(pipe.fileno(), view) :]


def _receive_value(pipe: Connection) -> Any:
    """Receive what `_send_value` has sent.

    Raises:
        EOFError: the other side has closed the pipe.
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
