"""One retraining cycle: learn from labelled events, compare with the champion, promote or reject."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlscale.assembly.build import build
from mlscale.commands.retrain.challenger_training import Challenger, Champion, check_settings, train
from mlscale.commands.retrain.cycle_result import result_of, shown, too_few
from mlscale.errors import Exit, MLScaleError
from mlscale.export.required_extras import need
from mlscale.launch.start_notices import say
from mlscale.report import Result, keep
from mlscale.secrets.mask import Masker

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.retrain.gate import Judged
    from mlscale.retrain.journal import Journal, Turn
    from mlscale.retrain.labelled_window import Window
    from mlscale.versions import LocalRegistry, Version


def run(cfg: DictConfig) -> Result:
    """Take a window of labelled events, train a challenger from the champion's weights, compare the two, and promote it
    only if it passes every gate. Whatever happens before that, the champion stays.

    Raises:
        MLScaleError: no such champion, its run is gone, another cycle is running, the training or the export fails, or
            the extra 'retrain' is not installed.
    """
    need("retrain", "pyarrow", "onnx", "onnxscript", "onnxruntime")
    from mlscale.retrain.journal import FAILED, INTERRUPTED, PROMOTED, Journal
    from mlscale.retrain.lineage import champion_of
    from mlscale.versions.model_reference import resolve_reference
    from mlscale.versions.trained_model import as_servable

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
    champion = champion_of(registry, registry.fetch(as_servable(model, cfg.runs_dir).version))
    journal = Journal(registry.root, champion.name)
    # One cycle at a time per model: two would both replace the same champion.
    with journal.alone():
        for lost in journal.recover(lambda turn: _was_promoted(registry, turn)):
            say([f"retrain   the turn {lost.id} was killed: {lost.decision}"], Masker.of(cfg))
        if (told := _too_early(cfg, journal, champion)) is not None:
            return told
        going = _Going(journal, journal.begin(champion.ref))
        try:
            _turn(cfg, registry, champion, going)
        # Also for Ctrl-C and signals: the journal must record how each cycle ended.
        except BaseException as error:
            why = error.what if isinstance(error, MLScaleError) else type(error).__name__
            promoted = _was_promoted(registry, going.turn)  # interrupted after that, it stays so
            going.end(PROMOTED if promoted else INTERRUPTED if _stopped(error) else FAILED, why)
            raise
    result = result_of(going.turn, journal, time.perf_counter() - start, list(cfg.derived.overrides or []))
    if going.turn.run is not None:
        from mlscale.runs.folder import RunFolder

        return keep(result, RunFolder.open(going.turn.run["path"]))
    return result


def _stopped(error: BaseException) -> bool:
    """Return whether a user has ended it: by Ctrl-C, or by a signal to the training."""
    if isinstance(error, MLScaleError):
        return error.exit in (Exit.SAVED, Exit.INTERRUPTED, Exit.TERMINATED)
    return not isinstance(error, Exception)


def _was_promoted(registry: LocalRegistry, turn: Turn) -> bool:
    """Return whether a cycle that was killed had made its challenger champion."""
    from mlscale.versions.version_reference import CHAMPION

    return any(
        move.alias == CHAMPION
        and f"{turn.model}:v{move.after}" == turn.challenger
        and datetime.fromisoformat(move.time) >= datetime.fromisoformat(turn.begun)
        for move in registry.aliases(turn.model).moves
    )


class _Going:
    """The running cycle: its state is on the disk at every moment."""

    def __init__(self, journal: Journal, turn: Turn) -> None:
        self.journal, self.turn = journal, turn

    def note(self, **known: Any) -> None:
        self.turn = replace(self.turn, **known)
        self.journal.note(self.turn)

    def end(self, decision: str, reason: str) -> None:
        from mlscale.runs.identity import now

        self.turn = replace(self.turn, ended=now(), decision=decision, reason=reason)
        self.journal.end(self.turn, keep=self.turn.run is not None)


def _turn(cfg: DictConfig, registry: LocalRegistry, version: Version, going: _Going) -> None:
    """Run the cycle, from the window to the decision."""
    from mlscale.export.servable import load
    from mlscale.retrain.gate import Bounds, judge
    from mlscale.retrain.journal import REJECTED, TOO_FEW

    masker = Masker.of(cfg)
    servable = load(version.payload)
    champion = Champion.of(cfg, version, servable)
    window = _window(cfg, version.name, servable)
    # Noted at once: a cycle that is killed later still shows what it had.
    going.note(window=window.document())
    enough = len(window) >= cfg.window.min_samples and window.held_out.any() and not window.held_out.all()
    if not enough:
        going.end(TOO_FEW, too_few(cfg.window.min_samples, version.name, window))
        return
    say([f"retrain   {version.ref}: {shown(window)}"], masker)
    challenger = train(cfg, champion, window, servable.labels, going.journal.of(going.turn))
    going.note(run={"id": challenger.run.id, "path": str(challenger.run.path)}, data_version=challenger.data_version)
    if challenger.servable is None:
        going.end(REJECTED, f"the challenger is not exported: {challenger.why}")
        return
    going.note(challenger=_publish(registry, version, challenger).ref)
    bounds = Bounds(**cfg.gate)
    names = [servable.labels[number] for number in window.classes[window.held_out].tolist()]
    say([f"retrain   {going.turn.challenger} against {version.ref}, on the same samples"], masker)
    judged = judge(
        servable,
        load(challenger.servable),
        [(window.raw[window.held_out], names)],
        champion.original(servable.labels),
        bounds,
    )
    going.note(figures=judged.figures)
    _decide(registry, version, judged, going)


def _decide(registry: LocalRegistry, champion: Version, judged: Judged, going: _Going) -> None:
    """Promote the challenger if it passes every gate and the champion was not changed meanwhile."""
    from mlscale.retrain.journal import OVERTAKEN, PROMOTED, REJECTED
    from mlscale.versions.version_reference import CHAMPION

    if judged.against:
        going.end(REJECTED, "; ".join(judged.against))
        return
    try:
        # Compare and swap: the registry refuses if the champion is no longer the one that was compared.
        registry.promote(str(going.turn.challenger), replacing=champion.ref)
    except MLScaleError as error:
        # The champion is still the same, so the promotion failed for another reason.
        if registry.aliases(champion.name).of.get(CHAMPION) == champion.number:
            raise
        going.end(OVERTAKEN, f"{error.what}: {error.why}")
        return
    going.end(PROMOTED, "all gates held")


def _window(cfg: DictConfig, model: str, servable: Any) -> Window:
    from mlscale.events.store import EventStore
    from mlscale.retrain.labelled_window import window

    since = datetime.now(UTC) - timedelta(hours=cfg.window.hours) if cfg.window.hours is not None else None
    events = EventStore(Path(cfg.events).expanduser()).joined(model, since=since, samples=True)
    return window(
        events,
        servable.input,
        servable.labels,
        model=model,
        held_out=cfg.window.held_out,
        most=cfg.window.max_samples,
    )


def _publish(registry: LocalRegistry, champion: Version, challenger: Challenger) -> Version:
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


def _too_early(cfg: DictConfig, journal: Journal, champion: Version) -> Result | None:
    """Return the result of a cycle that is not allowed yet; None for one that is."""
    from mlscale.retrain.journal import REJECTED
    from mlscale.retrain.retry_guard import not_before

    turns = journal.turns()
    # Each rejection makes the pause longer: training again on nearly the same window rarely helps.
    earliest = None if cfg.force else not_before(turns, **cfg.guard)
    if earliest is None or datetime.now(UTC) >= earliest:
        return None
    rejected = sum(turn.decision == REJECTED for turn in turns)
    sentence = (
        f"{champion.ref} is not retrained before {earliest.astimezone():%Y-%m-%d %H:%M %Z}: a turn ended on "
        f"{turns[-1].ended[:16]} ({turns[-1].decision}), and {rejected} of {len(turns)} were rejected; force=true does "
        "it now"
    )
    wait = (earliest - datetime.now(UTC)).total_seconds()
    return Result("retrain", False, sentence, {"wait_s": wait}, {"journal": str(journal.path)})
