"""The retraining of a tour."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from mlscale.commands.lifecycle.retraining_steps import _run_cycle
from mlscale.commands.lifecycle.step_state import LifecycleState
from mlscale.report import Result


def test_a_cycle_learns_from_what_was_sent_after_the_change_alone() -> None:
    typed: list[str] = []

    def keep_overrides(command: str, *overrides: str, name: str = "") -> Result:
        typed.extend(overrides)
        return Result(command, True, "", {})

    state: Any = SimpleNamespace(
        champion="x@champion",
        resolve_path=Path,
        settings=SimpleNamespace(retrain_passes=3),
        max_drop=0.03,
        shifted=[b"a", b"b"],
        run_service_command=keep_overrides,
    )
    _run_cycle(cast("LifecycleState", state), "force=true")
    # Validation samples, which were sent before, need no label where the task has none.
    assert {"window.max_samples=2", "force=true"} <= set(typed)
