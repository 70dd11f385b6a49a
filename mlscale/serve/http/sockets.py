"""What the server asks of the system: an event loop, a port, and to be told when to stop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import signal
import socket
import sys
from collections.abc import Iterator

from mlscale.errors import Exit, MLScaleError

_M_MMAP_THRESHOLD, _MAPPED_BYTES = -3, 4 << 20
"""Of malloc.h; and how large a block is mapped."""


class Stop(asyncio.Event):
    """Set by a signal; `count` is how often, `by_person` whether the first was SIGINT, Ctrl-C."""

    count, by_person = 0, False

    def ask(self, number: int) -> None:
        """Stop."""
        self.by_person = number == signal.SIGINT if not self.count else self.by_person
        self.count += 1
        self.set()


def stop_signal(loop: asyncio.AbstractEventLoop) -> Stop:
    """Set by SIGTERM and SIGINT from now on."""
    stop = Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):  # not in the main thread
            loop.add_signal_handler(number, stop.ask, number)
    return stop


def new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's, where there is one."""
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


@contextlib.contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that is bound there, closed at the end of the block.

    Raises:
        MLScaleError: the port is in use or not allowed, or there is no such host (exit code 5).
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
        except OSError:
            listening.close()
            raise
    except (OSError, OverflowError, UnicodeError) as error:
        used = getattr(error, "errno", None) == errno.EADDRINUSE
        raise MLScaleError(
            f"port {port} of {host} is in use" if used else f"can't listen on port {port} of {host}",
            where="port" if used else "host, port",
            why="" if used else str(getattr(error, "strerror", None) or error),
            fix="port=0 takes a free one" if used else "host=127.0.0.1 port=8000",
            exit=Exit.ENVIRONMENT,
        ) from error
    with listening:
        yield listening


def allow_files(count: int) -> None:
    """Let this process open `count` files, where its hard limit allows that: a shell's limit is 1,024, often."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def grow_in_place() -> None:
    """Let long bodies grow without a copy, which would stop all threads: the GNU library maps large blocks, which it
    grows by moving pages, but after some use keeps blocks of up to 32 MiB in its heap, where they are copied."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        import ctypes

        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)


def is_loopback(listening: socket.socket) -> bool:
    """Whether only this machine can connect."""
    return ipaddress.ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback


def unread_bytes(transport: asyncio.BaseTransport) -> int:
    """Bytes that have arrived at a connection, and were not read yet; 0 where the system does not say."""
    return _queued_bytes(transport, "FIONREAD")


def unsent_bytes(transport: asyncio.BaseTransport) -> int:
    """Bytes that the system has taken for a connection, and the other side has not; 0 where the system does not say."""
    return _queued_bytes(transport, "TIOCOUTQ")


def _queued_bytes(transport: asyncio.BaseTransport, request: str) -> int:
    connection = transport.get_extra_info("socket")
    if connection is None or sys.platform == "win32":
        return 0
    import fcntl
    import termios

    with contextlib.suppress(OSError, ValueError, AttributeError):
        return int.from_bytes(fcntl.ioctl(connection.fileno(), getattr(termios, request), bytes(4)), sys.byteorder)
    return 0
