"""Items on their way: in order, one sender at a time, kept until they have arrived, and never lost."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mlscale.errors import MLScaleError
from mlscale.outbox import ItemRefusedError, Outbox, OutboxReport, RetryPolicy
from tests.contract.test_documents import validate


class Recipient:
    """Takes documents, unless it is away, and except those that it refuses."""

    def __init__(self, refused: Sequence[int] = (), away: bool = False) -> None:
        self.taken: list[int] = []
        self.calls: list[list[int]] = []
        self.refused, self.away = refused, away

    def __call__(self, bodies: Sequence[Mapping[str, Any]]) -> None:
        numbers = [body["n"] for body in bodies]
        self.calls.append(numbers)
        if self.away:
            raise ConnectionError("nobody\nthere")
        if set(numbers) & set(self.refused):
            raise ItemRefusedError("status 400")
        self.taken += numbers


def fill(box: Outbox, *numbers: int) -> Outbox:
    for number in numbers:
        box.add_item({"n": number})
    return box


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in its only element."""
    time = [1_000_000.0]
    monkeypatch.setattr("mlscale.outbox.item_queue.time.time", lambda: time[0])
    return time


def test_all_arrive_in_order_and_nothing_stays(tmp_path: Path) -> None:
    box, recipient = fill(Outbox(tmp_path / "a/box"), *range(12)), Recipient()
    for path in (tmp_path / "a/box").iterdir():
        validate("outbox_item", json.loads(path.read_text()))
        assert path.stat().st_mode & 0o777 == 0o600
    assert box.send_items(recipient, max_batch=5) == OutboxReport(sent=12)
    assert recipient.calls == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]
    box.remove_if_empty()
    assert os.listdir(tmp_path / "a") == []
    assert box.send_items(recipient) == OutboxReport()
    assert os.listdir(tmp_path / "a") == []


def test_an_item_with_a_key_waits_once(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "box")
    for number, key in enumerate(("a", "b", "a")):
        box.add_item({"n": number}, key)
    recipient = Recipient()
    box.send_items(recipient)
    box.add_item({"n": 3}, "a")
    box.send_items(recipient)
    assert recipient.taken == [0, 1, 3]


def test_an_absent_recipient_is_asked_again_later_and_later(tmp_path: Path, clock: list[float]) -> None:
    box, recipient = fill(Outbox(tmp_path / "box", RetryPolicy((10, 20))), 1, 2), Recipient(away=True)
    for pause, expected in ((10, 1), (20, 2), (20, 3)):
        report = box.send_items(recipient, max_batch=9)
        assert (report.sent, report.waiting, report.why, report.retry_in_s) == (0, 2, "nobody there", pause)
        clock[0] += pause - 1
        assert box.send_items(recipient).retry_in_s == 1
        assert len(recipient.calls) == expected
        clock[0] += 1
    clock[0] -= 500_000  # the clock is set back
    assert box.get_delay() == 0  # else nothing would be sent for 500,000 seconds
    recipient.away = False
    assert box.send_items(recipient).sent == 2
    assert recipient.taken == [1, 2]


def test_what_is_refused_holds_up_nothing_and_is_given_up_and_restored(tmp_path: Path) -> None:
    box, recipient = fill(Outbox(tmp_path / "box", RetryPolicy((), max_refusals=2)), 1, 2, 3), Recipient(refused=[2])
    report = box.send_items(recipient, max_batch=9)
    assert (report.sent, report.waiting, report.why, report.failed) == (2, 1, "status 400", ())
    assert recipient.calls == [[1, 2, 3], [1], [2], [3]]
    report = box.send_items(recipient)
    assert (report.sent, report.waiting, box.count_failed()) == (0, 0, 1)
    assert "given up: status 400" in report.failed[0]
    assert box.send_items(recipient) == OutboxReport()
    box.remove_if_empty()
    assert box.count_failed() == 1
    fill(box, 4)
    assert (box.restore_failed(), box.count_failed()) == (1, 0)
    recipient.refused = ()
    assert box.send_items(recipient).sent == 2
    assert recipient.taken == [1, 3, 2, 4]  # by age


def test_a_refused_item_in_its_pause_holds_up_nothing(tmp_path: Path, clock: list[float]) -> None:
    box, recipient = fill(Outbox(tmp_path / "box", RetryPolicy((10,))), 1), Recipient(refused=[1])
    box.send_items(recipient)
    fill(box, 2)
    assert (box.send_items(recipient).sent, recipient.calls) == (1, [[1], [2]])


def test_an_item_that_is_too_old_is_given_up(tmp_path: Path, clock: list[float]) -> None:
    box, recipient = fill(Outbox(tmp_path / "box", RetryPolicy((1,), max_age_s=100)), 1), Recipient(away=True)
    assert box.send_items(recipient).waiting == 1
    clock[0] += 100
    report = box.send_items(recipient)
    assert (report.waiting, len(report.failed), box.count_failed()) == (0, 1, 1)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": "mlscale/outbox_item/1"}', '{"format": "mlscale/outbox_item/9"}']
)
def test_an_item_that_can_not_be_read_is_kept_and_reported(tmp_path: Path, text: str) -> None:
    box, recipient = fill(Outbox(tmp_path / "box"), 1, 2), Recipient()
    first = min(box.folder.glob("*.json"))
    first.write_text(text)
    report = box.send_items(recipient)
    assert (report.sent, recipient.taken) == (1, [2])
    assert "can't be read" in report.failed[0]
    assert (box.folder / "failed" / first.name).read_text() == text
    assert (box.restore_failed(), box.count_failed()) == (0, 1)


def test_no_call_begins_after_the_time_limit(tmp_path: Path) -> None:
    box, recipient = fill(Outbox(tmp_path / "box"), 1), Recipient()
    assert box.send_items(recipient, seconds=0) == OutboxReport(waiting=1, why="out of time")
    assert recipient.calls == []


def test_one_process_sends_at_a_time(tmp_path: Path) -> None:
    box, begun, over = fill(Outbox(tmp_path / "box"), 1, 2), threading.Event(), threading.Event()

    def send(_: Sequence[Mapping[str, Any]]) -> None:
        begun.set()
        over.wait(20)

    thread = threading.Thread(target=box.send_items, args=(send,))
    thread.start()
    assert begun.wait(20)
    recipient = Recipient()
    report = Outbox(box.folder).send_items(recipient, lock_s=0.05)
    assert (report.sent, report.waiting, report.why) == (0, 2, "another process is sending")
    fill(box, 3)  # adding needs no lock
    over.set()
    thread.join()
    assert (Outbox(box.folder).send_items(recipient).sent, recipient.taken) == (1, [3])


_KILLED = """
import os, signal, sys
from pathlib import Path
from mlscale.outbox import Outbox
box = Outbox(Path(sys.argv[1]))
for n in range(3):
    box.add_item({"n": n})
def send(bodies):
    print(bodies[0]["n"], flush=True)
    if bodies[0]["n"] == 1:
        os.kill(os.getpid(), signal.SIGKILL)
box.send_items(send)
"""


def test_a_killed_sender_loses_nothing_and_holds_no_lock(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _KILLED, tmp_path / "box"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (-signal.SIGKILL, ["0", "1"])
    recipient = Recipient()
    assert Outbox(tmp_path / "box").send_items(recipient).sent == 2
    assert recipient.taken == [1, 2]


def test_a_full_disk_is_an_error_where_an_item_is_added(tmp_path: Path) -> None:
    (tmp_path / "box").write_text("a file where a folder should be")
    with pytest.raises(MLScaleError) as caught:
        fill(Outbox(tmp_path / "box"), 1)
    assert caught.value.exit == 5
    assert Outbox(tmp_path / "box").send_items(Recipient()) == OutboxReport()
