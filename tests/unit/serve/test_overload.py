"""Clients that hold connections, and the end of a server: nobody keeps health checks out, what was sent is answered."""

import contextlib
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from mlscale.serve.http.admission import RESERVED, Admission
from mlscale.serve.http.connection import HttpConnection
from mlscale.serve.http.exchange import ConnectionLimits, Connections
from tests.serving import RAW, STORED, Server, pixels, serving, wait_for
from tests.unit.serve.http.test_exchange import HEAD, LIVE, ONE, to_the_end

ASK = HEAD + b"Content-Length: 64\r\n\r\n" + ONE


def connections(**limits: float) -> Connections:
    """What connections share, without a server."""
    everything = ConnectionLimits(**limits)  # type: ignore[arg-type]
    return Connections(everything, lambda head, health_only: 0, lambda exchange: None, lambda exchange, refused: None)


def test_places_by_address() -> None:
    admission, shared = Admission(10, 4), connections()
    of_one = [HttpConnection(shared) for _ in range(6)]
    assert [admission.accept_connection(each, ("10.0.0.1", 1)) for each in of_one] == [True] * 4 + [False] * 2
    assert admission.accept_connection(HttpConnection(shared), ("10.0.0.2", 1))
    admission.release_connection(of_one[0])
    assert admission.accept_connection(HttpConnection(shared), ("::ffff:10.0.0.1", 1, 0, 0))  # the same client by IPv6
    assert not admission.accept_connection(HttpConnection(shared), ("10.0.0.1", 2))
    network = [admission.accept_connection(HttpConnection(shared), (f"2001:db8::{n:x}", 1, 0, 0)) for n in range(6)]
    assert network == [True] * 4 + [False] * 2  # whoever has an address of IPv6 has its /64
    assert [admission.accept_connection(HttpConnection(shared), (f"10.1.0.{n}", 1)) for n in range(3)] == [
        True,
        False,
        False,
    ]
    unlimited = Admission(300, None)
    assert all(unlimited.accept_connection(HttpConnection(shared), ("10.0.0.1", 1)) for _ in range(300))


def test_the_oldest_reserved_place_is_given_away() -> None:
    admission, shared, closed = Admission(0, None), connections(), list[int]()
    for n in range(RESERVED + 3):
        connection = HttpConnection(shared)
        connection.register_peer(("10.0.0.1", n), lambda n=n: closed.append(n))  # type: ignore[misc]
        admission.accept_connection(connection, ("10.0.0.1", n))
    assert closed == [0, 1, 2]


def test_clients_that_go_away_hold_nothing(tmp_path: Path) -> None:
    """Whether their bodies were refused, half sent, answered or never begun; all places are free again."""
    words = ("max_body_bytes=20000", "max_connections=20", "timeout_s=1", "events=null")
    with serving(tmp_path, STORED, *words) as server:
        for _ in range(30):
            server.socket().close()
            with server.socket() as client:
                client.sendall(HEAD + b"Content-Length: 15000\r\n\r\n" + bytes(9000))
            with server.socket() as client, contextlib.suppress(ConnectionError):
                client.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
                client.sendall((b"1000\r\n" + bytes(0x1000) + b"\r\n") * 8)
            with server.socket() as client:
                client.sendall(ASK)
        wait_for(lambda: server.ask("/predict", ONE, RAW).status == 200)
        begin = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - begin < 10  # nothing is waited for
        assert "bug in mlscale" not in server.printed


@pytest.fixture
def crowded(tmp_path: Path) -> "contextlib.AbstractContextManager[Server]":
    """A server with few places for an address."""
    words = ("max_connections=60", "max_connections_per_address=30", "head_timeout_s=2", "events=null")
    return serving(tmp_path, STORED, *words)


def test_slow_clients_do_not_keep_health_checks_out(crowded: "contextlib.AbstractContextManager[Server]") -> None:
    """Silent ones, those that send a head byte by byte, and those that send a body so."""
    with crowded as server, contextlib.ExitStack() as stack:
        slow = [stack.enter_context(server.socket()) for _ in range(200)]
        for n, client in enumerate(slow):
            with contextlib.suppress(OSError):
                client.sendall((b"", b"GET / HT", HEAD + b"Content-Length: 64\r\n\r\n1")[n % 3])
        begin = time.monotonic()
        for _ in range(10):
            assert server.ask("/v2/health/ready").status == 200
            assert server.ask("/metrics").status == 200
        assert time.monotonic() - begin < 10
        over = threading.Event()

        def drip() -> None:
            while not over.wait(0.1):
                for client in slow[1::3]:
                    with contextlib.suppress(OSError):
                        client.sendall(b"a")

        thread = threading.Thread(target=drip)
        thread.start()
        wait_for(lambda: server.ask("/v2/health/live").status == 200 and closed(slow[1]) and closed(slow[0]), 20)
        over.set()
        thread.join()


def closed(client: socket.socket) -> bool:
    """Whether the server has closed a connection."""
    client.settimeout(0.05)
    try:
        while client.recv(1000):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def test_readiness_turns_first_and_all_that_comes_is_answered(tmp_path: Path) -> None:
    with serving(tmp_path, STORED, "unready_s=1.5") as server, server.socket() as kept:
        kept.sendall(LIVE)
        assert b"Connection: close" not in kept.recv(1000)
        server.process.send_signal(signal.SIGTERM)
        begin = time.monotonic()
        wait_for(lambda: server.ask("/v2/health/ready").status == 400)
        while time.monotonic() - begin < 0.8:
            assert server.ask("/v2/health/live").status == 200
            reply = server.ask("/predict", ONE, RAW)
            assert (reply.status, reply.headers["Connection"]) == (200, "close")
        kept.sendall(ASK)
        answered = to_the_end(kept)  # and is not kept any longer
        assert answered.startswith(b"HTTP/1.1 200")
        assert b"Connection: close" in answered
        assert server.process.wait(20) == 0
        assert time.monotonic() - begin > 1.4
        assert "not ready: for 1.5 s" in server.printed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_sent_before_the_end_is_answered(tmp_path: Path, number: signal.Signals) -> None:
    """The process stands still while clients connect and send: all of it is in the system's buffers when it ends."""
    with serving(tmp_path, STORED) as server, contextlib.ExitStack() as stack:
        kept = [stack.enter_context(server.socket()) for _ in range(10)]
        for client in kept:
            client.sendall(LIVE)
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
        server.process.send_signal(signal.SIGSTOP)
        fresh = [stack.enter_context(server.socket()) for _ in range(20)]
        for client in kept + fresh:
            client.sendall(ASK * 25)
        server.process.send_signal(number)
        server.process.send_signal(signal.SIGCONT)
        for client in kept + fresh:
            answered = to_the_end(client)
            assert answered.count(b"HTTP/1.1 200 OK") == 25
            assert answered.count(b"Connection: close") == 1
        assert server.process.wait(20) == 0


def test_many_requests_at_once_do_not_stop_others(server: Server) -> None:
    """Twenty thousand small ones on a connection: another one is answered in between."""
    count = 20_000
    with server.socket() as greedy, server.socket() as other:
        sender = threading.Thread(target=lambda: greedy.sendall(LIVE * count))
        seen: list[bytes] = []
        reader = threading.Thread(target=lambda: seen.append(answers_of(greedy, count)))
        sender.start()
        reader.start()
        turns = 0
        while reader.is_alive():
            other.sendall(LIVE)
            assert other.recv(1000).startswith(b"HTTP/1.1 200")
            turns += 1
        sender.join()
        reader.join()
    assert turns > 20


def answers_of(client: socket.socket, count: int) -> bytes:
    """Read until there are so many answers; the last piece."""
    seen, part = 0, b""
    tail = b""
    while seen < count:
        part = client.recv(1 << 16)
        assert part
        text = tail + part
        seen += text.count(b"HTTP/1.1 200 OK")
        tail = text[-14:] if not text.endswith(b"HTTP/1.1 200 OK") else b""
    return part


def test_predictions_of_more_than_may_wait_are_refused_before_they_are_read(server: Server) -> None:
    too_many = pixels(257).tobytes()
    reply = server.ask("/predict", too_many, RAW)
    reported = f"the body is over {256 * 64} bytes, it has {257 * 64}"
    assert (reply.status, reply.json["error"]) == (413, reported)
