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
from mlscale.monitor.first_events import wait_for_first_check
from mlscale.monitor.watch import ShutdownRequest
from mlscale.report import Result
from mlscale.report.text import format_count
from mlscale.retrain.journal import RetrainingJournal, locate_watch_state
from mlscale.runs.identity import get_current_time
from mlscale.secrets.mask import Masker
from mlscale.versions.version_reference import CHAMPION

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

    with ShutdownRequest() as stop:
        print_masked_lines([f"watching {cfg.ref}, every {cfg.every_s:g} s"], masker)
        last = wait_for_first_check(lambda: watch.look_once(report), stop, cfg.every_s, report) or "no event came"
        while not watch.is_stopped and not stop.wait_for_request(cfg.every_s):
            try:
                last = watch.look_once(report)
            except MLScaleError as error:  # a registry that is being moved, a full disk: the next look may do better
                report(f"no look: {error.what}")
    counts = f"{format_count(watch.looks, 'look')}, {format_count(watch.cycles, 'cycle')}"
    metrics = {"looks": watch.looks, "cycles": watch.cycles, "promotions": watch.promotions}
    return Result(
        "retrain",
        True,
        f"{counts}, {watch.promotions:,} promoted; at last {last}",
        metrics,
        {"state": str(locate_watch_state(registry.root, model))},
    )


@dataclass
class _Watch:
    """The looks at a model, and the cycles that they have started.

    Attributes:
        blocked: the champion that no challenger can replace by these settings, with the reason; a new one may differ.
        pause: the time before which no cycle is tried, after one that failed before it could count for the guard.
        needed: labelled events without which a cycle would have too few samples again.
        reported_wait: the reason of a wait that was reported last: a pause of days is one line, not one of each look.
        is_stopped: a signal has ended a training, and with it the watch.
    """

    cfg: DictConfig
    registry: LocalRegistry
    monitor: Monitor
    model: str
    looks: int = 0
    cycles: int = 0
    promotions: int = 0
    blocked: tuple[str, str] = ("", "")
    pause: datetime = field(default=datetime.min.replace(tzinfo=UTC))
    needed: int = 0
    reported_wait: str = ""
    is_stopped: bool = False

    def look_once(self, report: Callable[[str], None]) -> str:
        """Look, and run a cycle if a degradation fires; report and return what was seen."""
        check = self.monitor.check_window()
        self.looks += 1
        seen = check.window_check.sentence
        if DEGRADATION not in check.alerts.firing:
            report(seen)
            return seen
        # The guard's pause first: without it each look would announce a cycle that is then refused.
        if waits := self._describe_guard_pause() or self._describe_wait():
            if waits != self.reported_wait:
                report(f"{seen}; {waits}")
            self.reported_wait = waits
            return f"{seen}; {waits}"
        self.reported_wait = ""
        report(f"{seen}; a cycle starts")
        outcome = self._run_cycle()
        report(outcome)
        return outcome

    def _describe_guard_pause(self) -> str:
        """Return the guard's pause and the cycle that it is from; '' without one."""
        from mlscale.retrain.retry_guard import describe_pause, find_pause

        journal = RetrainingJournal(self.registry.root, self.model)
        # A killed cycle is continued in the pause, too.
        if journal.folder.is_dir() and journal.read_killed_cycles():
            return ""
        pause = find_pause(journal.read_cycles(), **self.cfg.guard)
        if pause is None or datetime.now(UTC) >= pause.until:
            return ""
        return describe_pause(pause)

    def _describe_wait(self) -> str:
        """Return the reason why no cycle is tried now; '' where one is."""
        champion, reason = self.blocked
        # Settings and champion are those of the last time, and so is the result.
        if champion and champion == self._get_champion():
            return reason
        if datetime.now(UTC) < self.pause:
            return f"no cycle before {self.pause.astimezone():%Y-%m-%d %H:%M %Z}: the last one failed"
        if self.needed and self._count_labelled() < self.needed:
            # Without the number of now, which each look would report anew.
            return f"no cycle before there are {self.needed:,} labelled events"
        return ""

    def _get_champion(self) -> str:
        """Return the champion of now; '' without one."""
        number = self.registry.get_aliases(self.model).of.get(CHAMPION)
        return f"{self.model}:v{number}" if number else ""

    def _run_cycle(self) -> str:
        from mlscale.retrain.gate.reachable_gates import UnreachableGateError

        begun = get_current_time()
        try:
            result = retrain_once(self.cfg, self.registry, quiet=True)
        except UnreachableGateError as error:
            champion = self._get_champion()
            self.reported_wait = f"no cycle for {champion}: {error.what}; watch again with {error.fix}"
            self.blocked = champion, self.reported_wait
            return self.reported_wait
        except MLScaleError as error:
            self.is_stopped = was_stopped(error)
            has_begun = self._has_recorded_cycle(begun)
            self.cycles += has_begun
            # The guard does not count what fails before its window is taken, and each look would try it again.
            self.pause = datetime.now(UTC) + timedelta(hours=self.cfg.guard.cooldown_hours)
            # A line of the log, also where the fix has several.
            fix = f"; {' '.join(error.fix.split())}" if error.fix else ""
            return f"{'the cycle failed' if has_begun else 'no cycle'}: {error.what}{fix}"
        if "wait_s" in result.metrics:  # the guard has refused it
            return result.sentence
        self.cycles += 1
        self.promotions += result.ok
        shortage = int(self.cfg.window.min_samples - result.metrics["window_total"])
        # A cycle without a run had too few samples, on one of its two sides at least.
        self.needed = self._count_labelled() + max(1, shortage) if "run" not in result.artifacts else 0
        return result.sentence

    def _has_recorded_cycle(self, since: str) -> bool:
        """Return whether a cycle that began after `since` is in the journal: an error before it is not a cycle."""
        begun = datetime.fromisoformat(since)
        cycles = RetrainingJournal(self.registry.root, self.model).read_cycles()
        return any(datetime.fromisoformat(cycle.begun) >= begun for cycle in cycles)

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
