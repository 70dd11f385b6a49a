"""Who is told of a run's end, and of what: real servers on loopback, and documents that keep their contract."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from mlscale.errors import MLScaleError
from mlscale.runs.folder import RunFolder
from mlscale.train.callbacks import Notify
from mlscale.train.callbacks.stall import StallReport
from tests.contract.test_documents import validate
from tests.receiver import Receiver
from tests.smtp_sink import Sink


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    made = RunFolder.create(tmp_path / "runs", "resnet", command="train", config_yaml="a: 1", seed=0)
    made.start_attempt()
    return made


@pytest.mark.parametrize(
    ("status", "event"),
    [("done", "finished"), ("failed", "failed"), ("diverged", "diverged"), ("interrupted", "stopped")],
)
def test_each_end_is_reported_to_all(tmp_path: Path, run: RunFolder, status: str, event: str) -> None:
    copy = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_bytes(sys.stdin.buffer.read())"
    with Receiver() as receiver, Receiver() as service, Sink() as sink:
        mail = {"host": "127.0.0.1", "port": sink.port, "to": ["me@x.org"], "sender": "me@x.org", "security": "none"}
        command = [sys.executable, "-c", copy, str(tmp_path / "told")]
        run.seal_run(status, metrics={"val/accuracy": 0.5, "x": float("nan")}, sentence="resnet: as it went")
        apprise = [service.url.replace("http://", "json://")]
        Notify(webhook=receiver.url, command=command, mail=mail, apprise=apprise).run_ended(run)
    (document,) = receiver.alerts
    validate("notice", document)
    assert (document["event"], document["run"], document["metrics"]) == (event, run.id, {"val/accuracy": 0.5})
    assert json.loads((tmp_path / "told").read_text()) == document
    (message,) = sink.mails
    assert message["Subject"] == f"resnet {event}: resnet: as it went"
    assert "val/accuracy: 0.5" in message.get_content()
    assert service.alerts[0]["title"] == "resnet: as it went"
    assert f"run: {run.id}" in service.alerts[0]["message"]


def test_only_what_is_asked_for(run: RunFolder) -> None:
    with Receiver() as receiver:
        notify = Notify(when=["failed"], webhook=receiver.url)
        run.seal_run("done")
        notify.run_ended(run)
        notify._folder = run.path
        notify.on_stall(StallReport("no step", None))
    assert receiver.asked == 0


def test_a_run_that_hangs(run: RunFolder) -> None:
    with Receiver() as receiver:
        notify = Notify(webhook=receiver.url)
        notify._folder = run.path
        notify.on_stall(StallReport("no step for 60 s, a step takes 1 s", None))
    (document,) = receiver.alerts
    validate("notice", document)
    assert document["event"] == "hung"
    assert document["sentence"].endswith("a step takes 1 s")


def test_a_service_of_apprise_that_is_not_there_is_a_line(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    run.seal_run("done")
    with Receiver(500) as receiver:
        Notify(apprise=receiver.url.replace("http://", "json://")).run_ended(run)
    printed = capsys.readouterr().err
    assert printed == "warning   callbacks.notify: the json service of apprise: it did not take the message\n"


def test_apprise_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlscale.export.required_extras.find_spec", lambda name: None)
    with pytest.raises(MLScaleError, match="apprise is not installed") as caught:
        Notify(apprise=["json://127.0.0.1"])
    assert caught.value.exit == 5
    assert caught.value.fix == "pip install 'mlscale[notify]'"


def test_who_is_not_there_is_a_line(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    run.seal_run("done")
    with Receiver(500) as receiver:
        Notify(webhook=receiver.url, tries=1).run_ended(run)
    printed = capsys.readouterr().err
    assert printed == "warning   callbacks.notify: the webhook at 127.0.0.1: it answered 500\n"
    assert "a-secret-of-the-address" not in printed


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({}, "it has no recipient"),
        ({"mail": {"host": None, "to": None}}, "it has no recipient"),
        ({"webhook": "ftp://x"}, "not the address of a web server"),
        ({"webhook": "http://x", "when": ["exploded"]}, "'exploded' is none of finished"),
        ({"mail": {"host": "x.org", "to": ["a@x.org"]}}, "a mail has no sender"),
    ],
)
def test_settings_that_are_none(settings: dict[str, Any], what: str) -> None:
    with pytest.raises(MLScaleError, match=what) as reported:
        Notify(**settings)
    assert reported.value.where.startswith("callbacks.notify.")
