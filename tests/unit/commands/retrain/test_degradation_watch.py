"""Looks of `retrain watch=true` in the guard's pause: one line when it begins, no cycle, and no lines after that."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from mlscale.commands.retrain import degradation_watch
from mlscale.commands.retrain.degradation_watch import DEGRADATION, _Watch
from mlscale.report import Result
from mlscale.retrain.journal import REJECTED, RetrainingJournal


class DegradedMonitor:
    """Each look finds a degradation."""

    def check_window(self) -> Any:
        return SimpleNamespace(
            window_check=SimpleNamespace(sentence="m:v1: degradation"), alerts=SimpleNamespace(firing=[DEGRADATION])
        )


def make_watch(root: Path) -> _Watch:
    cfg = OmegaConf.create({"guard": {"cooldown_hours": 24.0, "factor": 2.0, "longest_hours": 720.0}})
    registry: Any = SimpleNamespace(root=root)
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
