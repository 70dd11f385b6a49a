"""Mails to a real server on loopback that takes them, asks who is there, refuses, and never answers."""

import shutil
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from mlscale.errors import MLScaleError
from mlscale.notify.mail_notifier import MailNotifier
from tests.smtp_sink import Sink

HOST = "127.0.0.1"


def mail(sink: Sink, **settings: Any) -> MailNotifier:
    given: dict[str, Any] = {"to": ["me@example.org", "you@example.org"], "sender": "runs@example.org"}
    return MailNotifier(HOST, port=sink.port, **{"security": "none", **given, **settings})


def test_it_arrives_at_everybody() -> None:
    with Sink() as sink:
        assert mail(sink).send_mail("resnet failed:\nthe löss is NaN", "first line\n.a dot\nÄ").arrived
    (message,) = sink.mails
    assert message["Subject"] == "resnet failed: the löss is NaN"
    assert sink.recipients == ["me@example.org", "you@example.org"]
    assert message["From"] == "runs@example.org"
    assert message.get_content().splitlines() == ["first line", ".a dot", "Ä"]


def test_it_logs_in() -> None:
    with Sink(login=("me", "a word")) as sink:
        assert mail(sink, user="me", password="a word").send_mail("x", "y").arrived
        wrong = mail(sink, user="me", password="another")
        assert (wrong.send_mail("x", "y").arrived, wrong.send_mail("x", "y").why) == (False, "it answered 535")
        assert "another" not in repr(wrong)
    assert len(sink.mails) == 1


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_starttls_with_a_certificate_that_is_known_and_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days", "2"]
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(["openssl", *words, *name], cwd=tmp_path, check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with Sink(login=("me", "word"), tls=tls) as sink:
        settings: dict[str, Any] = {"security": "starttls", "user": "me", "password": "word"}
        assert not mail(sink, **settings).send_mail("x", "y").arrived
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        assert mail(sink, **settings).send_mail("x", "y").arrived
        assert sink.encrypted
    assert len(sink.mails) == 1


def test_a_server_that_offers_no_encryption_gets_nothing() -> None:
    with Sink() as sink:
        assert not mail(sink, security="starttls").send_mail("x", "y").arrived
    assert sink.mails == []


def test_refused_and_unreachable() -> None:
    with Sink(answer=550) as sink:
        assert not mail(sink).send_mail("x", "y").arrived
        assert sink.mails == []
    assert mail(sink).send_mail("x", "y").why == "Connection refused"


def test_a_server_that_never_answers_is_left() -> None:
    with Sink(answer=0) as sink:
        start = time.monotonic()
        sent = mail(sink, timeout_s=0.3, answer_s=0.3).send_mail("x", "y")
        assert time.monotonic() - start < 3
    assert not sent.arrived


ALERT: dict[str, Any] = {
    "id": "m@champion/drift/t", "status": "firing", "sentence": "m:v1: drift\nmore", "metrics": {"events": 500},
}  # fmt: skip


def test_an_alert_is_a_mail_with_an_id_of_its_own() -> None:
    with Sink() as sink:
        for status in ("firing", "firing", "resolved"):
            assert mail(sink).send_document({**ALERT, "status": status}).arrived
    first, again, over = (message["Message-ID"] for message in sink.mails)
    assert first == again != over
    assert sink.mails[0]["Subject"] == "m:v1: drift"
    assert "events: 500" in sink.mails[0].get_content()


def test_a_server_that_is_slow_gets_a_mail_once() -> None:
    with Sink(delay_s=0.5) as sink:
        assert mail(sink, timeout_s=0.2).send_document(ALERT).arrived
        assert len(sink.mails) == 1
        sent = mail(sink, timeout_s=0.1, answer_s=0.1).send_document(ALERT)
        assert (sent.arrived, sent.may_have_arrived) == (False, True)


def test_a_server_that_hangs_up_after_it_took_the_mail_has_it() -> None:
    with Sink(hangs_up=True) as sink:
        assert mail(sink).send_document(ALERT).arrived


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"to": ["nobody"]}, "'nobody' is none"),
        ({"sender": "a b@c"}, "'a b@c' is none"),
        ({"to": []}, "needs a recipient"),
        ({"security": "ssl"}, "is 'ssl'"),
        ({"host": "mail.example.org", "user": "me", "password": "word"}, "as plain text"),
    ],
)
def test_settings_that_are_none(settings: dict[str, Any], what: str) -> None:
    given: dict[str, Any] = {"host": HOST, "to": ["me@x.org"], "sender": "me@x.org", "security": "none", **settings}
    with pytest.raises(MLScaleError, match=what):
        MailNotifier(**given)
