"""A process that reads and writes long JSON, or decodes large images: Python's decoders hold the interpreter's lock
from the first byte to the last, and Pillow's for parts of it, so a thread would stop the event loop as well.

It starts when it is first needed, runs one call at a time, and is replaced when it dies or takes too long.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from mlscale.serve.refused import Refused

_LONGEST_S = 30.0
_START = "import sys; sys.path[:] = sys.argv[1:]; from mlscale.serve.json_process import main; main()"


class JsonProcess:
    """Calls functions in another process; for one thread at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._calls: Connection | None = None
        self._answers: Connection | None = None

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What `function`, of a module, returns. A body, the last argument, is not copied on the way.

        Raises:
            Refused: the function did so; or the process died or took too long (503).
        """
        process, calls, answers = self._started()
        body = arguments[-1] if isinstance(arguments[-1], bytes | bytearray) else None
        late = threading.Timer(_LONGEST_S, process.kill)
        late.start()
        try:
            calls.send((function, arguments if body is None else arguments[:-1], body is not None))
            if body is not None:
                calls.send_bytes(body)
            refused, value = answers.recv()
        except (OSError, EOFError) as error:
            self.close()
            raise Refused("the request takes too much memory or time", 503, b"Retry-After: 1\r\n") from error
        finally:
            late.cancel()
        if refused:
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
            function, arguments, body_follows = calls.recv()
            if body_follows:
                arguments = (*arguments, calls.recv_bytes())
            answers.send(_answer(function, arguments))


def _answer(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[bool, Any]:
    """Whether it was refused, and the value, or the refusal's arguments."""
    try:
        return False, function(*arguments)
    except Refused as refused:
        return True, (refused.message, refused.status, refused.headers)
    except MemoryError:
        return True, ("the request takes too much memory", 413)
    except Exception as error:
        print(f"a bug of ours: {function.__name__}: {error!r}", file=sys.stderr, flush=True)
        return True, ("internal error", 500)
