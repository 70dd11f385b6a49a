"""A client of the debug adapter protocol, as far as a breakpoint needs: what VS Code says to debugpy."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class Client:
    """Attached to a process that listens; `with Client(port) as client:`."""

    def __init__(self, port: int, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while True:
            try:
                self._socket = socket.create_connection(("127.0.0.1", port), timeout=seconds)
                break
            except OSError:
                assert time.monotonic() < end, f"nobody listens on {port}"
                time.sleep(0.1)
        self._stream = self._socket.makefile("rb")
        self._number = 0
        self._events: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stream.close()
        self._socket.close()

    def attach(self, file: Path, line: int) -> None:
        """Attach, and set one breakpoint."""
        self.ask("initialize", adapterID="debugpy", pathFormat="path")
        number = self._send("attach", justMyCode=False, subProcess=False)
        self.event("initialized")
        self.ask("setBreakpoints", source={"path": str(file)}, breakpoints=[{"line": line}])
        self.ask("configurationDone")
        self._answer(number)

    def evaluate(self, expression: str, thread: int) -> str:
        """The value of an expression in the innermost frame of a thread that has stopped."""
        frames = self.ask("stackTrace", threadId=thread)["stackFrames"]
        found: str = self.ask("evaluate", expression=expression, frameId=frames[0]["id"], context="repl")["result"]
        return found

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """The body of an answer."""
        return self._answer(self._send(command, **arguments))

    def event(self, name: str) -> dict[str, Any]:
        """The body of the next event of that name."""
        while True:
            for event in self._events:
                if event["event"] == name:
                    self._events.remove(event)
                    return dict(event.get("body") or {})
            self._take()

    def _send(self, command: str, **arguments: Any) -> int:
        self._number += 1
        request = {"seq": self._number, "type": "request", "command": command, "arguments": arguments}
        content = json.dumps(request).encode()
        self._socket.sendall(b"Content-Length: %d\r\n\r\n%s" % (len(content), content))
        return self._number

    def _answer(self, number: int) -> dict[str, Any]:
        while True:
            message = self._take()
            if message["type"] == "response" and message["request_seq"] == number:
                assert message["success"], message
                return dict(message.get("body") or {})

    def _take(self) -> dict[str, Any]:
        size = 0
        while line := self._stream.readline().strip():
            size = int(line.partition(b":")[2])
        message: dict[str, Any] = json.loads(self._stream.read(size))
        if message["type"] == "event":
            self._events.append(message)
        return message
