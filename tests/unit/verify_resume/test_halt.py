"""A run that waits to be killed ends by itself where the process that would kill it has ended."""

import json
import threading
import time
from pathlib import Path

import pytest

from mlscale.runs.job_record import JobRecord, read_job_record
from mlscale.verify_resume import trace
from mlscale.verify_resume.stop_request import ORDER, renew_stop_order, write_stop_order


def test_an_owner_on_another_machine_is_alive_while_it_renews_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()
    monkeypatch.setattr(trace, "_MAX_SILENCE_SECONDS", 0.4)
    monkeypatch.setattr(trace, "_POLL_SECONDS", 0.02)
    monkeypatch.setattr("os.kill", lambda *_: ended.set())
    folder = tmp_path / "trace"
    write_stop_order(folder, "step", 3)
    JobRecord("slurm", "mini", "7", "2026-01-05T17:06:27+00:00", "/x/job.log", 4, 2).write(tmp_path)
    order = json.loads((folder / ORDER).read_text())
    # This process is alive, which a process on another machine can't see.
    (folder / ORDER).write_text(json.dumps(order | {"host": "elsewhere"}))
    trace.KillPointHalt(folder)
    for _ in range(10):
        time.sleep(0.1)
        renew_stop_order(folder)
    assert not ended.is_set(), "longer than the silence that is allowed"
    assert ended.wait(10)
    record = read_job_record(tmp_path)
    assert record is not None
    assert record.cancelled, "it would be requeued"
