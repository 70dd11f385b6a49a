"""Who may send requests: no page of another site, nobody without the key, and none in the clear to other machines."""

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlscale.errors import MLScaleError
from mlscale.serve.http.access import Access, check_exposure, encode_key
from mlscale.serve.http.request_error import Refused
from tests.contract.commands import environment, mlscale
from tests.serving import RAW, STORED, Server, pixels, serving

ONE = pixels(1).tobytes()
KEY = "a-key-that-is-long-enough"
JSON = {"Content-Type": "application/json"}
LOAD = "/v2/repository/models/digits/load"


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that asks for a key."""
    with serving(tmp_path_factory.mktemp("locked"), STORED, f"api_key={KEY}", "hosts=[Models.example]") as one:
        yield one


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost.evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:8000"}, 403),
        ({"Host": "localhost.evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 403),  # rebound: both names are the page's
        ({"Host": "LOCALHOST:8000"}, 200),
        ({"Host": "[::1]:8000"}, 200),
        ({"Host": "192.168.1.5:8000"}, 200),  # nothing was looked up
        ({"Host": "localhost:8000", "Origin": "http://localhost:8000"}, 200),
    ],
)
def test_pages_of_other_sites(server: Server, headers: dict[str, str], status: int) -> None:
    """Whatever changes something: a prediction, which is an event, labels, the version that serves."""
    for path, body, kind in (
        ("/predict", ONE, RAW),
        ("/labels", b'{"id": "a", "label": "1"}', JSON),
        (LOAD, b"{}", JSON),
        ("/v2/models/digits/infer", ONE, {"Inference-Header-Content-Length": "0"}),
    ):
        reply = server.ask(path, body, {**kind, **headers})
        assert reply.status == status, (path, reply.body)
        assert not [name for name in reply.headers if name.lower().startswith("access-control")]
    reading = server.ask("/v2/models/digits", None, headers)
    assert reading.status == (403 if "evil" in headers.get("Host", "") else 200)
    assert server.ask("/v2/health/ready", None, headers).status == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", None])
def test_what_a_page_may_send_unasked_is_no_label_and_no_order(server: Server, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    for path in ("/labels", LOAD, "/v2/repository/models/digits/unload"):
        for body in (b"", b"{}", b'{"id": "a", "label": "1"}'):
            assert server.ask(path, body, headers, "POST").status == 415
    assert (
        server.ask("/labels", b'{"id": "a", "label": "1"}', {"Content-Type": "Application/JSON; charset=x"}).status
        == 200
    )


@pytest.mark.parametrize(
    "ref", ["{stored}", "~/digits", "../x:v1", "x\nserving digits:v9", "\x1b[2Jx", "x", "x:v1", ""]
)
def test_clients_name_no_file_and_write_no_line_of_the_log(server: Server, ref: str) -> None:
    before = server.printed
    asked = {"parameters": {"version": ref.format(stored=STORED)}}
    reply = server.ask(LOAD, asked, JSON)
    assert reply.status == 400
    assert "names no version" in reply.json["error"] or "is not a version of digits" in reply.json["error"]
    assert server.printed == before
    assert server.metric("mlscale_stale") == 0


CHALLENGE = 'Basic realm="the key as password"'  # the last of two


def test_the_key(locked: Server) -> None:
    asks: tuple[tuple[str, bytes | None, dict[str, str]], ...] = (
        ("/predict", ONE, RAW),
        ("/labels", b'{"id": "a", "label": "1"}', JSON),
        (LOAD, b"{}", JSON),
        ("/v2/models/digits", None, {}),
        ("/metrics", None, {}),
        ("/", None, {}),
    )
    for path, body, kind in asks:
        # A browser sends what a person types as the password.
        typed = {"Authorization": "Basic " + base64.b64encode(f":{KEY}".encode()).decode()}
        for right in (
            {"Authorization": f"Bearer {KEY}"},
            {"authorization": f"bearer {KEY}"},
            {"X-API-Key": KEY},
            typed,
        ):
            assert locked.ask(path, body, {**kind, **right}).status == 200, path
        for wrong in (
            {},
            {"Authorization": KEY},
            {"Authorization": f"Basic {KEY}"},
            {"Authorization": "Basic " + base64.b64encode(f"{KEY}:".encode()).decode()},
            {"Authorization": "Bearer "},
            {"X-API-Key": KEY[:-1]},
            {"X-API-Key": KEY + "x"},
            {"X-API-Key": KEY.upper()},
            {"Authorization": "Bearer wrong", "X-API-Key": KEY},
        ):
            reply = locked.ask(path, body, {**kind, **wrong})
            assert (reply.status, reply.headers["WWW-Authenticate"]) == (401, CHALLENGE), (path, wrong)
            assert KEY not in reply.body.decode()
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/digits/ready"):
        assert locked.ask(path).status == 200
    for path in ("/v2/health/../models/digits", "/V2/health/live", "/v2/healthy", "//v2/models/digits"):
        assert locked.ask(path).status == 401
    assert KEY not in locked.printed
    assert locked.ask("/predict", ONE, {**RAW, "x-api-key": KEY, "Host": "models.example"}).status == 200
    origin = {"x-api-key": KEY, "Host": "models.example", "Origin": "https://models.example"}
    assert locked.ask("/predict", ONE, {**RAW, **origin}).status == 200


def test_a_body_without_the_key_is_not_received(locked: Server) -> None:
    with locked.socket() as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\n" + bytes(10))
        assert client.recv(1000).startswith(b"HTTP/1.1 401")


def test_other_machines_need_key_and_tls_or_a_proxy() -> None:
    key = b"k" * 16
    for loopback, has_key, tls, proxy, allowed in (
        (True, b"", False, False, True),
        (False, b"", False, False, False),
        (False, key, False, False, False),
        (False, b"", True, False, False),
        (False, key, True, False, True),
        (False, b"", False, True, True),
    ):
        if allowed:
            check_exposure("0.0.0.0", loopback=loopback, key=has_key, tls=tls, behind_proxy=proxy)
        else:
            with pytest.raises(MLScaleError, match="lets other machines send requests"):
                check_exposure("0.0.0.0", loopback=loopback, key=has_key, tls=tls, behind_proxy=proxy)


@pytest.mark.parametrize("key", ["short", "ä" * 20, "with a space in it", "with\r\na line of its own"])
def test_keys_that_can_not_be_sent(key: str) -> None:
    with pytest.raises(MLScaleError, match="api_key"):
        encode_key(key)


def test_names_of_a_host() -> None:
    access = Access(hosts=frozenset({"models.example"}))
    for host in (b"models.example", b"MODELS.example.:80", b"a.localhost", b"[fe80::1%25eth0]:80", b"[::1]", b""):
        access.check_request(b"GET", {b"host": host})
    for host in (b"models.example.evil", b"xmodels.example", b"*", b"[models.example", b"localhost@x", b"x#localhost"):
        with pytest.raises(Refused):
            access.check_request(b"GET", {b"host": host})
    Access(hosts=frozenset({"*"})).check_request(b"GET", {b"host": b"anything"})


def test_what_is_remembered_of_a_client_changes_no_decision() -> None:
    access = Access(key=b"k" * 16)
    program = {b"host": b"localhost", b"x-api-key": b"k" * 16}
    page = {**program, b"origin": b"http://evil.example"}
    for _ in range(3):
        access.check_request(b"POST", program)
        access.check_request(b"GET", page)  # its browser does not show it the response
        for headers in (page, {**program, b"host": b"evil.example"}, {b"host": b"localhost"}):
            with pytest.raises(Refused):
                access.check_request(b"POST", headers)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of localhost that signs itself, and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    more = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(["openssl", *words.split(), *more], cwd=folder, check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


def test_tls_on_every_address(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    """With a key, as other machines would; who speaks no TLS, or nothing, does not hold the server up."""
    import http.client
    import ssl

    cert, key = certificate
    words = (f"tls_cert={cert}", f"tls_key={key}", "host=0.0.0.0", "unready_s=0", "head_timeout_s=1")
    key_word = "api_key=${oc.env:SERVE_KEY}"
    with serving(tmp_path, STORED, *words, key_word, environ={"SERVE_KEY": KEY}) as server:
        assert server.url.startswith("https://0.0.0.0:")
        port = server.place[1]
        context = ssl.create_default_context(cafile=str(cert))
        secure = http.client.HTTPSConnection("localhost", port, timeout=30, context=context)
        silent = server.socket()
        with server.socket() as plain:
            plain.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200" not in plain.recv(1000)
        for n in range(20):
            secure.request("POST", "/predict", ONE, {**RAW, "x-api-key": KEY, "mlscale-id": f"{n}"})
            response = secure.getresponse()
            assert (response.status, json.loads(response.read())["predictions"][0]["id"]) == (200, f"{n}")
        secure.request("POST", "/predict", bytes(64 * 1000), {**RAW, "x-api-key": KEY})
        assert len(json.loads(secure.getresponse().read())["predictions"]) == 1000
        secure.request("POST", LOAD, b"{}", {**JSON, "x-api-key": KEY})
        assert secure.getresponse().status == 403  # other machines load nothing unless control=true
        silent.settimeout(10)
        assert silent.recv(10) == b""
        silent.close()
        secure.close()
        assert server.stop() == 0
        assert KEY not in server.printed + (tmp_path / "server.out").read_text()
        assert "bug in mlscale" not in server.printed


def test_what_does_not_start(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    locked = tmp_path / "locked.pem"
    subprocess.run(
        ["openssl", "ec", "-in", str(key), "-aes128", "-passout", "pass:secret", "-out", str(locked)],
        check=True,
        capture_output=True,
    )
    env = environment(tmp_path)
    for words, reported in (
        (["host=0.0.0.0"], "lets other machines send requests"),
        (["host=::", f"api_key={KEY}"], "without tls_cert with tls_key"),
        (["host=0.0.0.0", f"tls_cert={cert}", f"tls_key={key}"], "without api_key"),
        (["api_key=short"], "api_key has 5 characters"),
        ([f"tls_cert={cert}"], "tls_key is not set"),
        ([f"tls_cert={cert}", f"tls_key={cert}"], "the certificate or its key can't be used"),
        ([f"tls_cert={cert}", f"tls_key={locked}"], "the key has a password"),
        ([f"tls_cert={tmp_path / 'none'}", f"tls_key={key}"], "No such file"),
        (["max_memory_bytes=1000"], "less than max_body_bytes"),
    ):
        run = mlscale(tmp_path, "serve", str(STORED), "port=0", *words, env=env)
        assert (run.returncode, reported in run.stderr, "Traceback" in run.stderr) == (2, True, False), run.stderr


def test_a_proxy_is_reported_what_it_has_to_do(tmp_path: Path) -> None:
    with serving(tmp_path, STORED, "host=0.0.0.0", "behind_proxy=true", "unready_s=0") as server:
        assert "behind_proxy=true: the proxy before it has to terminate TLS and authenticate" in server.printed
        assert server.ask("/predict", ONE, {**RAW, "Host": "models.example"}).status == 200
        assert server.ask("/predict", ONE, {**RAW, "Origin": "https://evil.example"}).status == 403
        assert server.ask(LOAD, {}).status == 403


@pytest.mark.slow
def test_a_load_test_sends_the_key_and_verifies_the_certificate(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    words = (f"tls_cert={cert}", f"tls_key={key}", "events=null", "api_key=${oc.env:SERVE_KEY}")
    with serving(tmp_path, STORED, *words, environ={"SERVE_KEY": KEY}) as server:
        env = {**environment(tmp_path), "SERVE_KEY": KEY}
        url, right = f"ref={server.url}", ["api_key=${oc.env:SERVE_KEY}", f"ca_file={cert}"]
        for more, code, reported in (
            (right, 0, "0 of"),
            ([f"ca_file={cert}"], 2, "api_key="),
            (right[:1], 5, "CERTIFICATE_VERIFY_FAILED"),
            ([*right[:1], "ca_file=nowhere.pem"], 2, "ca_file"),
        ):
            run = mlscale(tmp_path, "loadtest", url, *more, "seconds=0.5", "warmup_s=0.1", "users=2", env=env)
            printed = run.stdout + run.stderr
            assert (run.returncode, reported in printed, KEY in printed) == (code, True, False), printed
