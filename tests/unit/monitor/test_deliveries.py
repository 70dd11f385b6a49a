"""Each alert is delivered once to each recipient, however slow or broken it is: the deliveries are counted."""

import json
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from mlscale.monitor.alert_rule import AlertPolicy
from mlscale.monitor.alerts import AlertDispatcher, AlertReport
from mlscale.monitor.window_check import RULES, RuleResult, WindowCheck
from mlscale.notify.command_notifier import CommandNotifier
from mlscale.notify.delivery import DocumentRecipient
from mlscale.notify.mail_notifier import MailNotifier
from mlscale.notify.webhook import Webhook
from tests.receiver import Receiver
from tests.smtp_sink import Sink
from tests.unit.monitor.test_alerts import BEGIN


class Clock:
    """The time of the outboxes, which a look moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 1_000_000.0
        monkeypatch.setattr("mlscale.outbox.item_queue.time.time", lambda: self.seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Monitor:
    """Looks at which drift is over its limit, by default; each later than the one before."""

    def __init__(self, folder: Path, clock: Clock, **recipients: DocumentRecipient) -> None:
        state = folder / "monitor/m.json"
        self.desk = AlertDispatcher(state, "m@champion", tuple(RULES), AlertPolicy(keep=1, cooldown=0), recipients)
        self.clock = clock

    def look(self, after_s: float = 0.0, level: float = 2.0) -> AlertReport:
        self.clock.seconds += after_s
        check = WindowCheck("m:v1", (RuleResult("drift", level, "it drifted"),), (), 500)
        return self.desk.process_check(check, "m", BEGIN + timedelta(seconds=self.clock.seconds))


def test_a_receiver_that_answers_after_the_timeout_gets_it_once(tmp_path: Path, clock: Clock) -> None:
    with Receiver(delay_s=0.6) as receiver:
        monitor = Monitor(tmp_path, clock, webhook=Webhook(receiver.url, timeout_s=0.2))
        reports = [monitor.look(60) for _ in range(3)]
    assert [(report.sent, report.waiting) for report in reports] == [(1, 0), (0, 0), (0, 0)]
    assert (receiver.asked, len(receiver.alerts)) == (1, 1)


def test_one_that_never_answers_gets_it_again_later_and_later_with_the_same_key(tmp_path: Path, clock: Clock) -> None:
    with Receiver(0) as receiver:
        webhook = Webhook(receiver.url, timeout_s=0.05, answer_s=0.05)
        monitor = Monitor(tmp_path, clock, webhook=webhook)
        counts = []
        for _ in range(14):  # a look every 15 s
            monitor.look(15)
            counts.append(receiver.asked)
        assert monitor.look(0).waiting == 1
    # At 0, 30, 90 and 210 s.
    assert counts == [1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3]
    assert len(set(receiver.keys)) == 1
    assert receiver.keys[0].startswith("m@champion/drift/")
    assert receiver.keys[0].endswith("/firing")


def test_a_reset_after_the_document_was_sent_is_not_followed_by_another_try_at_once(
    tmp_path: Path, clock: Clock
) -> None:
    with Receiver(-2, 200) as receiver:
        monitor = Monitor(tmp_path, clock, webhook=Webhook(receiver.url))
        assert (monitor.look().sent, receiver.asked) == (0, 1)
        assert (monitor.look(10).sent, receiver.asked) == (0, 1)
        assert (monitor.look(30).sent, receiver.asked) == (1, 2)
        assert monitor.look(60).sent == 0
    assert receiver.asked == 2


def test_a_receiver_that_fails_first_gets_it_once(tmp_path: Path, clock: Clock) -> None:
    with Receiver(500, 200) as receiver:
        monitor = Monitor(tmp_path, clock, webhook=Webhook(receiver.url))
        reports = [monitor.look(60) for _ in range(3)]
    assert [report.sent for report in reports] == [1, 0, 0]
    assert (receiver.asked, len(receiver.alerts), len(set(receiver.keys))) == (2, 1, 1)


def test_the_begin_and_the_end_have_keys_of_their_own(tmp_path: Path, clock: Clock) -> None:
    with Receiver() as receiver:
        monitor = Monitor(tmp_path, clock, webhook=Webhook(receiver.url))
        for level in (2, 2, 0, 0):
            monitor.look(60, level)
    assert [key.rpartition("/")[2] for key in receiver.keys] == ["firing", "resolved"]


def test_a_mail_server_gets_each_alert_once(tmp_path: Path, clock: Clock) -> None:
    with Sink(delay_s=0.5, hangs_up=True) as sink:
        mail = MailNotifier("127.0.0.1", ["me@x.org"], "m@x.org", port=sink.port, security="none", timeout_s=0.2)
        monitor = Monitor(tmp_path, clock, mail=mail)
        reports = [monitor.look(60, level) for level in (2, 2, 0, 0)]
    assert [report.sent for report in reports] == [1, 0, 1, 0]
    assert [message["Subject"] for message in sink.mails] == ["m:v1: it drifted", "m:v1: drift is over: it drifted"]


APPEND = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + chr(10)); sys.exit(int(sys.argv[2]))"


def test_a_command_gets_each_alert_once_as_json_without_a_shell(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "alerts; $(touch x)"
    command = CommandNotifier([sys.executable, "-c", APPEND, str(path), "0"])
    monitor = Monitor(tmp_path, clock, command=command)
    reports = [monitor.look(60, level) for level in (2, 2, 0, 0)]
    assert [report.sent for report in reports] == [1, 0, 1, 0]
    assert [json.loads(line)["status"] for line in path.read_text().splitlines()] == ["firing", "resolved"]


def test_a_command_that_fails_runs_again_after_a_pause(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "alerts"
    monitor = Monitor(tmp_path, clock, command=CommandNotifier([sys.executable, "-c", APPEND, str(path), "3"]))
    problems = [monitor.look(after).problem for after in (0, 10, 30, 30)]
    assert len(path.read_text().splitlines()) == 2
    assert "the command python" in problems[0]
    assert "it ended with 3" in problems[0]


def test_a_slow_recipient_does_not_delay_the_others(tmp_path: Path, clock: Clock) -> None:
    with Receiver(delay_s=1.0) as slow, Receiver() as fast, Sink(delay_s=1.0) as sink:
        mail = MailNotifier("127.0.0.1", ["me@x.org"], "m@x.org", port=sink.port, security="none")
        monitor = Monitor(tmp_path, clock, webhook=Webhook(slow.url), mail=mail, other=Webhook(fast.url))
        begin = time.monotonic()
        assert monitor.look().sent == 3
        assert time.monotonic() - begin < 1.9
    assert (len(slow.alerts), len(fast.alerts), len(sink.mails)) == (1, 1, 1)
