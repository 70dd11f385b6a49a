"""Looks of `retrain watch=true`: one line for a pause, none for a gate that can't be passed, cycles are counted."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from mlscale.commands.retrain import degradation_watch
from mlscale.commands.retrain.degradation_watch import DEGRADATION, _Watch
from mlscale.errors import MLScaleError
from mlscale.report import Result
from mlscale.retrain.gate.reachable_gates import UnreachableGateError
from mlscale.retrain.journal import FAILED, REJECTED, RetrainingJournal


class DegradedMonitor:
    """Each look finds a degradation."""

    def check_window(self) -> Any:
        return SimpleNamespace(
            window_check=SimpleNamespace(sentence="m:v1: degradation"), alerts=SimpleNamespace(firing=[DEGRADATION])
        )


def make_watch(root: Path) -> _Watch:
    cfg = OmegaConf.create({"guard": {"cooldown_hours": 24.0, "factor": 2.0, "longest_hours": 720.0}})
    aliases = SimpleNamespace(of={"champion": 1})
    registry: Any = SimpleNamespace(root=root, get_aliases=lambda _: aliases)
    monitor: Any = DegradedMonitor()
    return _Watch(cfg, registry, monitor, "m")


def record_rejection(root: Path, ended: datetime) -> None:
    journal = RetrainingJournal(root, "m")
    cycle = journal.begin_cycle("m:v1")
    rejected = replace(cycle, ended=ended.isoformat(), decision=REJECTED, window={"samples": 300})
    journal.record_cycle(rejected, keep=False)


def test_a_pause_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(degradation_watch, "retrain_once", lambda *_, **__: pytest.fail("a cycle in the pause"))
    record_rejection(tmp_path, datetime.now(UTC))
    lines: list[str] = []
    watch = make_watch(tmp_path)
    for _ in range(5):
        watch.look_once(lines.append)
    (line,) = lines
    assert line.startswith("m:v1: degradation; paused until ")
    assert "after the cycle that ended on" in line
    assert "a cycle starts" not in line


def test_a_cycle_starts_after_the_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = Result("retrain", True, "m:v2 promoted", {"window_total": 300}, {"run": "runs/r"})
    monkeypatch.setattr(degradation_watch, "retrain_once", lambda *_, **__: done)
    record_rejection(tmp_path, datetime.now(UTC) - timedelta(hours=49))
    watch, lines = make_watch(tmp_path), list[str]()
    watch.cfg.window = {"min_samples": 200}
    watch.look_once(lines.append)
    assert lines == ["m:v1: degradation; a cycle starts", "m:v2 promoted"]


def test_a_gate_that_can_not_be_passed_is_one_line_with_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def refuse(*_: object, **__: object) -> Result:
        tries.append(1)
        raise UnreachableGateError("52 original samples are too few", fix="gate.max_drop=0.06")

    monkeypatch.setattr(degradation_watch, "retrain_once", refuse)
    watch, lines = make_watch(tmp_path), list[str]()
    for _ in range(3):
        last = watch.look_once(lines.append)
    reason = "no cycle for m:v1: 52 original samples are too few; watch again with gate.max_drop=0.06"
    assert lines == ["m:v1: degradation; a cycle starts", reason]
    assert (len(tries), watch.cycles) == (1, 0)
    assert last == f"m:v1: degradation; {reason}"
    # Another champion may have more original samples: it is tried at once, in no pause.
    watch.registry.get_aliases("m").of["champion"] = 2  # type: ignore[index]
    watch.look_once(lines.append)
    assert len(tries) == 2


def test_a_failed_cycle_is_counted_and_an_error_before_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> Result:
        journal = RetrainingJournal(tmp_path, "m")
        cycle = journal.begin_cycle("m:v1")
        journal.record_cycle(replace(cycle, ended=cycle.begun, decision=FAILED), keep=False)
        raise MLScaleError("the disk is full", fix="rm -r runs/old")

    def refuse(*_: object, **__: object) -> Result:
        raise MLScaleError("another process is retraining m")

    for begin, counted, line in (
        (refuse, 0, "no cycle: another process is retraining m"),
        (fail, 1, "the cycle failed: the disk is full; rm -r runs/old"),
    ):
        monkeypatch.setattr(degradation_watch, "retrain_once", begin)
        watch, lines = make_watch(tmp_path), list[str]()
        watch.look_once(lines.append)
        assert lines[-1] == line
        assert watch.cycles == counted
