"""One retraining cycle: learn from labelled events, compare with the champion, promote or reject."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlscale.assembly.build import build
from mlscale.commands.retrain.challenger_training import (
    Challenger,
    Champion,
    check_settings,
    export_challenger,
    find_finished_training,
    read_window_parts,
    train_challenger,
)
from mlscale.commands.retrain.cycle_result import build_retrain_result, describe_window, explain_too_few
from mlscale.errors import Exit, MLScaleError
from mlscale.export.required_extras import require_extra
from mlscale.launch.start_notices import print_masked_lines
from mlscale.report import Result, save_result
from mlscale.secrets.mask import Masker

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.export.servable import Servable
    from mlscale.retrain.gate.gate_limits import GateLimits
    from mlscale.retrain.gate.promotion_decision import GateDecision
    from mlscale.retrain.journal import RetrainingCycle, RetrainingJournal
    from mlscale.retrain.labelled_window import LabelledWindow
    from mlscale.versions import LocalRegistry, Version


def run(cfg: DictConfig) -> Result:
    """Take a window of labelled events, train a challenger from the champion's weights, compare the two, and promote it
    only if it passes every gate. Whatever happens before that, the champion stays.

    Raises:
        MLScaleError: no such champion, its run is gone, another cycle is running, the training or the export fails, or
            the extra 'retrain' is not installed.
    """
    require_extra("retrain", "pyarrow", "onnx", "onnxscript", "onnxruntime")
    from mlscale.retrain.journal import FAILED, INTERRUPTED, PROMOTED, RetrainingJournal
    from mlscale.retrain.lineage import require_champion
    from mlscale.versions.model_reference import resolve_reference
    from mlscale.versions.trained_model import require_servable

    check_settings(cfg)
    start = time.perf_counter()
    registry: LocalRegistry = build(cfg.registry, "registry")
    model = resolve_reference(str(cfg.ref), runs_dir=cfg.runs_dir, registry=registry)
    # A run or a folder has no alias that could be moved to the challenger.
    if not model.is_registered:
        raise MLScaleError(
            f"{model.description} has no champion to replace",
            where=f"ref={cfg.ref}",
            why="a challenger takes the place of a version of the registry",
            fix="mlscale retrain <model>, such as resnet or resnet@champion: mlscale versions ls",
        )
    champion = require_champion(registry, registry.fetch(require_servable(model, cfg.runs_dir).version))
    journal = RetrainingJournal(registry.root, champion.name)
    # One cycle at a time per model: two would both replace the same champion.
    with journal.lock_journal():
        masker = Masker.create_for_run(cfg)
        continued = _find_continued_cycle(cfg, registry, journal, champion)
        without = continued.id if continued is not None else None
        for lost in journal.recover_cycles(lambda cycle: _was_promoted(registry, cycle), without=without):
            print_masked_lines([f"retrain   the cycle {lost.id} was killed: {lost.decision}"], masker)
        if continued is not None:
            print_masked_lines(
                [f"retrain   the cycle {continued.id} was killed after its training: it continues"], masker
            )
        elif (refusal := _refuse_if_early(cfg, journal, champion)) is not None:
            return refusal
        running = _RunningCycle(journal, continued or journal.begin_cycle(champion.ref))
        try:
            _run_cycle(cfg, registry, champion, running)
        # Also for Ctrl-C and signals: the journal must record how each cycle ended.
        except BaseException as error:
            why = error.what if isinstance(error, MLScaleError) else type(error).__name__
            promoted = _was_promoted(registry, running.cycle)  # interrupted after that, it stays so
            running.end_cycle(PROMOTED if promoted else INTERRUPTED if _was_stopped(error) else FAILED, why)
            raise
    result = build_retrain_result(
        running.cycle, running.judged, journal, time.perf_counter() - start, list(cfg.derived.overrides or [])
    )
    if running.cycle.run is not None:
        from mlscale.runs.folder import RunFolder

        return save_result(result, RunFolder.open(running.cycle.run["path"]))
    return result


def _was_stopped(error: BaseException) -> bool:
    """Return whether a user has ended it: by Ctrl-C, or by a signal to the training."""
    if isinstance(error, MLScaleError):
        return error.exit in (Exit.SAVED, Exit.INTERRUPTED, Exit.TERMINATED)
    return not isinstance(error, Exception)


def _was_promoted(registry: LocalRegistry, cycle: RetrainingCycle) -> bool:
    """Return whether a cycle that was killed had made its challenger champion."""
    from mlscale.versions.version_reference import CHAMPION

    return any(
        move.alias == CHAMPION
        and f"{cycle.model}:v{move.after}" == cycle.challenger
        and datetime.fromisoformat(move.time) >= datetime.fromisoformat(cycle.begun)
        for move in registry.get_aliases(cycle.model).moves
    )


def _find_continued_cycle(
    cfg: DictConfig, registry: LocalRegistry, journal: RetrainingJournal, champion: Version
) -> RetrainingCycle | None:
    """Return the latest killed cycle whose training is complete, with its run; None where there is none.

    Its champion must still be the champion: another one has learned from other data, or was chosen by a person.
    """
    for cycle in reversed(journal.read_killed_cycles()):
        if cycle.champion != champion.ref or _was_promoted(registry, cycle):
            continue
        run = find_finished_training(cycle, str(cfg.runs_dir))
        if run is not None:
            known = {"id": run.id, "path": str(run.path)}
            return replace(cycle, run=known, data_version=run.run["data_version"])
    return None


class _RunningCycle:
    """The running cycle: its state is on the disk at every moment."""

    def __init__(self, journal: RetrainingJournal, cycle: RetrainingCycle) -> None:
        self.journal, self.cycle = journal, cycle
        self.judged: GateDecision | None = None

    def note_progress(self, **known: Any) -> None:
        self.cycle = replace(self.cycle, **known)
        self.journal.save_progress(self.cycle)

    def end_cycle(self, decision: str, reason: str) -> None:
        from mlscale.runs.identity import get_current_time

        self.cycle = replace(self.cycle, ended=get_current_time(), decision=decision, reason=reason)
        self.journal.record_cycle(self.cycle, keep=self.cycle.run is not None)


def _run_cycle(cfg: DictConfig, registry: LocalRegistry, version: Version, running: _RunningCycle) -> None:
    """Run the cycle, from the window to the decision."""
    from mlscale.export.servable import load
    from mlscale.retrain.journal import REJECTED
    from mlscale.runs.folder import RunFolder

    servable = load(version.payload)
    limits = _parse_gate_limits(cfg, servable)
    champion = Champion.prepare_champion(cfg, version, servable)
    if running.cycle.run is None and not _train_on_window(cfg, champion, servable, limits, running):
        return
    run = RunFolder.open(running.cycle.run["path"]) if running.cycle.run is not None else None
    assert run is not None
    challenger = export_challenger(cfg, champion, run)
    if challenger.servable is None:
        running.end_cycle(REJECTED, f"the challenger is not exported: {challenger.reason}")
        return
    running.note_progress(challenger=_publish_challenger(registry, version, challenger).ref)
    print_masked_lines(
        [f"retrain   {running.cycle.challenger} against {version.ref}, on the same samples"], Masker.create_for_run(cfg)
    )
    folder = running.journal.get_cycle_folder(running.cycle)
    running.judged = _compare_with_champion(servable, load(challenger.servable), champion, folder, limits)
    running.note_progress(figures=running.judged.metrics)
    _apply_gate_decision(registry, version, running.judged, running)


def _train_on_window(
    cfg: DictConfig, champion: Champion, servable: Servable, limits: GateLimits, running: _RunningCycle
) -> bool:
    """Take the window and train the challenger on it; False with the cycle ended where there are too few labels."""
    from mlscale.retrain.gate.gate_limits import find_relabelled_numbers
    from mlscale.retrain.journal import TOO_FEW

    name = champion.version.name
    window = _take_window(cfg, name, servable)
    # Noted at once: a cycle that is killed later still shows what it had.
    running.note_progress(window=window.summarize_window())
    enough = len(window) >= cfg.window.min_samples and window.held_out.any() and not window.held_out.all()
    if not enough:
        running.end_cycle(TOO_FEW, explain_too_few(cfg.window.min_samples, name, window))
        return False
    print_masked_lines([f"retrain   {champion.version.ref}: {describe_window(window)}"], Masker.create_for_run(cfg))
    run = train_challenger(
        cfg,
        champion,
        window,
        servable.labels,
        running.journal.get_cycle_folder(running.cycle),
        find_relabelled_numbers(servable.task_type, servable.names, limits.relabelled),
    )
    running.note_progress(run={"id": run.id, "path": str(run.path)}, data_version=run.run["data_version"])
    return True


def _compare_with_champion(
    servable: Servable, challenger: Servable, champion: Champion, folder: Path, limits: GateLimits
) -> GateDecision:
    from mlscale.retrain.gate import promotion_decision

    # As they were written, not as the events are now: a cycle may be continued later.
    parts = read_window_parts(champion, servable.labels, folder)
    return promotion_decision.decide_promotion(
        servable,
        challenger,
        [parts["held_out"]],
        champion.read_original_samples(),
        limits,
        trained=[parts["train"]],
        slices=champion.list_original_slices(),
    )


def _parse_gate_limits(cfg: DictConfig, servable: Servable) -> GateLimits:
    """Return the limits of the gate.

    Raises:
        MLScaleError: a class is declared relabelled that the model does not have.
    """
    from mlscale.retrain.gate.gate_limits import GateLimits, find_relabelled_numbers

    # A name like 7 is read as a number.
    limits = GateLimits(**{**cfg.gate, "relabelled": tuple(map(str, cfg.gate.relabelled))})
    # Before the training: it would take hours until the gate finds a mistyped name.
    find_relabelled_numbers(servable.task_type, servable.names, limits.relabelled)
    return limits


def _apply_gate_decision(
    registry: LocalRegistry, champion: Version, judged: GateDecision, running: _RunningCycle
) -> None:
    """Promote the challenger if it passes every gate and the champion was not changed meanwhile."""
    from mlscale.retrain.journal import OVERTAKEN, PROMOTED, REJECTED
    from mlscale.versions.version_reference import CHAMPION

    if judged.objections:
        running.end_cycle(REJECTED, "; ".join(judged.objections))
        return
    try:
        # Compare and swap: the registry refuses if the champion is no longer the one that was compared.
        registry.promote(str(running.cycle.challenger), replacing=champion.ref)
    except MLScaleError as error:
        # The champion is still the same, so the promotion failed for another reason.
        if registry.get_aliases(champion.name).of.get(CHAMPION) == champion.number:
            raise
        running.end_cycle(OVERTAKEN, f"{error.what}: {error.why}")
        return
    running.end_cycle(PROMOTED, "all gates passed")


def _take_window(cfg: DictConfig, model: str, servable: Servable) -> LabelledWindow:
    from mlscale.events.store import EventStore
    from mlscale.retrain.labelled_window import select_labelled_window

    since = datetime.now(UTC) - timedelta(hours=cfg.window.hours) if cfg.window.hours is not None else None
    events = EventStore(Path(cfg.events).expanduser()).joined(model, since=since, samples=True)
    return select_labelled_window(
        events,
        servable.input,
        servable.labels,
        model=model,
        held_out=cfg.window.held_out,
        most=cfg.window.max_samples,
    )


def _publish_challenger(registry: LocalRegistry, champion: Version, challenger: Challenger) -> Version:
    from mlscale.versions.from_servable import publish_servable
    from mlscale.versions.version_reference import CHALLENGER

    assert challenger.servable is not None
    return publish_servable(
        registry,
        challenger.servable,
        run=challenger.run,
        name=champion.name,
        parent=champion.ref,
        aliases=(CHALLENGER,),
    ).version


def _refuse_if_early(cfg: DictConfig, journal: RetrainingJournal, champion: Version) -> Result | None:
    """Return the result of a cycle that is not allowed yet; None for one that is."""
    from mlscale.retrain.journal import REJECTED
    from mlscale.retrain.retry_guard import compute_earliest_start

    cycles = journal.read_cycles()
    # Each rejection makes the pause longer: training again on nearly the same window rarely helps.
    earliest = None if cfg.force else compute_earliest_start(cycles, **cfg.guard)
    if earliest is None or datetime.now(UTC) >= earliest:
        return None
    rejected = sum(cycle.decision == REJECTED for cycle in cycles)
    sentence = (
        f"{champion.ref} is not retrained before {earliest.astimezone():%Y-%m-%d %H:%M %Z}: a cycle ended on "
        f"{cycles[-1].ended[:16]} ({cycles[-1].decision}), and {rejected} of {len(cycles)} were rejected; "
        "force=true does it now"
    )
    wait = (earliest - datetime.now(UTC)).total_seconds()
    return Result("retrain", False, sentence, {"wait_s": wait}, {"journal": str(journal.path)})
