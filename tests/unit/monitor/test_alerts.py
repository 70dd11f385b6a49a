"""Each incident is told twice, when it begins and when it is over, whatever happens to the webhook and the process."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from mlscale.errors import MLScaleError
from mlscale.monitor import monitor_state as state
from mlscale.monitor.alert_rule import AlertPolicy
from mlscale.monitor.alerts import AlertDispatcher, AlertReport
from mlscale.monitor.window_check import RULES, RuleResult, WindowCheck
from mlscale.notify.webhook import Webhook
from mlscale.outbox import RetryPolicy
from tests.contract.test_documents import validate
from tests.receiver import Receiver

AT_EACH_LOOK = RetryPolicy(backoff_s=(), max_refusals=100, max_age_s=7 * 86_400)
BEGIN = datetime(2026, 1, 5, 10, tzinfo=UTC)


def desk(folder: Path, webhook: Webhook | None = None, patience: AlertPolicy | None = None) -> AlertDispatcher:
    patience = patience or AlertPolicy(keep=1, cooldown=0)
    recipients = {"webhook": webhook} if webhook else {}
    state = folder / "monitor" / "m_champion.json"
    return AlertDispatcher(state, "m@champion", tuple(RULES), patience, recipients, retries=AT_EACH_LOOK)


def looks(at: AlertDispatcher, *levels: float | None, version: str = "m:v1", start: int = 0) -> list[AlertReport]:
    """What came of looks a minute apart at which drift had these levels."""
    reported = []
    for index, level in enumerate(levels):
        signals = (
            RuleResult("drift", level, f"level {level}", {"largest_distance": float("nan")}),
            RuleResult("degradation", 0.0, "fine"),
        )
        now = BEGIN + timedelta(minutes=start + index)
        reported.append(at.process_check(WindowCheck(version, signals, (), 500), "m", now))
    return reported


def statuses(receiver: Receiver) -> list[str]:
    return [alert["status"] for alert in receiver.alerts]


def test_one_alert_over_many_looks_and_one_when_it_is_over(tmp_path: Path) -> None:
    with Receiver() as receiver:
        reported = looks(desk(tmp_path, Webhook(receiver.url)), 0, 2, 3, 2, 2, 0, 0)
    assert statuses(receiver) == ["firing", "resolved"]
    assert [len(each.changes) for each in reported] == [0, 1, 0, 0, 0, 1, 0]
    assert [each.firing for each in reported] == [(), *[("drift",)] * 4, (), ()]
    first, last = receiver.alerts
    for alert in receiver.alerts:
        validate("alert", alert)
    assert first["id"] == last["id"] == "m@champion/drift/2026-01-05T10:01:00.000+00:00"
    assert (first["sentence"], last["sentence"]) == ("m:v1: level 2", "m:v1: drift is over: level 0")
    assert first["metrics"] == {"events": 500, "largest_distance": None}
    validate("monitor_state", json.loads((tmp_path / "monitor/m_champion.json").read_text()))


@pytest.mark.parametrize("status", [500, 404, 0])
def test_a_dead_webhook_loses_nothing(tmp_path: Path, status: int) -> None:
    with Receiver(status) as receiver:
        at = desk(tmp_path, Webhook(receiver.url, timeout_s=0.1, tries=1, answer_s=0.1))
        reported = looks(at, 2, 2, 0, 0)
        assert [each.waiting for each in reported] == [1, 1, 2, 2]
        assert "the webhook at 127.0.0.1 took no alert" in reported[0].problem
        assert not receiver.alerts
    documents = [path.read_text() for path in (tmp_path / "monitor").rglob("*.json")]
    assert "a-secret-of-the-address" not in "".join(documents)
    validate("monitor_state", json.loads((tmp_path / "monitor/m_champion.json").read_text()))
    waiting = sorted((tmp_path / "monitor/m_champion-outbox/webhook").glob("*.json"))
    assert [json.loads(path.read_text())["body"]["status"] for path in waiting] == ["firing", "resolved"]
    with Receiver() as receiver:
        (reported_now,) = looks(replace(at, recipients={"webhook": Webhook(receiver.url)}), 0, start=10)
        assert (reported_now.sent, reported_now.waiting, reported_now.problem) == (2, 0, "")
        looks(replace(at, recipients={"webhook": Webhook(receiver.url)}), 0, start=11)
    assert statuses(receiver) == ["firing", "resolved"]
    assert not (tmp_path / "monitor/m_champion-outbox").exists()


def test_a_recipient_who_is_away_holds_up_no_other(tmp_path: Path) -> None:
    with Receiver() as receiver, Receiver(500) as away:
        recipients = {"webhook": Webhook(away.url, tries=1), "apprise-1": Webhook(receiver.url)}
        reported = looks(replace(desk(tmp_path), recipients=recipients), 2, 0, 0)
        assert [(each.sent, each.waiting) for each in reported] == [(1, 1), (1, 2), (0, 2)]
        assert statuses(receiver) == ["firing", "resolved"]
        # It is set no more: what waits for it is still counted.
        (reported_now,) = looks(replace(desk(tmp_path), recipients={"apprise-1": Webhook(receiver.url)}), 0, start=9)
        assert (reported_now.sent, reported_now.waiting) == (0, 2)


EXAMPLE = Path(__file__).parents[2] / "contract/examples/monitor_state-1.json"


def test_alerts_that_an_earlier_version_kept_in_the_state_are_sent(tmp_path: Path) -> None:
    at = desk(tmp_path)
    at.path.parent.mkdir()
    at.path.write_text(EXAMPLE.read_text())
    kept = json.loads(EXAMPLE.read_text())["outbox"]
    assert kept
    (reported,) = looks(at, None, version="resnet:v7")
    assert (reported.sent, reported.waiting) == (0, len(kept))  # no receiver is set
    with Receiver() as receiver:
        (reported,) = looks(
            replace(at, recipients={"webhook": Webhook(receiver.url)}), None, version="resnet:v7", start=1
        )
    assert receiver.alerts[: len(kept)] == kept
    assert reported.waiting == 0
    assert json.loads(at.path.read_text())["outbox"] == []


def test_a_monitor_that_is_killed_before_an_alert_is_in_its_folder_sends_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Receiver() as receiver:
        at = desk(tmp_path, Webhook(receiver.url))
        with monkeypatch.context() as patch:
            patch.setattr(AlertDispatcher, "_enqueue_alerts", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                looks(at, 2)
        assert not receiver.alerts
        assert [each.sent for each in looks(at, 2, 2, start=1)] == [1, 0]
    assert statuses(receiver) == ["firing"]


def test_an_alert_that_is_a_week_old_or_corrupt_is_kept_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Receiver(500) as receiver:
        at = desk(tmp_path, Webhook(receiver.url, tries=1))
        looks(at, 2, 0)
        first, second = sorted((tmp_path / "monitor/m_champion-outbox/webhook").glob("*.json"))
        first.write_text("{")
        document = json.loads(second.read_text())
        second.write_text(json.dumps({**document, "created": document["created"] - 8 * 86_400}))
        (reported,) = looks(at, 0, start=5)
    assert reported.waiting == 0
    assert "an alert is not sent any more" in reported.problem
    assert "can't be read" in reported.problem
    assert "given up: it answered 500" in reported.problem
    assert len(list((tmp_path / "monitor/m_champion-outbox/webhook/failed").glob("*.json"))) == 2


def test_a_webhook_that_is_dead_is_asked_for_one_alert_a_look(tmp_path: Path) -> None:
    with Receiver(500) as receiver:
        looks(desk(tmp_path, Webhook(receiver.url, tries=1)), 2, 0, 2, 0)
        assert receiver.asked == 4


def test_without_a_webhook_nothing_waits(tmp_path: Path) -> None:
    reported = looks(desk(tmp_path), 2, 0)
    assert [(len(each.changes), each.waiting) for each in reported] == [(1, 0), (1, 0)]


def test_nothing_known_changes_nothing(tmp_path: Path) -> None:
    reported = looks(desk(tmp_path), 2, None, None)
    assert reported[-1].firing == ("drift",)
    assert looks(desk(tmp_path), 0, start=5)[0].changes[0]["status"] == "resolved"


def test_another_version_ends_the_incidents_of_the_one_before(tmp_path: Path) -> None:
    with Receiver() as receiver:
        at = desk(tmp_path, Webhook(receiver.url), AlertPolicy(keep=5, cooldown=5))
        looks(at, 2)
        (reported,) = looks(at, 2, version="m:v2", start=1)
    assert [(alert["status"], alert["version"]) for alert in reported.changes] == [
        ("resolved", "m:v1"),
        ("firing", "m:v2"),
    ]
    assert receiver.alerts[1]["sentence"] == "m:v1: drift is over: m:v2 took its place"
    assert receiver.alerts[1]["id"] == receiver.alerts[0]["id"] != receiver.alerts[2]["id"]


def test_a_rule_that_is_watched_no_more_is_over(tmp_path: Path) -> None:
    looks(desk(tmp_path), 2)
    (reported,) = looks(replace(desk(tmp_path), rules=("degradation",)), 2, start=1)
    assert [alert["sentence"] for alert in reported.changes] == ["m:v1: drift is over: the rule is watched no more"]
    assert reported.firing == ()


def test_what_may_become_an_incident_is_pending(tmp_path: Path) -> None:
    reported = looks(desk(tmp_path, patience=AlertPolicy(looks=3)), 2, 2, 2)
    assert [(each.pending, each.firing) for each in reported] == [(("drift",), ())] * 2 + [((), ("drift",))]


ODD = {"drift": {"phase": "odd", "count": 0, "quiet": 0, "since": ""}}
STATE = {"format": "mlscale/monitor_state/1", "version": "m:v1", "looks": 1, "rules": ODD, "outbox": []}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": "mlscale/monitor_state/1"}', json.dumps(STATE)])
def test_a_damaged_state_begins_anew_and_says_so(tmp_path: Path, content: str) -> None:
    path = desk(tmp_path).path
    path.parent.mkdir()
    path.write_text(content)
    (reported,) = looks(desk(tmp_path), 2)
    assert "the state was corrupt and is re-initialised" in reported.problem
    assert reported.firing == ("drift",)
    assert looks(desk(tmp_path), 2, start=1)[0].problem == ""


def test_a_state_of_a_later_format_is_not_overwritten(tmp_path: Path) -> None:
    path = desk(tmp_path).path
    path.parent.mkdir()
    path.write_text('{"format": "mlscale/monitor_state/9"}')
    with pytest.raises(MLScaleError, match="later mlscale"):
        looks(desk(tmp_path), 2)
    assert "/9" in path.read_text()


def test_a_state_that_can_not_be_written_is_reported_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "monitor").write_text("a file where a folder should be")
    with pytest.raises(MLScaleError) as caught:
        looks(desk(tmp_path), 2)
    assert caught.value.exit == 5
    assert "alert.state=" in caught.value.fix
    assert caught.value.where.startswith(str(tmp_path / "monitor"))
    assert caught.value.why == "Not a directory"


def test_only_errors_of_the_disk_are_about_the_state() -> None:
    with pytest.raises(MLScaleError, match="of its own") as caught, state.report_state_errors():
        raise MLScaleError("of its own", fix="ref=last")
    assert caught.value.fix == "ref=last"
    with pytest.raises(MLScaleError, match="can't write") as caught, state.report_state_errors():
        raise OSError("a cause without a number")
    assert (caught.value.why, caught.value.fix[:12]) == ("a cause without a number", "alert.state=")


def test_two_monitors_tell_an_incident_once(tmp_path: Path) -> None:
    """Four that look at the same time: the lock is of the open file, so threads exclude each other as processes do."""
    with Receiver() as receiver:
        at = desk(tmp_path, Webhook(receiver.url))
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: looks(at, 2), range(4)))
    assert statuses(receiver) == ["firing"]
    assert state.load_state(at.path).looks == 4


def test_a_monitor_that_holds_the_state_for_good_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "_WAIT_SECONDS", 0.2)
    at = desk(tmp_path)
    with state.lock_state(at.path), pytest.raises(MLScaleError, match="another monitor with the same state") as caught:
        looks(at, 2)
    assert (caught.value.where, caught.value.exit) == (str(at.path), 5)


def look_at(at: AlertDispatcher, level: float, begin: int, minute: int, *, is_weak: bool = False) -> AlertReport:
    """A look at 100 events, one each minute from `begin` on."""
    times = np.datetime64("2026-01-05T00:00", "us") + np.arange(begin, begin + 100).astype("timedelta64[m]")
    results = (RuleResult("drift", level, "changed", is_weak=is_weak),)
    return at.process_check(WindowCheck("m:v1", results, (), 100, times), "m", BEGIN + timedelta(minutes=minute))


def test_a_window_that_is_mostly_the_last_one_is_no_second_piece_of_evidence(tmp_path: Path) -> None:
    at = desk(tmp_path, patience=AlertPolicy(looks=2, keep=1, cooldown=0))
    # Windows that move by 10 of 100 events: the third look over the limit is at the same evidence as the first.
    overlapping = [look_at(at, 2, begin, begin) for begin in (0, 10, 20, 40)]
    assert [(report.pending, report.firing) for report in overlapping] == [(("drift",), ())] * 4
    assert look_at(at, 2, 50, 50).firing == ("drift",)
    # Nor is a look below the limit at what was over it before.
    assert look_at(at, 0, 90, 90).firing == ("drift",)
    assert look_at(at, 0, 100, 100).firing == ()


def test_the_first_look_over_the_limit_counts_at_once(tmp_path: Path) -> None:
    at = desk(tmp_path)
    assert look_at(at, 0, 0, 0).firing == ()
    assert look_at(at, 2, 1, 1).firing == ("drift",)
    document = json.loads((tmp_path / "monitor/m_champion.json").read_text())
    validate("monitor_state", document)
    assert document["counted"] == "2026-01-05T01:40:00.000000"


def test_weak_evidence_is_confirmed_by_other_events_or_by_strong_evidence(tmp_path: Path) -> None:
    at = desk(tmp_path / "other events")
    assert look_at(at, 2, 0, 0, is_weak=True).pending == ("drift",)
    # Windows that share events with it neither confirm it nor end it.
    assert look_at(at, 2, 60, 60, is_weak=True).pending == ("drift",)
    assert look_at(at, 0, 90, 90).pending == ("drift",)
    assert look_at(at, 2, 100, 100, is_weak=True).firing == ("drift",)

    at = desk(tmp_path / "strong")
    look_at(at, 2, 0, 0, is_weak=True)
    assert look_at(at, 2, 10, 10).firing == ("drift",)

    at = desk(tmp_path / "chance")
    look_at(at, 2, 0, 0, is_weak=True)
    quiet = look_at(at, 0, 100, 100)
    assert (quiet.pending, quiet.firing) == ((), ())
    assert look_at(at, 2, 110, 110, is_weak=True).firing == ()


def test_an_incident_that_began_under_the_former_name_of_its_rule_ends_with_the_same_id(tmp_path: Path) -> None:
    since = "2026-01-05T09:00:00.000+00:00"
    rule = {"phase": "firing", "count": 0, "quiet": 0, "since": since}
    document = {
        "format": "mlscale/monitor_state/1", "version": "m:v1", "looked": since, "looks": 1, "rules": {"damage": rule},
        "outbox": [],
    }  # fmt: skip
    (tmp_path / "monitor").mkdir()
    (tmp_path / "monitor/m_champion.json").write_text(json.dumps(document))
    first, second = looks(desk(tmp_path, patience=AlertPolicy(keep=2)), 0, 0)
    assert first.firing == ("degradation",)
    (alert,) = second.changes
    assert (alert["rule"], alert["status"]) == ("degradation", "resolved")
    assert alert["id"] == f"m@champion/damage/{since}"
