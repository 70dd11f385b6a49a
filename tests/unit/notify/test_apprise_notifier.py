"""Messages by apprise to a real web server and a real mail server on loopback; no part of an address is printed."""

import logging
from pathlib import Path
from typing import Any

import pytest

from mlscale.errors import MLScaleError
from mlscale.notify.apprise_notifier import AppriseNotifier
from mlscale.notify.document_text import format_document
from tests.receiver import Receiver
from tests.smtp_sink import Sink

NOTICE: dict[str, Any] = {
    "event": "diverged", "run": "r-1", "name": "resnet", "sentence": "the löss is NaN\nat step 7",
    "metrics": {"val/loss": 0.123456789}, "folder": "/runs/r-1", "host": "node-1", "time": "2026-01-05T10:00:00Z",
}  # fmt: skip
ALERT: dict[str, Any] = {
    "status": "resolved", "id": "m@champion/drift/1", "version": "m:v1", "sentence": "m:v1: drift is over",
    "metrics": {"events": 500, "largest_distance": None}, "since": "t", "time": "t",
}  # fmt: skip


def service(url: str, **settings: Any) -> AppriseNotifier:
    return AppriseNotifier(url.replace("http://", "json://"), **settings)


@pytest.mark.parametrize(("document", "kind"), [(NOTICE, "failure"), (ALERT, "success")])
def test_it_arrives_as_json(document: dict[str, Any], kind: str) -> None:
    with Receiver() as receiver:
        assert service(receiver.url).send_document(document).arrived
    (message,) = receiver.alerts
    assert (message["title"], message["type"]) == (document["sentence"].splitlines()[0], kind)
    assert message["message"].strip() == format_document(document).strip()


def test_it_arrives_as_a_mail() -> None:
    with Sink() as sink:
        url = f"mailto://127.0.0.1:{sink.port}/?mode=insecure&from=runs@example.org&to=me@example.org"
        assert service(url).send_document(NOTICE).arrived
    (message,) = sink.mails
    assert sink.recipients == ["me@example.org"]
    assert message["Subject"] == "the löss is NaN"
    body = message.get_body(("plain",))
    assert body is not None
    text = body.get_content()
    assert "val/loss: 0.123457" in text
    assert "folder: /runs/r-1" in text


def test_the_text_has_what_a_person_needs() -> None:
    assert format_document(ALERT).splitlines() == [
        "m:v1: drift is over", "", "events: 500", "", "id: m@champion/drift/1", "version: m:v1", "since: t", "time: t",
    ]  # fmt: skip


@pytest.mark.parametrize("status", [500, 404, 0])
def test_what_does_not_arrive_is_reported_without_its_address(
    status: int, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), Receiver(status) as receiver:
        notifier = service(receiver.url, timeout_s=0.3 if status == 0 else 10.0)
        sent = notifier.send_document(NOTICE)
        shown = f"{notifier!r} {notifier.label} {sent}"
    assert (sent.arrived, sent.can_retry) == (False, True)
    assert sent.why == ("no answer within 0.3 s" if status == 0 else "it did not take the message")
    assert notifier.label == "the json service of apprise"
    for text in (shown, *capfd.readouterr(), " ".join(r.getMessage() for r in caplog.records if r.name == "apprise")):
        assert "a-secret-of-the-address" not in text


@pytest.mark.parametrize("url", ["slack://a-token-that-is-wrong", "nothing://a-token/x", "a-token", "", "json://"])
def test_an_address_that_apprise_does_not_know_is_refused_without_showing_it(
    url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MLScaleError, match="not an address of an apprise service") as caught:
        AppriseNotifier(url, where="alert.apprise")
    assert caught.value.where == "alert.apprise"
    assert "a-token" not in f"{caught.value}{caught.value.fix}{capfd.readouterr()}"


def test_a_service_that_is_slow_gets_it_once() -> None:
    with Receiver(delay_s=4.3) as receiver:  # apprise itself gives up after four seconds
        assert service(receiver.url, timeout_s=20.0).send_document(ALERT).arrived
    assert receiver.asked == 1


def test_nothing_is_written_to_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with Receiver() as receiver:
        assert service(receiver.url).send_document(ALERT).arrived
    assert list(tmp_path.iterdir()) == []
