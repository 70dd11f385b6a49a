"""The parts of a tour: samples and shifts, clients that check, the receiver of alerts, and the telling of steps."""

import json
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlscale.commands.lifecycle.alert_receiver import receive_alerts
from mlscale.commands.lifecycle.clients import ServerClient, send_checked_requests
from mlscale.commands.lifecycle.entry import _describe_end, list_steps
from mlscale.commands.lifecycle.step_log import StepOutcome, Tour
from mlscale.errors import MLScaleError, raise_all
from mlscale.loadtest.build_requests import build_requests
from mlscale.loadtest.load_samples import RequestSamples
from mlscale.loadtest.server_model import ServerModel
from mlscale.runs.folder import RunFolder
from mlscale.secrets.mask import Masker
from tests.unit.loadtest.servers import Answer, label, serving

RAW = np.random.default_rng(0).integers(0, 256, (6, 1, 4, 4), np.uint8)


REQUESTS = build_requests("bytes", RequestSamples("", {"input": RAW}), ServerModel("sums", ()), 1)


class Expected:
    """What the server of the tests gives for `RAW`."""

    def __init__(self, version: str) -> None:
        assert version == "sums:v1"

    def find_problem(self, answer: Mapping[str, Any], row: int) -> str:
        wanted = label(RAW[row])
        right = {"label": wanted, "probabilities": [0.8 if name == wanted else 0.1 for name in "abc"]}
        return "" if answer == right else f"it is {answer['probabilities']}"


def test_clients_count_and_check_each_answer() -> None:
    with serving() as server, send_checked_requests(server.url, REQUESTS, Expected, clients=2) as asked:
        while server.asked < 30:
            pass
    assert asked.requests >= 29
    assert (asked.dropped, asked.wrong) == ([], [])
    assert asked.versions["sums:v1"] == asked.requests == len(asked.log)


def _spoil(answer: Answer, number: int) -> Answer | None:
    """Every third answer is of another model, every third is missing."""
    status, headers, body = answer
    return (answer, (status, headers, body.replace(b"0.8", b"0.7")), None)[number % 3]


def test_answers_that_are_wrong_or_missing_are_reported_apart() -> None:
    with serving(_spoil) as server, send_checked_requests(server.url, REQUESTS, Expected, clients=1) as asked:
        while server.asked < 12:
            pass
    assert abs(len(asked.dropped) - len(asked.wrong)) <= 1
    assert len(asked.dropped) >= 3
    assert asked.requests == len(asked.dropped) + sum(asked.versions.values())
    assert "0.7" in asked.wrong[0]


def test_an_answer_of_a_version_that_is_not_there_is_wrong() -> None:
    def fail(version: str) -> Expected:
        raise MLScaleError("no such version")

    with serving() as server, send_checked_requests(server.url, REQUESTS, fail, clients=1) as asked:
        while server.asked < 3:
            pass
    assert asked.wrong[0] == "sums:v1: no such version"


def test_a_client_reports_an_error_of_the_server() -> None:
    with serving(lambda answer, number: (503, {}, b'{"error": "busy"}')) as server:
        client = ServerClient(server.url)
        with pytest.raises(MLScaleError, match="does not answer POST /predict") as caught:
            client.request_prediction(REQUESTS[0])
        client.close()
    assert "503" in caught.value.why


def test_a_client_returns_the_answer_without_its_id() -> None:
    with serving() as server:
        client = ServerClient(server.url)
        version, answer = client.request_prediction(REQUESTS[1], "x-1")
        client.close()
    assert (version, answer["label"], sorted(answer)) == ("sums:v1", label(RAW[1]), ["label", "probabilities"])


def test_where_labels_change_the_gate_has_a_step_of_its_own() -> None:
    titles = [title for title, _ in list_steps("concept")]
    assert titles[-4:] == ["alert", "gate", "retrain", "swap"]
    assert [title for title in titles if title != "gate"] == [title for title, _ in list_steps("auto")]


def test_a_receiver_keeps_what_arrives() -> None:
    with receive_alerts() as receiver:
        for body in (b'{"status": "firing"}', b"no json"):
            request = urllib.request.Request(receiver.url, body, {"Content-Type": "application/json"})
            try:
                urllib.request.urlopen(request, timeout=5).close()
            except urllib.error.HTTPError as error:
                error.close()
    assert receiver.alerts == [{"status": "firing"}]


def tour(tmp_path: Path, *titles: str) -> Tour:
    return Tour(RunFolder.create(tmp_path, "x", command="lifecycle", config_yaml="a: 1"), titles, Masker())


def test_steps_are_reported_and_what_their_verbs_print_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def act() -> StepOutcome:
        print("of the verb")
        return StepOutcome("3 apples", "all of them red", metrics={"apples": 3})

    going = tour(tmp_path, "pick", "wash")
    assert going.take_step(act)
    assert not going.ok
    assert not going.take_step(lambda: StepOutcome("0 apples", "no water", ok=False))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0].startswith("[ 1/2] pick  3 apples, all of them red  (")
    assert err.splitlines()[1].startswith("[ 2/2] wash  STOP  0 apples, no water  (")
    assert (going.folder.path / "logs/01-pick.log").read_text() == "of the verb\n"
    assert going.metrics["apples"] == 3
    assert set(going.metrics) == {"apples", "pick_time_s", "wash_time_s"}
    assert not going.ok


def test_a_step_that_raises_is_reported_and_what_follows_is_not_reached(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def act() -> StepOutcome:
        raise MLScaleError("no ladder")

    going = tour(tmp_path, "pick", "wash")
    with pytest.raises(MLScaleError):
        going.take_step(act)
    assert "STOP  no ladder" in capsys.readouterr().err
    assert [(step.title, step.ok) for step in going.list_steps()] == [("pick", False), ("wash", None)]
    assert json.dumps(going.metrics)


def test_a_step_whose_line_nothing_reads_is_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    going = tour(tmp_path, "pick", "wash")
    assert _describe_end(going) == "stopped at the start"

    def refuse(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("mlscale.commands.lifecycle.step_log.print_masked_lines", refuse)
    with pytest.raises(BrokenPipeError):
        going.take_step(lambda: StepOutcome("3 apples", "all of them red"))
    assert [(step.title, step.ok) for step in going.list_steps()] == [("pick", True), ("wash", None)]
    # The step that passed is not the reason.
    assert _describe_end(going) == "ended after [1/2] pick"
    monkeypatch.undo()
    going.take_step(lambda: StepOutcome("0 apples", "no water", ok=False))
    assert _describe_end(going) == "stopped at [2/2] wash: no water"


def test_of_several_problems_a_step_names_the_first(tmp_path: Path) -> None:
    def act() -> StepOutcome:
        raise_all([MLScaleError("no ladder"), MLScaleError("no basket"), MLScaleError("no tree")])
        return StepOutcome("", "")

    going = tour(tmp_path, "pick")
    with pytest.raises(MLScaleError, match="no tree"):
        going.take_step(act)
    assert going.list_steps()[0].sentence == "no ladder, and 2 more problems"
