"""Log as JSON lines: with `log_format=json`, each line on stderr is a JSON object.

What is written to `sys.stderr` in Python is converted: messages of mlscale and of libraries, warnings, tracebacks. What
native code writes to the file descriptor itself is not.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from mlscale.json_text import format_json

VARIABLE = "MLSCALE_LOG_FORMAT"
"""The environment variable that sets the format of a process and of all that it starts."""
TEXT, JSON = "text", "json"
_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_LEVELS = {
    "error": re.compile(r"error: |failed\s{2,}|\w*(Error|Exception)\b"),
    "warning": re.compile(r"warning\s|bad data\s|.*\w*Warning: "),
}


class JsonLineStream:
    """A text stream that writes each line as a JSON object with `time`, `level`, `pid`, `rank` and `message`.

    The time is in UTC, in the format of ISO 8601; the rank is only there in a process of a distributed training. A
    line that is a JSON object already passes as it is.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._waiting = ""
        self._lock = threading.RLock()  # a signal handler may write while a line is written

    def write(self, text: str) -> int:
        """Write the lines that are complete; the rest waits for its end."""
        with self._lock:
            *lines, self._waiting = (self._waiting + text).split("\n")
            for line in lines:
                self._write_line(line)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def write_record(self, level: str, message: str, fields: Mapping[str, Any]) -> None:
        """Write one line that has other keys besides the usual ones. NaN and infinities, which JSON lacks, are null."""
        rank = os.environ.get("RANK", "")
        record = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "level": level,
            "pid": os.getpid(),
            **({"rank": int(rank)} if rank.isdigit() else {}),
            "message": message,
            **fields,
        }
        # In one call: lines of several processes with the same stderr must not be mixed.
        self.stream.write(format_json(record, self.stream) + "\n")
        self.stream.flush()

    def flush(self) -> None:
        self.stream.flush()

    def isatty(self) -> bool:
        """Return False: progress bars and colours are for people."""
        return False

    def close(self) -> None:
        """Write what waits for the end of its line."""
        if self._waiting:
            self.write("\n")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _write_line(self, line: str) -> None:
        # A bar on a terminal returns to the start of its line: its last state is what stays.
        text = _TERMINAL_CODES.sub("", line.rstrip("\r").rpartition("\r")[2]).rstrip()
        if text.startswith("{") and _is_object(text):
            self.stream.write((text if text.isascii() else format_json(json.loads(text), self.stream)) + "\n")
            self.stream.flush()
        elif text:
            level = next((name for name, pattern in _LEVELS.items() if pattern.match(text)), "info")
            self.write_record(level, text, {})


@contextlib.contextmanager
def use_log_format(log_format: str) -> Iterator[None]:
    """Set the format of stderr during the block, `text` or `json`, in this process and in those that it starts."""
    if log_format != JSON or sys.stderr is None or _find_stream() is not None:
        yield
        return
    before, variable = sys.stderr, os.environ.get(VARIABLE)
    stream = JsonLineStream(before)
    sys.stderr, os.environ[VARIABLE] = stream, JSON
    try:
        yield
    finally:
        stream.close()
        sys.stderr = before
        os.environ.pop(VARIABLE) if variable is None else os.environ.__setitem__(VARIABLE, variable)


def apply_variable() -> None:
    """Set the format of this process that the environment names, until its end."""
    if os.environ.get(VARIABLE) == JSON and sys.stderr is not None and _find_stream() is None:
        stream = JsonLineStream(sys.stderr)
        sys.stderr = stream
        atexit.register(stream.close)


def find_typed_format(words: Iterable[str]) -> str:
    """Return the format that is typed on a command line: errors of the configuration are in it, too."""
    typed = [word.lstrip("+").partition("=")[2] for word in words if word.lstrip("+").startswith("log_format=")]
    return typed[-1] if typed else TEXT


def report_error(message: str, problems: Iterable[Mapping[str, str]]) -> bool:
    """Write an error as one line with its problems; return False where the format is not JSON."""
    stream = _find_stream()
    if stream is None:
        return False
    with contextlib.suppress(BrokenPipeError):
        stream.write_record("error", message, {"problems": list(problems)})
    return True


def report_metrics(message: str, **fields: Any) -> bool:
    """Write a line of progress with its numbers; return False where the format is not JSON."""
    stream = _find_stream()
    if stream is None:
        return False
    stream.write_record("info", message, fields)
    return True


def _find_stream() -> JsonLineStream | None:
    """Return the stream of this process, also where another one, that masks secrets, writes to it."""
    stream = sys.stderr
    while stream is not None and not isinstance(stream, JsonLineStream):
        stream = getattr(stream, "_stream", None)
    return stream


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
