"""The server's system interfaces: event loop, port, signals, file limit, socket buffers.

Loads the TLS certificate and its private key.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from mlscale.errors import Exit, MLScaleError

_M_MMAP_THRESHOLD, _MAPPED_BYTES = -3, 4 << 20
"""M_MMAP_THRESHOLD of malloc.h, and the size from which a block is mapped."""


class StopSignal(asyncio.Event):
    """An event that signals set; `count`: the signals so far, `by_person`: True if the first was SIGINT (Ctrl-C)."""

    count, by_person = 0, False

    def record_signal(self, number: int) -> None:
        """Record a signal and set the event."""
        self.by_person = number == signal.SIGINT if not self.count else self.by_person
        self.count += 1
        self.set()


def install_stop_signal(loop: asyncio.AbstractEventLoop) -> StopSignal:
    """Return an event that SIGTERM and SIGINT set from now on."""
    stop = StopSignal()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):  # not in the main thread
            loop.add_signal_handler(number, stop.record_signal, number)
    return stop


def create_event_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop of uvloop, except on Windows, where it does not exist."""
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


@contextlib.contextmanager
def bind_socket(host: str, port: int) -> Iterator[socket.socket]:
    """Yield a socket that is bound to the address; close it at the end of the block.

    Raises:
        MLScaleError: the port is in use or not allowed, or the host is unknown (exit code 5).
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            # A server that restarts must get its port although old connections are in TIME_WAIT.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
        except OSError:
            listening.close()
            raise
    # OverflowError: a port over 65535; UnicodeError: a host that is not a valid name.
    except (OSError, OverflowError, UnicodeError) as error:
        used = getattr(error, "errno", None) == errno.EADDRINUSE
        name, _, number = host.partition(":")
        both = f"host={name} port={number}" if name and number.isdecimal() else "host=127.0.0.1 port=8000"
        raise MLScaleError(
            f"port {port} of {host} is in use" if used else f"can't listen on port {port} of {host}",
            where="port" if used else "host, port",
            why="" if used else str(getattr(error, "strerror", None) or error),
            fix="port=0, which takes a free one" if used else both,
            exit=Exit.ENVIRONMENT,
        ) from error
    with listening:
        yield listening


def allow_files(count: int) -> None:
    """Raise the soft limit of open files to `count`, as far as the hard limit allows; shells often set 1,024."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        # Imported here: Windows lacks the module.
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def set_mmap_threshold() -> None:
    """Let long bodies grow without a copy, which would stop all threads.

    glibc maps large blocks, which it grows by moving pages, but after some use it raises its threshold and keeps blocks
    of up to 32 MiB in its heap, where growing copies them. A fixed threshold turns that off.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        import ctypes

        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)


def is_loopback(listening: socket.socket) -> bool:
    """Return whether only this machine can connect."""
    return ipaddress.ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback


def count_unread_bytes(transport: asyncio.BaseTransport) -> int:
    """Return the bytes that have arrived at a connection and were not read yet; 0 where that is not known."""
    return _count_queued_bytes(transport, "FIONREAD")


def count_unsent_bytes(transport: asyncio.BaseTransport) -> int:
    """Return the bytes in the send buffer of a connection that the peer has not acknowledged; 0 where not known."""
    return _count_queued_bytes(transport, "TIOCOUTQ")


def _count_queued_bytes(transport: asyncio.BaseTransport, request: str) -> int:
    connection = transport.get_extra_info("socket")
    if connection is None or sys.platform == "win32":
        return 0
    import fcntl
    import termios

    with contextlib.suppress(OSError, ValueError, AttributeError):
        return int.from_bytes(fcntl.ioctl(connection.fileno(), getattr(termios, request), bytes(4)), sys.byteorder)
    return 0


def load_tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return a TLS context with a certificate, its chain, and its private key, both PEM.

    Raises:
        MLScaleError: they can't be read, are not PEM, or do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Clients may offer h2 and http/1.1; the server only speaks the latter.
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Without this callback OpenSSL asks for a password on the terminal, and the server hangs.
        context.load_cert_chain(certificate, key, password=_refuse_password)
    except OSError as error:  # ssl.SSLError is one
        raise MLScaleError(
            "the certificate or its key can't be used",
            where=f"tls_cert={certificate} tls_key={key}",
            why=getattr(error, "reason", None) or error.strerror or str(error),
            fix="tls_cert=<file>.pem tls_key=<file>.pem, the certificate and its key, which has no password",
        ) from error
    return context


def _refuse_password() -> NoReturn:
    raise OSError("the key has a password")
