"""A server that answers every request at once, with the same bytes: latencies that a client sees are its own.

    python empty_server.py <file with the whole answer>

Prints its port. Ends when its standard input is closed, so that it never outlives its parent. Needs no other package.
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

# Enough parsing for the requests of the load test, which state their length: the answer must cost next to nothing.
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)


class EmptyProtocol(asyncio.Protocol):
    """One connection.

    Args:
        answer: the bytes of the response to each request.
    """

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while 0 < (size := _compute_request_size(self._received)) <= len(self._received):
            del self._received[:size]
            self._transport.write(self._answer)


def _compute_request_size(received: bytearray) -> int:
    """Return the bytes of the first request; 0 if its head is not complete."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return 0
    length = _LENGTH.search(received, 0, end)
    return end + 4 + (int(length[1]) if length else 0)


async def _serve_answer(answer: bytes) -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    server = await loop.create_server(lambda: EmptyProtocol(answer), "127.0.0.1", 0, backlog=4096)
    # At its end a pipe becomes readable, also when the parent was killed.
    loop.add_reader(sys.stdin.fileno(), ended.set)
    print(server.sockets[0].getsockname()[1], flush=True)
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(_serve_answer(Path(sys.argv[1]).read_bytes()))
