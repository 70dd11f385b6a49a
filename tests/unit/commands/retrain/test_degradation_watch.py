"""Looks of `retrain watch=true`: a cycle starts once, and what keeps it from another one is one line."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from mlscale.commands.retrain import degradation_watch
from mlscale.commands.retrain.cycle_steps import UnreachableGateError
from mlscale.commands.retrain.degradation_watch import DEGRADATION, _Watch
from mlscale.report import Result


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


def test_looks_in_a_pause_start_nothing_and_print_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    def wait(*_: object, **__: object) -> Result:
        tries.append(1)
        return Result("retrain", False, "m:v1 is not retrained: paused until tomorrow", {"wait_s": 3600.0})

    monkeypatch.setattr(degradation_watch, "retrain_once", wait)
    watch, lines = make_watch(tmp_path), list[str]()
    for _ in range(5):
        last = watch.look_once(lines.append)
    assert lines == ["m:v1: degradation; a cycle starts", "m:v1 is not retrained: paused until tomorrow"]
    assert (len(tries), last) == (1, "m:v1: degradation; no cycle is tried yet")
    watch.pause = datetime.now(UTC) - timedelta(seconds=1)
    watch.look_once(lines.append)
    assert len(tries) == 2


def test_after_too_few_labels_it_waits_for_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = Result("retrain", False, "too few labelled events", {"window_total": 150})
    monkeypatch.setattr(degradation_watch, "retrain_once", lambda *_, **__: few)
    labelled = iter([160, 170, 210])
    monkeypatch.setattr(degradation_watch._Watch, "_count_labelled", lambda _: next(labelled))
    watch, lines = make_watch(tmp_path), list[str]()
    watch.cfg.window = {"min_samples": 200}
    watch.look_once(lines.append)
    assert watch.needed == 210
    watch.look_once(lines.append)
    assert len(lines) == 2


def test_what_fails_is_one_line_with_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> Result:
        raise UnreachableGateError("52 original samples are too few", fix="gate.max_drop=0.06\nmore of them")

    monkeypatch.setattr(degradation_watch, "retrain_once", refuse)
    watch, lines = make_watch(tmp_path), list[str]()
    for _ in range(3):
        watch.look_once(lines.append)
    assert len(lines) == 2
    assert lines[1].startswith("no cycle before ")
    assert lines[1].endswith(": 52 original samples are too few; gate.max_drop=0.06 more of them")
