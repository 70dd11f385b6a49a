"""The steps of a retraining cycle: window, training, export, comparison, decision.

Finds gates that no challenger can pass, before one is trained: by the champion's results and the sample count.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlscale.commands.retrain.challenger_training import (
    Challenger,
    check_approving_servers,
    export_challenger,
    find_finished_training,
    train_challenger,
)
from mlscale.commands.retrain.champion import Champion, build_prepared_data, compose_run_config
from mlscale.commands.retrain.cycle_result import describe_window, explain_too_few
from mlscale.commands.retrain.cycle_settings import parse_gate_limits
from mlscale.errors import MLScaleError
from mlscale.export.servable import Servable
from mlscale.launch.start_notices import print_masked_lines
from mlscale.retrain.gate.gate_limits import GateLimits, find_relabelled_numbers
from mlscale.retrain.gate.paired_columns import LabelledSamples, collect_paired_columns
from mlscale.secrets.mask import Masker
from mlscale.stats.bootstrap import MIN_SAMPLES
from mlscale.stats.paired import compute_score_interval
from mlscale.task_types.task_type import TaskType

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.retrain.gate.promotion_decision import GateDecision
    from mlscale.retrain.journal import RetrainingCycle, RetrainingJournal
    from mlscale.retrain.labelled_window import LabelledWindow
    from mlscale.runs.folder import RunFolder
    from mlscale.versions import LocalRegistry, Version


def run_cycle(cfg: DictConfig, registry: LocalRegistry, version: Version, running: RunningCycle) -> None:
    """Run the cycle, from the window to the decision."""
    from mlscale.export.servable import load
    from mlscale.retrain.journal import REJECTED
    from mlscale.runs.folder import RunFolder

    # A killed cycle that continues has passed the check.
    champion, limits = prepare_cycle(cfg, version, check_gates=running.cycle.run is None)
    if running.cycle.run is None and not _train_on_window(cfg, champion, running):
        return
    assert running.cycle.run is not None
    run = RunFolder.open(running.cycle.run["path"])
    challenger = export_challenger(cfg, champion, run)
    if challenger.servable is None:
        running.end_cycle(REJECTED, f"the challenger is not exported: {challenger.reason}")
        return
    running.note_progress(challenger=_publish_challenger(registry, version, challenger).ref)
    print_masked_lines(
        [f"retrain   {running.cycle.challenger} against {version.ref}, on the same samples"], Masker.create_for_run(cfg)
    )
    running.judged = _compare_with_champion(cfg, champion.servable, load(challenger.servable), run, limits)
    running.note_progress(figures=running.judged.metrics)
    _apply_gate_decision(registry, version, running.judged, running)


def prepare_cycle(cfg: DictConfig, version: Version, *, check_gates: bool = True) -> tuple[Champion, GateLimits]:
    """Return the champion with its data, and the limits of the gates.

    Args:
        cfg: the settings.
        version: the champion.
        check_gates: find a gate that no challenger can pass, before one is trained for hours.

    Raises:
        UnreachableGateError: there is such a gate.
        MLScaleError: a setting does not fit the model, or its run or its data are gone.
    """
    from mlscale.export.servable import load
    from mlscale.retrain.gate_samples import iterate_champion_samples

    servable = load(version.payload)
    limits = parse_gate_limits(cfg, servable)
    champion = Champion.prepare_champion(cfg, version, servable)
    check_approving_servers(cfg, champion.run)
    if check_gates:
        check_original_gate(servable, iterate_champion_samples(champion.data), limits)
    return champion, limits


def _train_on_window(cfg: DictConfig, champion: Champion, running: RunningCycle) -> bool:
    """Take the window and train the challenger on it; False with the cycle ended where there are too few labels."""
    from mlscale.retrain.journal import TOO_FEW

    name = champion.version.name
    window = _take_window(cfg, champion)
    # Noted at once: a cycle that is killed later still shows what it had.
    running.note_progress(window=window.summarize_window())
    enough = len(window) >= cfg.window.min_samples and window.held_out.any() and not window.held_out.all()
    if not enough:
        needs_label = champion.servable.task_type.needs_label
        running.end_cycle(TOO_FEW, explain_too_few(cfg.window.min_samples, name, window, needs_label=needs_label))
        return False
    held_out = int(window.held_out.sum())
    fewest = compute_fewest_window_samples(champion.servable.task_type, cfg.gate.alpha)
    if held_out < fewest:
        running.end_cycle(
            TOO_FEW,
            f"{held_out:,} held-out samples are too few to show at gate.alpha {cfg.gate.alpha:g} that a challenger is "
            f"better, at least {fewest:,} are needed: more labelled events, or window.held_out=0.5",
        )
        return False
    print_masked_lines([f"retrain   {champion.version.ref}: {describe_window(window)}"], Masker.create_for_run(cfg))
    run = train_challenger(cfg, champion, window, running.journal.get_cycle_folder(running.cycle))
    running.note_progress(run={"id": run.id, "path": str(run.path)}, data_version=run.run["data_version"])
    return True


def _take_window(cfg: DictConfig, champion: Champion) -> LabelledWindow:
    """Return the labelled events that no window of the champion's lineage holds.

    Raises:
        MLScaleError: the folder of events does not exist, or holds something else.
    """
    from mlscale.data.windows.window_folder import read_window_digests
    from mlscale.events.store import EventStore
    from mlscale.monitor.event_folder import check_event_folder
    from mlscale.retrain.labelled_window import select_labelled_window

    model, servable = champion.version.name, champion.servable
    since = datetime.now(UTC) - timedelta(hours=cfg.window.hours) if cfg.window.hours is not None else None
    store = EventStore(Path(cfg.events).expanduser())
    # A mistyped folder is not a service without labels, which would be a cycle with too few.
    check_event_folder(store)
    events = (
        store.joined(model, since=since, samples=True)
        if servable.task_type.needs_label
        else store.read(model, since=since, samples=True).select_answered()
    )
    return select_labelled_window(
        events,
        servable,
        model=model,
        held_out=cfg.window.held_out,
        most=cfg.window.max_samples,
        earlier=read_window_digests(champion.data.policy.windows),
    )


def _compare_with_champion(
    cfg: DictConfig, servable: Servable, challenger: Servable, run: RunFolder, limits: GateLimits
) -> GateDecision:
    from mlscale.data.data_module import OrderedData
    from mlscale.retrain import gate_samples
    from mlscale.retrain.gate import promotion_decision

    # The samples as they were written, not as the events are now: a cycle may be continued later.
    data = build_prepared_data(compose_run_config(run, cfg))
    assert isinstance(data, OrderedData)
    return promotion_decision.decide_promotion(
        servable,
        challenger,
        gate_samples.iterate_held_out_samples(data),
        gate_samples.iterate_original_samples(data),
        limits,
        trained=gate_samples.iterate_trained_samples(data),
        slices=gate_samples.list_original_slices(data),
        groups=gate_samples.read_held_out_groups(data),
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


def _apply_gate_decision(
    registry: LocalRegistry, champion: Version, judged: GateDecision, running: RunningCycle
) -> None:
    """Promote the challenger if it passes every gate and the champion was not changed meanwhile."""
    from mlscale.retrain.journal import OVERTAKEN, PROMOTED, REJECTED, REVIEW
    from mlscale.versions.version_reference import CHAMPION

    if judged.objections:
        running.end_cycle(REJECTED, "; ".join(judged.objections))
        return
    if judged.doubts:
        root = str(registry.root)
        setting = "" if root == str(Path("registry").absolute()) else f" registry.root={shlex.quote(root)}"
        running.end_cycle(
            REVIEW,
            f"all gates passed, but {'; '.join(judged.doubts)}: the labels are wrong, or what is right has changed. If "
            "they are right, gate.old=false force=true trains without the original data, and gate.relabelled=[<a "
            "class>] force=true without that class; to take this challenger: mlscale versions promote "
            f"{running.cycle.challenger}{setting}",
        )
        return
    try:
        # The registry refuses if the champion was replaced since it was compared.
        registry.promote(str(running.cycle.challenger), replacing=champion.ref)
    except MLScaleError as error:
        # The champion is still the same, so the promotion failed for another reason.
        if registry.get_aliases(champion.name).of.get(CHAMPION) == champion.number:
            raise
        running.end_cycle(OVERTAKEN, f"{error.what}: {error.why}")
        return
    running.end_cycle(PROMOTED, "all gates passed")


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


_LARGEST_DROP = 0.5
"""The largest gate.max_drop that a message proposes."""


def compute_fewest_original_samples(max_drop: float, alpha: float) -> int:
    """Return the original samples from which a challenger passes that is right on the same ones as the champion; 0
    where no number is enough, without a drop that is allowed.

    Tango's lower end of no differing pair of n is -z² / (n + z²).
    """
    from scipy.stats import norm

    squared = float(norm.ppf(1 - alpha)) ** 2
    return math.ceil(squared * (1 - max_drop) / max_drop - 1e-9) if max_drop > 0 else 0


def compute_fewest_window_samples(task_type: TaskType, alpha: float) -> int:
    """Return the held-out samples with which a challenger can be shown to be better at `alpha`."""
    if task_type.exact_metric is not None:
        # So many gained, and none lost, have a mid-p value of 0.5 ** (n + 1).
        return max(1, math.ceil(-math.log2(alpha) - 1 - 1e-9))
    if not task_type.score.is_share:
        return task_type.fewest_compared
    # All of n signs alike have a one-sided p-value of 0.5 ** n.
    return max(1, math.ceil(-math.log2(alpha) - 1e-9))


class UnreachableGateError(MLScaleError):
    """No challenger can pass the gates: a setting that a user changes, not a cycle that failed."""


def check_original_gate(champion: Servable, samples: LabelledSamples, limits: GateLimits) -> None:
    """Raise an error if no challenger can pass `gate.max_drop`, not even one that is right on all original samples.

    Args:
        champion: as it is served.
        samples: the original data that a challenger would be compared on.
        limits: of the gate.

    Raises:
        UnreachableGateError: the original samples are too few.
    """
    if not limits.old:
        return
    if champion.task_type.exact_metric is None:
        count = sum(len(truth) for _, truth in samples)
        if count < MIN_SAMPLES:
            raise _build_too_few_error(count, MIN_SAMPLES, "an interval of the difference needs them", "gate.old=false")
        return
    columns = collect_paired_columns(champion, champion, samples)
    ignored = find_relabelled_numbers(champion.task_type, champion.names, limits.relabelled)
    if columns is None or not len(columns := columns.select_classes(ignored, champion)):
        return  # the gate itself reports that nothing can be compared
    count = len(columns)
    errors = int((~np.asarray(champion.task_type.mark_correct(columns.first), np.bool_)).sum())
    # The best that any challenger can be: right wherever the champion is wrong, and wrong nowhere else.
    best, _ = compute_score_interval(errors, 0, count, 1 - limits.alpha)
    if best >= -limits.max_drop:
        return
    worst, _ = compute_score_interval(0, 0, count, 1 - limits.alpha)
    # Rounded up, so that the gate can pass with what is typed.
    enough = math.ceil(-worst * 100) / 100
    fix = f"gate.max_drop={enough:g}" if enough <= _LARGEST_DROP else "gate.old=false"
    needed = compute_fewest_original_samples(limits.max_drop, limits.alpha)
    why = (
        f"a challenger that is right on all of them may still be worse by {-best:.2%}, and gate.max_drop is "
        f"{limits.max_drop:.2%}"
    )
    raise _build_too_few_error(count, needed, why, fix)


def _build_too_few_error(count: int, needed: int, why: str, fix: str) -> UnreachableGateError:
    at_least = f", at least {needed:,} are needed" if needed > count else ""
    return UnreachableGateError(
        f"{count:,} original samples are too few for a challenger to pass{at_least}",
        where="gate.max_drop",
        why=why,
        fix=f"{fix}; or a champion with more validation data (data.val_fraction, data.val)",
    )
