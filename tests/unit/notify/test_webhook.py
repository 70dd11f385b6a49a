"""An alert to real servers that take it, refuse it, and behave as badly as they can."""

import socket
import time

import pytest

from mlscale.errors import MLScaleError
from mlscale.notify.delivery import DeliveryResult
from mlscale.notify.webhook import Webhook
from tests.receiver import Receiver

ALERT = {"rule": "drift", "sentence": "0.31 → 0.62"}


def test_it_arrives_once() -> None:
    with Receiver() as receiver:
        assert Webhook(receiver.url).send_document(ALERT).arrived
    assert receiver.alerts == [ALERT]


def test_a_server_that_stumbles_is_asked_again() -> None:
    with Receiver(503, 429, 200) as receiver:
        assert Webhook(receiver.url).send_document(ALERT).arrived
    assert (receiver.asked, receiver.alerts) == (3, [ALERT])


def test_tries_are_bounded() -> None:
    with Receiver(500) as receiver:
        sent = Webhook(receiver.url, tries=2).send_document(ALERT)
    assert (sent, receiver.asked) == (DeliveryResult(False, True, "it answered 500"), 2)


@pytest.mark.parametrize("status", [400, 404, 302])
def test_what_no_other_try_would_change_is_asked_once(status: int) -> None:
    with Receiver(status) as receiver:
        assert Webhook(receiver.url).send_document(ALERT) == DeliveryResult(False, False, f"it answered {status}")
    assert receiver.asked == 1


@pytest.mark.parametrize("status", [0, -1])
def test_a_server_that_hangs_or_drips_is_left(status: int) -> None:
    with Receiver(status) as receiver:
        start = time.monotonic()
        sent = Webhook(receiver.url, timeout_s=0.2, tries=2, answer_s=0.2).send_document(ALERT)
        assert time.monotonic() - start < 5
    assert (sent.arrived, sent.can_retry, sent.may_have_arrived) == (False, True, True)
    assert receiver.asked == 1  # it has the document


def test_a_server_that_is_slow_gets_it_once() -> None:
    with Receiver(delay_s=0.5) as receiver:
        assert Webhook(receiver.url, timeout_s=0.1).send_document(ALERT).arrived
    assert (receiver.asked, receiver.alerts) == (1, [ALERT])


@pytest.mark.parametrize("status", [-2, 502, 504])
def test_what_may_have_arrived_is_not_sent_again_at_once(status: int) -> None:
    with Receiver(status) as receiver:
        sent = Webhook(receiver.url).send_document(ALERT)
    assert (sent.arrived, sent.can_retry, sent.may_have_arrived, receiver.asked) == (False, True, True, 1)


def test_each_try_has_the_same_key() -> None:
    document = {**ALERT, "id": "m@champion/drift/2026-01-05T10:01:00.000+00:00", "status": "firing", "ä": "ö"}
    with Receiver(500, 200) as receiver:
        assert Webhook(receiver.url).send_document(document).arrived
        assert Webhook(receiver.url).send_document({**document, "id": "modèle b/drift/t"}).arrived
    assert receiver.keys == [f"{document['id']}/firing"] * 2 + ["mod%C3%A8le%20b/drift/t/firing"]


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    sent = Webhook(f"http://127.0.0.1:{port}/", tries=1).send_document(ALERT)
    assert sent == DeliveryResult(False, True, "Connection refused")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/x",
        "file:///etc/passwd",
        "hooks.example.org",
        "",
        "http:///x",
        "http://h:port/",
        "http://h/a b",
        "http://[/",
    ],
)
def test_what_is_no_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(MLScaleError, match="not the address of a web server") as caught:
        Webhook(url)
    assert not url or url not in str(caught.value)


def test_nothing_of_the_address_but_the_host_is_reported() -> None:
    webhook = Webhook("https://user:word@hooks.example.org/services/T0/B0/secret")
    assert webhook.host == "hooks.example.org"
    assert repr(webhook) == "Webhook(hooks.example.org)"
