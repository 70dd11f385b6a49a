"""HTTP on bare sockets: order, limits, and clients that are slow, broken or hostile."""

import contextlib
import gzip
import json
import random
import socket
import threading
import time
import zlib

import pytest

from tests.serving import RAW, Server, pixels, wait_for

ONE = pixels(1).tobytes()
HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n"
METRICS = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
MANY = pixels(300).tobytes()
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


def to_the_end(client: socket.socket) -> bytes:
    """All that comes until the server closes; a reset counts as that."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(65536):
            parts.append(part)
    return b"".join(parts)


def body(n: int) -> bytes:
    """One request, its id n."""
    return (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nmlscale-id: %d\r\nContent-Type: application/octet-stream\r\n" % n
    )


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    """Slow and quick ones mixed: long bodies are read in a process; and more than may wait at once."""
    count, sent = 300, b""
    for n in range(count):
        if n % 3 == 1:
            text = json.dumps({"inputs": [[[[0] * 8] * 8]], "id": f"{n}"}).encode()
            text += b" " * (100_000 if n % 30 == 1 else 0)
            sent += b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text)
        else:
            sent += body(n) + b"Content-Length: %d\r\n\r\n%b" % (len(ONE), ONE)
    sent += b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
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


def test_http_1_0_and_head(server: Server) -> None:
    for sent, end in (
        (b"GET /v2 HTTP/1.0\r\n\r\n", b'"binary_tensor_data"]}'),
        (b"HEAD /v2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", b"\r\n\r\n"),
    ):
        with server.socket() as client:
            client.sendall(sent)
            answered = to_the_end(client)
        assert answered.startswith(b"HTTP/1.1 200 OK"), sent
        assert answered.endswith(end)
        assert b"Connection: close" in answered


def test_http_1_0_keeps_the_connection_where_asked(server: Server) -> None:
    """Such a client waits for the end of the connection, unless the answer says that it stays open."""
    with server.socket() as client:
        for _ in range(3):
            client.sendall(b"GET /v2/health/live HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
            assert b"Connection: keep-alive\r\n" in client.recv(1000)
        client.sendall(b"GET /v2/health/live HTTP/1.0\r\n\r\n")
        assert b"Connection: close" in to_the_end(client)


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket", b"TLS/1.0"])
@pytest.mark.parametrize("pieces", [1, 7, 10_000])
def test_an_offer_of_another_protocol_is_answered_in_this_one(server: Server, protocol: bytes, pieces: int) -> None:
    """With the body, whole or in pieces, chunked or not; and the connection stays."""
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\nUpgrade: %b\r\n" % protocol
    plain = HEAD + offer + b"Content-Length: 64\r\n\r\n" + ONE
    chunked = HEAD + offer + b"Transfer-Encoding: chunked\r\n\r\n40\r\n" + ONE + b"\r\n0\r\n\r\n"
    last = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + offer[:0] + b"\r\n"
    sent = plain + chunked + LIVE.replace(b"\r\n\r\n", b"\r\n" + offer + b"\r\n") + plain + last
    with server.socket() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        size = max(1, len(sent) // pieces)
        for at in range(0, len(sent), size):
            client.sendall(sent[at : at + size])
        answered = to_the_end(client)
    assert answered.count(b"HTTP/1.1 200 OK") == 5
    assert answered.count(b'"predictions"') == 3


def test_targets_in_every_form(server: Server) -> None:
    for target, status in (
        (b"/v2/models/digits/ready", 200),
        (b"http://localhost:8000/v2/models/digits/ready", 200),
        (b"HTTP://LOCALHOST/v2/models/digits/ready?a=b", 200),
        (b"http://127.0.0.1", 200),
        (b"http://elsewhere.example/v2", 403),
        (b"/v2/models/%64igits/%72eady", 200),
        (b"/%6detrics", 200),
        (b"/v2/models/digits%2Fready", 404),
        (b"//metrics", 200),
        (b"/v2/../metrics", 404),
        (b"/v2/models/" + b"a" * 3000, 404),
        (b"*", 404),
    ):
        with server.socket() as client:
            client.sendall(b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % target)
            assert to_the_end(client).startswith(b"HTTP/1.1 %d" % status), target
    for method, path, allow in (
        (b"OPTIONS", b"/predict", b"POST"),
        (b"PUT", b"/v2", b"GET"),
        (b"CONNECT", b"a:1", b""),
    ):
        with server.socket() as client:
            client.sendall(b"%b %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % (method, path))
            answered = to_the_end(client)
        assert answered.startswith(b"HTTP/1.1 405" if allow else b"HTTP/1.1 4"), answered
        assert b"Access-Control" not in answered
        assert allow in answered


def test_a_trailer_changes_nothing(server: Server) -> None:
    with server.socket() as client:
        client.sendall(HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n40\r\n" + ONE + b"\r\n0\r\n")
        client.sendall(b"Content-Type: text/plain\r\nHost: elsewhere.example\r\nmlscale-id: late\r\n\r\n")
        answered = to_the_end(client)
    assert answered.startswith(b"HTTP/1.1 200 OK")
    assert b"late" not in answered


def test_a_client_that_ends_its_side_gets_its_answers(server: Server) -> None:
    with server.socket() as client:
        client.sendall((HEAD + b"Content-Length: 64\r\n\r\n" + ONE) * 200)
        client.shutdown(socket.SHUT_WR)
        assert to_the_end(client).count(b"HTTP/1.1 200 OK") == 200


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
    for wrong in (pack(raw)[:-9], b"nonsense", pack(raw) + pack(raw), pack(raw) + b"more"):
        assert server.ask("/predict", wrong, {**RAW, "Content-Encoding": kind}).status == 400
    assert server.ask("/predict", raw, {**RAW, "Content-Encoding": "br"}).status == 415


def test_what_unpacks_to_too_much(strict: Server) -> None:
    bomb = gzip.compress(bytes(50_000_000))[:19_000]
    assert server_refuses(strict, bomb) == 413
    assert strict.ask("/v2/models/digits/infer", bomb, {"Content-Encoding": "gzip"}).status == 413


def server_refuses(server: Server, packed: bytes) -> int:
    """The status for a compressed body."""
    return server.ask("/predict", packed, {**RAW, "Content-Encoding": "gzip"}).status


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400"),  # TLS
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n bad: folding\r\n\r\n", b"400"),
        (b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"POST /predict HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"a: %b\r\n" % (b"b" * 1000) * 40, b"431"),
        (b"GET /" + b"a" * 90_000, b"431"),
        (b"GET / HTTP/1.1\r\na: " + b"b" * 90_000, b"431"),  # one header, and no end of it
        (b"GET / HTTP/1.1\r\n" + b"a" * 90_000, b"431"),
        (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n\x1f\x8b\r\n0\r\n\r\n", b"501"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"a" * 90_000, b"431"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\na: " + b"b" * 90_000, b"431"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: elsewhere.example\r\n\r\n", b"400"),
        (HEAD + b"Content-Type: application/json\r\n\r\n", b"400"),
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


@pytest.mark.parametrize(
    "pieces",
    [
        (b"ffffffffffffffff\r\n",),
        (b"4e21;name=value\r\nabc",),  # 20,001
        (b"3\r\nabc\r\n4e1f\r\nd",),  # one byte too many, with the chunk before it
        (b"4e", b"21\r", b"\n"),
        (b"10\r\n" + bytes(16) + b"\r\n7", b"fffffff\r\n\n\nabc"),
    ],
)
def test_a_chunk_over_the_limit_is_refused_at_its_first_line(strict: Server, pieces: tuple[bytes, ...]) -> None:
    with strict.socket() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for piece in pieces:
            client.sendall(piece)
            time.sleep(0.05)
        client.settimeout(30)
        assert client.recv(10_000).startswith(b"HTTP/1.1 413")  # and not 408, after `timeout_s`


def test_chunks_up_to_the_limit_and_trailers_that_look_like_a_size_are_accepted(strict: Server) -> None:
    rest = 20_000 - len(ONE)
    text = json.dumps({"inputs": [[[[0] * 8] * 8]]}).encode().ljust(20_000)
    head = HEAD.replace(b"application/octet-stream", b"application/json") + b"Connection: close\r\n"
    with strict.socket() as client:
        client.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        client.sendall(b"40\r\n%b\r\n%x\r\n%b\r\n0\r\nfffff" % (text[:64], rest, text[64:]))
        time.sleep(0.1)
        client.sendall(b"fff: abc\r\n\r\n")
        assert to_the_end(client).startswith(b"HTTP/1.1 200")


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
        asked = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 900_000  # no buffer of the system holds them
        with pytest.raises(ConnectionError):
            client.sendall(asked)
    assert strict.ask("/v2/health/live").status == 200


def test_who_sends_slowly_and_steadily_is_answered(strict: Server) -> None:
    """A body that takes four times as long as one may, at 10 KB a second."""
    with strict.socket() as client:
        client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(MANY))
        for at in range(0, len(MANY), 1000):
            client.sendall(MANY[at : at + 1000])
            time.sleep(0.1)
        assert client.recv(1000).startswith(b"HTTP/1.1 200")


def test_who_reads_slowly_and_steadily_gets_everything(strict: Server) -> None:
    count, parts, begin = 1500, list[bytes](), time.monotonic()
    with strict.socket() as client:
        sent = METRICS * count + LIVE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        asking = threading.Thread(target=client.sendall, args=(sent,))
        asking.start()
        while part := client.recv(32768):
            parts.append(part)
            if time.monotonic() - begin < 2.5:
                time.sleep(0.1)
        asking.join()
    assert b"".join(parts).count(b"HTTP/1.1 200 OK") == count + 1


@pytest.mark.parametrize("host", [b"", b"Host: one two\r\n", b"Host: http://localhost/\r\n", b"Host: a@b\r\n"])
@pytest.mark.parametrize("target", [b"/v2/health/live", b"http://localhost/v2/health/live"])
def test_a_request_names_its_host(server: Server, host: bytes, target: bytes) -> None:
    """RFC 9112, 3.2: in HTTP/1.1 always, and once; 1.0 had none."""
    with server.socket() as client:
        client.sendall(b"GET %b HTTP/1.1\r\n%b\r\n" % (target, host))
        answered = to_the_end(client)
    assert answered.startswith(b"HTTP/1.1 400")
    assert b"the header 'Host'" in answered


@pytest.mark.parametrize(
    "host", [b"Host:\r\n", b"Host: [::1]:8000\r\n", b"Host: 127.0.0.1\r\n", b"HOST: LOCALHOST.:1\r\n"]
)
def test_every_form_of_a_host(server: Server, host: bytes) -> None:
    with server.socket() as client:
        client.sendall(b"GET /v2/health/live HTTP/1.1\r\n%b\r\n" % host)
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
    with server.socket() as client:
        client.sendall(b"GET /v2/health/live HTTP/1.0\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200")


ASK = HEAD + b"Content-Length: 64\r\n\r\n" + ONE
"""Over the limit, a prediction is refused, a question for health is not."""


def test_too_many_connections(strict: Server) -> None:
    """Others wait or are refused; health and metrics answer, whoever holds connections."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(strict.socket()) for _ in range(40)]
        time.sleep(0.1)
        for _ in range(5):
            assert strict.ask("/v2/health/live").status == 200
            assert strict.ask("/metrics").status == 200
        refused = strict.ask("/predict", ONE, RAW)
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        clients[0].sendall(ASK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
        assert to_the_end(clients[0]).startswith(b"HTTP/1.1 200")
    wait_for(lambda: strict.ask("/predict", ONE, RAW).status == 200)


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
    assert "bug in mlscale" not in server.printed
