"""Runs that tell how they ended, to a real server on loopback."""

from pathlib import Path

import pytest

from mlscale.cli import main
from mlscale.config.checks.trust import find_distrusted
from tests.contract.test_documents import validate
from tests.receiver import Receiver

WORDS = ("+recipe=resnet", "model=mlp", "snapshot=false", "callbacks=[default,notify]")
HOOK = "callbacks.notify.webhook=${oc.env:MY_HOOK}"


def test_a_rank_that_was_killed_is_reported_and_the_address_stands_nowhere(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail = ("trainer.devices=2", "+callbacks.fail={_target_:tests.dist.recorder.Fail,how:kill}")
    with Receiver() as receiver:
        monkeypatch.setenv("MY_HOOK", receiver.url)
        assert main([*WORDS, HOOK, *fail]) == 5
    (document,) = receiver.alerts
    validate("notice", document)
    assert document["event"] == "failed"
    assert document["sentence"].startswith("rank 1 was killed by SIGKILL")
    kept = [path.read_bytes() for path in (folder / "runs").rglob("*") if path.is_file()]
    assert not any(b"a-secret-of-the-address" in content for content in kept)
    assert "a-secret-of-the-address" not in "".join(capfd.readouterr())


def test_a_typed_address_of_apprise_stands_nowhere(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Receiver() as receiver:
        url = receiver.url.replace("http://", "json://")
        assert main([*WORDS, f"callbacks.notify.apprise=['{url}']", "debug=fast"]) == 0
    assert [message["type"] for message in receiver.alerts] == ["success"]
    kept = [path.read_bytes() for path in (folder / "runs").rglob("*") if path.is_file()]
    assert not any(b"a-secret-of-the-address" in content for content in kept)
    assert "a-secret-of-the-address" not in "".join(capfd.readouterr())


def test_a_run_that_is_done_and_nobody_who_listens(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Receiver() as receiver:
        assert main([*WORDS, f"callbacks.notify.webhook={receiver.url}", "debug=fast"]) == 0
    (document,) = receiver.alerts
    assert (document["event"], document["name"], document["metrics"]["steps"]) == ("finished", "resnet", 1)
    assert main([*WORDS, f"callbacks.notify.webhook={receiver.url}", "debug=fast", "callbacks.notify.tries=1"]) == 0
    assert "warning   callbacks.notify: the webhook at 127.0.0.1: Connection refused" in capfd.readouterr().err


def test_somebody_elses_run_reports_nobody(tmp_path: Path) -> None:
    def problems(typed: tuple[str, ...] = (), **settings: object) -> int:
        node = {"_target_": "mlscale.train.callbacks.Notify", **settings}
        return len(find_distrusted({"callbacks": {"mine": node}}, tmp_path, typed))

    assert problems(webhook=None, command=None, mail={"host": None}) == 0
    assert problems(webhook="${oc.env:HOOK}") == 0
    assert problems(webhook="https://x.org/${oc.env:AWS_SECRET_ACCESS_KEY}") == 1
    assert problems(apprise=["${oc.env:A}", "${oc.env:B}"]) == 0
    assert problems(apprise=["${oc.env:A}", "slack://${oc.env:AWS_SECRET_ACCESS_KEY}/x/y"]) == 1
    assert problems(apprise="json://x.org/${oc.env:AWS_SECRET_ACCESS_KEY}") == 1
    assert problems(command=["sh", "-c", "…"], mail={"host": "x.org"}) == 2
    assert problems(("callbacks.mine.command",), command=["notify-send"]) == 0
