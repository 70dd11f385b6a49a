"""The running cycle: its state is on the disk at every moment, so that a killed one can be continued."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mlscale.commands.retrain.challenger_training import find_finished_training

if TYPE_CHECKING:
    from mlscale.retrain.gate.promotion_decision import GateDecision
    from mlscale.retrain.journal import RetrainingCycle, RetrainingJournal
    from mlscale.versions import LocalRegistry, Version


class RunningCycle:
    """A cycle that is running.

    Args:
        journal: of the model.
        cycle: its record.

    Attributes:
        judged: the comparison; None as long as there is none.
    """

    def __init__(self, journal: RetrainingJournal, cycle: RetrainingCycle) -> None:
        self.journal, self.cycle = journal, cycle
        self.judged: GateDecision | None = None

    def note_progress(self, **known: Any) -> None:
        """Save what is known so far."""
        self.cycle = replace(self.cycle, **known)
        # At once: a process that is killed next has at least this.
        self.journal.save_progress(self.cycle)

    def end_cycle(self, decision: str, reason: str) -> None:
        """Append the cycle to the journal."""
        from mlscale.runs.identity import get_current_time

        self.cycle = replace(self.cycle, ended=get_current_time(), decision=decision, reason=reason)
        # The folder of a cycle that trained holds its window, which its run refers to.
        self.journal.record_cycle(self.cycle, keep=self.cycle.run is not None)


def is_promoted(registry: LocalRegistry, cycle: RetrainingCycle) -> bool:
    """Return whether a cycle that was killed had made its challenger champion."""
    from mlscale.versions.version_reference import CHAMPION

    return any(
        # By the registry, as the process may have been killed between promoting and noting it.
        move.alias == CHAMPION
        and f"{cycle.model}:v{move.after}" == cycle.challenger
        and datetime.fromisoformat(move.time) >= datetime.fromisoformat(cycle.begun)
        for move in registry.get_aliases(cycle.model).moves
    )


def resume_or_recover(
    registry: LocalRegistry, journal: RetrainingJournal, champion: Version, runs_dir: str, report: Callable[[str], None]
) -> RetrainingCycle | None:
    """Return the latest killed cycle that can be continued, if any, and record the others as ended.

    Args:
        registry: of the model.
        journal: locked.
        champion: that a cycle would be for now.
        runs_dir: the folder of the runs.
        report: is called with a line for each killed cycle.
    """
    # Before the others are recorded: it would be ended with them.
    continued = _find_continued_cycle(registry, journal, champion, runs_dir)
    without = continued.id if continued is not None else None
    for lost in journal.recover_cycles(lambda cycle: is_promoted(registry, cycle), without=without):
        report(f"retrain   the cycle {lost.id} was killed: {lost.decision}")
    if continued is not None:
        report(f"retrain   the cycle {continued.id} was killed after its training: it continues")
    return continued


def _find_continued_cycle(
    registry: LocalRegistry, journal: RetrainingJournal, champion: Version, runs_dir: str
) -> RetrainingCycle | None:
    """Return the latest killed cycle whose training is complete, with its run; None where there is none.

    Its champion must still be the champion: another one has learned from other data, or was chosen by a person.
    """
    # The latest has the newest window.
    for cycle in reversed(journal.read_killed_cycles()):
        if cycle.champion != champion.ref or is_promoted(registry, cycle):
            continue
        run = find_finished_training(cycle, runs_dir)
        if run is not None:
            known = {"id": run.id, "path": str(run.path)}
            return replace(cycle, run=known, data_version=run.run["data_version"])
    return None
