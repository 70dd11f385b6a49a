"""A tour's client, which checks each answer, and its receiver of alerts."""

import time
import urllib.request
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mlscale.commands.lifecycle.production import CheckedClient, LabelledSamples, receive_alerts
from mlscale.errors import MLScaleError
from tests.unit.loadtest.servers import Answer, label, serving

RAW = np.random.default_rng(0).integers(0, 256, (6, 1, 4, 4), np.uint8)


def expect_answer(servable: Any, sample: Any) -> dict[str, Any]:
    return {"label": label(sample), "probabilities": [0.8 if name == label(sample) else 0.1 for name in "abc"]}


@pytest.fixture(autouse=True)
def _known_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlscale.commands.lifecycle.production.answer_sample", expect_answer)


def make_client(url: str, load: Any = None) -> CheckedClient:
    servable: Any = SimpleNamespace(
        encoder=SimpleNamespace(kind="tensor"),
        input=SimpleNamespace(name="input"),
        task_type=SimpleNamespace(describe_answer=lambda names: {}),
        names=None,
    )
    return CheckedClient(url, list(RAW), load or (lambda version: servable), servable)


def test_each_answer_is_counted_and_checked() -> None:
    with serving() as server:
        client = make_client(server.url)
        client.send_all()
        assert (client.problems, client.requests, client.versions["sums:v1"], client.largest) == ([], 6, 6, 0)
        with client.keep_sending():
            while server.asked < 20:
                time.sleep(0.01)
    assert client.problems == []
    assert client.requests >= 19


def _spoil(answer: Answer, number: int) -> Answer | None:
    """Every third answer is of another model, every third is missing."""
    status, headers, body = answer
    return (answer, (status, headers, body.replace(b"0.8", b"0.7")), None)[number % 3]


def test_answers_that_are_wrong_or_missing_are_reported_apart() -> None:
    with serving(_spoil) as server:
        client = make_client(server.url)
        client.send_all()
    assert (len(client.dropped), len(client.wrong), client.requests) == (2, 2, 6)
    assert "0.7" in client.wrong[0]
    assert client.largest == pytest.approx(0.1)


def test_an_answer_of_a_version_that_is_not_there_is_wrong() -> None:
    def fail(version: str) -> Any:
        raise MLScaleError("no such version")

    with serving() as server:
        client = make_client(server.url, fail)
        client.send_all()
    assert client.wrong[0] == "sums:v1: no such version"


def test_an_error_of_the_server_is_a_dropped_request_and_no_labels() -> None:
    with serving(lambda answer, number: (503, {}, b'{"error": "busy"}')) as server:
        client = make_client(server.url)
        client.send_all()
        with pytest.raises(MLScaleError, match="the server does not take labels") as caught:
            client.send_labels(["a"], 0)
    assert "503" in client.dropped[0]
    assert caught.value.where == "POST /labels"


def test_a_receiver_keeps_what_arrives() -> None:
    with receive_alerts() as (url, alerts):
        request = urllib.request.Request(url, b'{"status": "firing"}', {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=5).close()
    assert alerts == [{"status": "firing"}]


def test_samples_come_in_batches_with_their_truth() -> None:
    batches = list(LabelledSamples(list(range(600)), np.arange(600) % 7).iterate_batches())
    assert [row for raw, _ in batches for row in raw] == list(range(600))
    assert sum(len(truth) for _, truth in batches) == 600
    assert len(batches) > 1
