"""`mlscale retrain REF watch=true`: look again and again, and start a cycle when a degradation fires.

Drift of the inputs alone starts none: it may cost no accuracy, and without labels nothing could be learned or compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from mlscale.assembly.ready import compose_from_overrides
from mlscale.commands.monitor.entry import Monitor
from mlscale.commands.monitor.monitor_settings import MonitorSettings
from mlscale.commands.retrain.cycle_steps import prepare_cycle
from mlscale.commands.retrain.guarded_cycle import resolve_champion, retrain_once, was_stopped
from mlscale.errors import MLScaleError
from mlscale.launch.start_notices import print_masked_lines
from mlscale.monitor.event_folder import ShutdownRequest, wait_for_first_check
from mlscale.report import Result
from mlscale.report.text import format_count
from mlscale.retrain.journal import PROMOTED, RetrainingJournal, locate_watch_state
from mlscale.secrets.mask import Masker

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.versions import LocalRegistry

DEGRADATION = "degradation"
# Settings of a look, and those of `mlscale monitor` that they are.
_DEGRADATION_KEYS = {
    "hours": "window.hours",
    "min_events": "window.min_events",
    "min_labels": "accuracy.min_labels",
    "tolerance": "accuracy.tolerance",
    "looks": "alert.looks",
}


def watch_champion(cfg: DictConfig, registry: LocalRegistry) -> Result:
    """Look until SIGTERM or Ctrl-C; print a line for each look.

    Raises:
        MLScaleError: no challenger could pass the gates, or the first look fails: what is wrong with the command is
            wrong now, not at the first degradation.
    """
    version = resolve_champion(cfg, registry)
    model = version.name
    prepare_cycle(cfg, version)
    # A state of its own: a monitor of the same model counts its looks by itself.
    watch = _Watch(cfg, registry, _create_monitor(cfg, registry, model), model)
    masker = Masker.create_for_run(cfg)

    def report(line: str) -> None:
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        print_masked_lines([f"{now}  {line}"], masker)

    journal = RetrainingJournal(registry.root, model)
    before = len(journal.read_cycles())
    with ShutdownRequest() as stop:
        print_masked_lines([f"watching {cfg.ref}, every {cfg.every_s:g} s"], masker)
        last = wait_for_first_check(lambda: watch.look_once(report), stop, cfg.every_s, report) or "no event came"
        while not watch.is_stopped and not stop.wait_for_request(cfg.every_s):
            try:
                last = watch.look_once(report)
            except MLScaleError as error:  # a registry that is being moved, a full disk: the next look may do better
                report(f"no look: {error.what}")
    cycles = journal.read_cycles()[before:]
    promotions = sum(cycle.decision == PROMOTED for cycle in cycles)
    counts = f"{format_count(watch.looks, 'look')}, {format_count(len(cycles), 'cycle')}"
    return Result(
        "retrain",
        True,
        f"{counts}, {promotions:,} promoted; at last {last}",
        {"looks": watch.looks, "cycles": len(cycles), "promotions": promotions},
        {"state": str(locate_watch_state(registry.root, model))},
    )


@dataclass
class _Watch:
    """The looks at a model, and the cycles that they start.

    Attributes:
        pause: the time before which no cycle is tried, after one that was refused or failed.
        needed: labelled events without which a cycle would have too few samples again.
        is_stopped: a signal has ended a training, and with it the watch.
    """

    cfg: DictConfig
    registry: LocalRegistry
    monitor: Monitor
    model: str
    looks: int = 0
    pause: datetime = field(default=datetime.min.replace(tzinfo=UTC))
    needed: int = 0
    is_stopped: bool = False

    def look_once(self, report: Callable[[str], None]) -> str:
        """Look, and run a cycle if a degradation fires; report and return what was seen."""
        check = self.monitor.check_window()
        self.looks += 1
        seen = check.window_check.sentence
        if DEGRADATION not in check.alerts.firing:
            report(seen)
            return seen
        # In silence: a pause of days was reported when it began.
        if datetime.now(UTC) < self.pause or (self.needed and self._count_labelled() < self.needed):
            return f"{seen}; no cycle is tried yet"
        report(f"{seen}; a cycle starts")
        outcome = self._run_cycle()
        report(outcome)
        return outcome

    def _run_cycle(self) -> str:
        now, self.needed = datetime.now(UTC), 0
        try:
            result = retrain_once(self.cfg, self.registry, quiet=True)
        except MLScaleError as error:
            self.is_stopped = was_stopped(error)
            # Each look would try it again.
            self.pause = now + timedelta(hours=self.cfg.guard.cooldown_hours)
            # A line of the log, also where the fix has several.
            fix = f"; {' '.join(error.fix.split())}" if error.fix else ""
            return f"no cycle before {self.pause.astimezone():%Y-%m-%d %H:%M %Z}: {error.what}{fix}"
        if "wait_s" in result.metrics:  # the guard has refused it
            self.pause = now + timedelta(seconds=result.metrics["wait_s"])
            return result.sentence
        # A cycle without a run had too few samples, on one of its two sides at least.
        if "run" not in result.artifacts:
            shortage = int(self.cfg.window.min_samples - result.metrics["window_total"])
            self.needed = self._count_labelled() + max(1, shortage)
        return result.sentence

    def _count_labelled(self) -> int:
        from mlscale.events.store import EventStore

        hours = self.cfg.window.hours
        since = datetime.now(UTC) - timedelta(hours=hours) if hours is not None else None
        return len(EventStore(Path(self.cfg.events).expanduser()).joined(self.model, since=since))


def _create_monitor(cfg: DictConfig, registry: LocalRegistry, model: str) -> Monitor:
    """Return the evaluation of `mlscale monitor`, with its settings, that reports a degradation alone."""
    chosen = {name: cfg.degradation[key] for key, name in _DEGRADATION_KEYS.items() if cfg.degradation[key] is not None}
    overrides = [
        f"ref={cfg.ref}",
        f"events={cfg.events}",
        f"alert.rules=[{DEGRADATION}]",
        f"every_s={cfg.every_s}",
        *(f"{name}={value}" for name, value in chosen.items()),
    ]
    settings = MonitorSettings.read_monitor_settings(compose_from_overrides("monitor", overrides))
    # Quiet: the model was printed when the champion was resolved.
    return Monitor(settings, registry, Path(cfg.runs_dir), str(locate_watch_state(registry.root, model)), quiet=True)
