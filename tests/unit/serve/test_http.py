"""HTTP on bare sockets: order, limits, and clients that are slow, broken or hostile."""

import contextlib
import gzip
import json
import random
import socket
import time
import zlib

import pytest

from tests.serving import RAW, Server, pixels, wait_for

ONE = pixels(1).tobytes()
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"


def to_the_end(client: socket.socket) -> bytes:
    """All that comes until the server closes; a reset counts as that."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(65536):
            parts.append(part)
    return b"".join(parts)


def body(n: int) -> bytes:
    """One request, its id n."""
    return b"POST /predict HTTP/1.1\r\nHost: x\r\nmlscale-id: %d\r\nContent-Type: application/octet-stream\r\n" % n


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    """Slow and quick ones mixed: long bodies are read in a thread; and more than may wait at once."""
    count, sent = 300, b""
    for n in range(count):
        if n % 3 == 1:
            text = json.dumps({"inputs": [[[[0] * 8] * 8]], "id": f"{n}"}).encode()
            text += b" " * (300_000 if n % 30 == 1 else 0)
            sent += b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text)
        else:
            sent += body(n) + b"Content-Length: %d\r\n\r\n%b" % (len(ONE), ONE)
    sent += b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with server.socket() as client:
        client.settimeout(30)
        import threading

        sender = threading.Thread(target=client.sendall, args=(sent,))
        sender.start()
        answered = to_the_end(client)
        sender.join()
    ids = [int(part.split(b"\r\n")[0]) for part in answered.split(b"mlscale-id: ")[1:]]
    assert ids == list(range(count))
    assert answered.count(b"HTTP/1.1 200 OK") == count + 1


def test_in_pieces_of_one_byte(server: Server) -> None:
    sent = HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(ONE), ONE)
    with server.socket() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for n in range(len(sent)):
            client.sendall(sent[n : n + 1])
        assert to_the_end(client).startswith(b"HTTP/1.1 200 OK")


def test_chunked_bodies_and_a_client_that_waits_to_go_on(server: Server) -> None:
    with server.socket() as client:
        client.sendall(HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in (ONE[:10], ONE[10:]):
            client.sendall(b"%x\r\n%b\r\n" % (len(part), part))
        client.sendall(b"0\r\n\r\n")
        assert to_the_end(client).startswith(b"HTTP/1.1 200 OK")
    with server.socket() as client:
        client.sendall(HEAD + b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: 64\r\n\r\n")
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(ONE)
        assert to_the_end(client).startswith(b"HTTP/1.1 200 OK")


def test_http_1_0_head_and_upgrades(server: Server) -> None:
    for sent, end in (
        (b"GET /v2 HTTP/1.0\r\n\r\n", b'"binary_tensor_data"]}'),
        (b"HEAD /v2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"\r\n\r\n"),
        (b"GET /v2 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", b'"binary_tensor_data"]}'),
    ):
        with server.socket() as client:
            client.sendall(sent)
            answered = to_the_end(client)
        assert answered.startswith(b"HTTP/1.1 200 OK"), sent
        assert answered.endswith(end)
        assert b"Connection: close" in answered


@pytest.mark.parametrize("kind", ["gzip", "deflate"])
def test_compressed_both_ways(server: Server, kind: str) -> None:
    pack, unpack = (gzip.compress, gzip.decompress) if kind == "gzip" else (zlib.compress, zlib.decompress)
    raw = pixels(8).tobytes()
    reply = server.ask("/predict", pack(raw), {**RAW, "Content-Encoding": kind, "Accept-Encoding": kind})
    assert (reply.status, reply.headers["Content-Encoding"]) == (200, kind)
    plain = server.ask("/predict", raw, {**RAW, "Accept-Encoding": f"{kind};q=0"})
    assert "Content-Encoding" not in plain.headers
    packed = [each["label"] for each in json.loads(unpack(reply.body))["predictions"]]
    assert packed == [each["label"] for each in plain.json["predictions"]]
    for wrong in (pack(raw)[:-9], b"nonsense"):
        assert server.ask("/predict", wrong, {**RAW, "Content-Encoding": kind}).status == 400
    assert server.ask("/predict", raw, {**RAW, "Content-Encoding": "br"}).status == 415


def test_what_unpacks_to_too_much(strict: Server) -> None:
    bomb = gzip.compress(bytes(50_000_000))[:19_000]
    assert server_refuses(strict, bomb) == 413
    assert strict.ask("/labels", gzip.compress(b"[" * 10_000_000), {"Content-Encoding": "gzip"}).status == 404


def server_refuses(server: Server, packed: bytes) -> int:
    """The status for a compressed body."""
    return server.ask("/predict", packed, {**RAW, "Content-Encoding": "gzip"}).status


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400"),  # TLS
        (b"GET / HTTP/1.1\r\nHost: x\r\n bad: folding\r\n\r\n", b"400"),
        (b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"POST /predict HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: %b\r\n" % (b"b" * 1000) * 40, b"431"),
        (b"GET /" + b"a" * 40_000, b"431"),
        (HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n", b"4"),
        (HEAD + b"Content-Length: 20001\r\n\r\n" + bytes(20_001), b"413"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + (b"1000\r\n" + bytes(0x1000) + b"\r\n") * 5, b"413"),
    ],
)
def test_refused_before_it_is_whole(strict: Server, sent: bytes, status: bytes) -> None:
    with strict.socket() as client:
        client.sendall(sent)
        answered = to_the_end(client)
    assert answered.startswith(b"HTTP/1.1 " + status), answered
    assert b'{"error":' in answered
    assert strict.ask("/v2/health/live").status == 200


def test_the_answer_reaches_a_client_that_still_sends(strict: Server) -> None:
    with strict.socket() as client:
        client.sendall(HEAD + b"Content-Length: 9000000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(90):
                client.sendall(bytes(100_000))
        assert client.recv(10_000).startswith(b"HTTP/1.1 413")


def test_slow_clients_are_cut_off(strict: Server) -> None:
    """Neither a head nor a body that comes byte by byte holds a connection; nor does silence."""
    begin = time.monotonic()
    with strict.socket() as head, strict.socket() as long, strict.socket() as silent, strict.socket() as idle:
        idle.sendall(LIVE)
        assert idle.recv(1000).startswith(b"HTTP/1.1 200")
        long.sendall(HEAD + b"Content-Length: 64\r\n\r\n")
        head.sendall(b"GET /")
        closed: dict[str, bytes] = {}
        for client in (head, long):
            client.settimeout(0.1)
        while len(closed) < 2:
            assert time.monotonic() < begin + 20
            for name, client in (("head", head), ("long", long)):
                if name not in closed:
                    with contextlib.suppress(TimeoutError, ConnectionError):
                        client.sendall(b"x")
                        closed[name] = client.recv(1000)
        assert closed["head"].startswith(b"HTTP/1.1 408")
        assert closed["long"].startswith(b"HTTP/1.1 408")
        assert silent.recv(1000) == b""
        assert idle.recv(1000) == b""
    assert time.monotonic() < begin + 20


def test_a_client_that_does_not_read_is_cut_off(strict: Server) -> None:
    with strict.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(20)
        asked = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000_000  # 37 MB: no buffer of the system holds them
        with pytest.raises(ConnectionError):
            client.sendall(asked)
    assert strict.ask("/v2/health/live").status == 200


def test_too_many_connections(strict: Server) -> None:
    clients = [strict.socket() for _ in range(30)]
    try:
        said = []
        for client in clients:
            with contextlib.suppress(ConnectionError):
                client.sendall(LIVE)
                said.append(client.recv(1000)[:12])
        assert said.count(b"HTTP/1.1 503") >= 5
        assert said.count(b"HTTP/1.1 200") >= 15
    finally:
        for client in clients:
            client.close()
    wait_for(lambda: answers(strict))


def answers(server: Server) -> bool:
    """Whether there is room again."""
    try:
        return server.ask("/v2/health/live").status == 200
    except OSError:
        return False


def test_clients_that_go_away_cost_nothing(server: Server) -> None:
    for _ in range(50):
        with server.socket() as client:
            client.sendall(body(1) + b"Content-Length: %d\r\n\r\n%b" % (len(ONE), ONE))
        with server.socket() as client:
            client.sendall(HEAD + b"Content-Length: 64\r\n\r\n1")
    assert server.ask("/predict", ONE, RAW).status == 200


def test_noise_is_answered_or_cut_off_and_nothing_breaks(server: Server) -> None:
    """Requests with bytes changed, left out and doubled, from a fixed seed."""
    rng = random.Random(7)
    whole = body(1) + b"Content-Length: %d\r\n\r\n%b" % (len(ONE), ONE) + LIVE
    for _ in range(150):
        sent = bytearray(whole)
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(len(sent))
            sent[at : at + rng.randrange(3)] = bytes(rng.randrange(256) for _ in range(rng.randrange(3)))
        with server.socket() as client:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            client.settimeout(10)
            to_the_end(client)
    assert server.ask("/predict", ONE, RAW).status == 200
    assert "bug of ours" not in server.said
