"""Compare the answers of a server with the reference profile of its model, and send alerts if something is wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlscale.assembly.build import build
from mlscale.commands.monitor.monitor_settings import Settings
from mlscale.errors import MLScaleError
from mlscale.export.required_extras import need
from mlscale.launch.start_notices import say
from mlscale.report import Result
from mlscale.secrets.mask import Masker

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.monitor.alerts import Told
    from mlscale.monitor.baseline import Baseline
    from mlscale.monitor.window_check import Look


def run(cfg: DictConfig) -> Result:
    """Check once, or with `watch=true` until SIGTERM; alerts go to the webhook.

    Not ok while a rule has an incident, or without data: exit code 4. A watch that is ended by a signal is ok.

    Raises:
        MLScaleError: no such version, a corrupt reference profile, events of another model, settings out of their
            range, a state that can't be written (exit code 5), or the extra 'monitor' is not installed.
    """
    need("monitor", "pyarrow")
    # Settings are checked first: a watch must not fail after hours for a typo.
    monitor = Monitor(Settings.of(cfg), build(cfg.registry, "registry"), Path(cfg.runs_dir), cfg.alert.state)
    if cfg.watch:
        return _watch(monitor, Masker.of(cfg))
    return monitor.result(monitor.look())


def _watch(monitor: Monitor, masker: Masker) -> Result:
    """Check again and again until a signal comes; print a line for each check."""
    from mlscale.monitor.watch import Stop

    settings = monitor.settings
    with Stop() as stop:
        seen = monitor.look()  # what is wrong with the command is wrong now
        looks, alerts = 1, len(seen.told.changes)
        say([f"watching {settings.ref}, every {settings.every_s:g} s", _line(seen)], masker)
        while not stop.within(settings.every_s):
            try:
                seen = monitor.look()
            except MLScaleError as error:  # a registry that is being moved, a full disk: the next look may do better
                say([f"no look: {error}"], masker)
                continue
            looks, alerts = looks + 1, alerts + len(seen.told.changes)
            say([_line(seen)], masker)
    result = monitor.result(seen)
    return replace(
        result,
        ok=True,
        sentence=f"{looks:,} looks, {alerts:,} alerts; at last {result.sentence}",
        metrics={"looks": looks, **result.metrics},
    )


@dataclass(frozen=True)
class Seen:
    """One check, its subject, and the alerts about it."""

    baseline: Baseline
    look: Look
    told: Told
    state: Path
    newest: datetime | None
    skipped: int


@dataclass
class Monitor:
    """The checks of a model by its settings; the version is resolved again for each, because an alias moves."""

    settings: Settings
    registry: Any
    runs_dir: Path
    state: str | None
    looks: int = 0

    def look(self) -> Seen:
        """Check the window that ends now, and send the alerts that are due."""
        from mlscale.events.store import EventStore
        from mlscale.monitor import baseline
        from mlscale.monitor import event_window as window
        from mlscale.monitor import window_check as look
        from mlscale.monitor.alerts import Desk
        from mlscale.versions.model_reference import resolve_reference
        from mlscale.versions.trained_model import as_servable

        settings, now = self.settings, datetime.now(UTC)
        # Quiet after the first check: a watch would print the same line each time.
        found = resolve_reference(settings.ref, runs_dir=self.runs_dir, registry=self.registry, quiet=self.looks > 0)
        self.looks += 1
        located = as_servable(found, self.runs_dir)
        assert located.servable is not None
        reference = baseline.read(located.servable, model=located.name, version=located.version)
        events = window.read(EventStore(settings.events), located.name, located.version, settings.span, now)
        seen = look.look(reference, events, settings.limits)
        state = settings.state(self.state, settings.events, located)
        watched = settings.ref if located.is_registered else located.name
        desk = Desk(state, watched, settings.rules, settings.patience, settings.webhook)
        # The state is saved by this call, before the page is written: an error there repeats no alert.
        told = desk.take(seen, located.name, now)
        done = Seen(reference, seen, told, state, events.newest, events.skipped)
        self._write_page(done)
        return done

    def result(self, seen: Seen) -> Result:
        """Return the result of one check."""
        from mlscale.monitor.drift_plots import figures

        told, no_data = seen.told, seen.look.signal("no_data")
        page = {"page": str(self.settings.page)} if self.settings.page else {}
        return Result(
            verb="monitor",
            # No data is a failure: a server that writes no events looks healthy otherwise.
            ok=not told.firing and not (no_data and no_data.over),
            sentence=_sentence(seen),
            metrics={
                **seen.look.metrics,
                "newest_event_age_s": (datetime.now(UTC) - seen.newest).total_seconds() if seen.newest else math.nan,
                "skipped_files": seen.skipped,
                "firing_rules": len(told.firing),
                "alerts": len(told.changes),
                "sent_alerts": told.sent,
                "waiting_alerts": told.waiting,
            },
            artifacts={"state": str(seen.state), **page},
            figures=figures(seen.look.columns, seen.baseline.labels),
        )

    def _write_page(self, seen: Seen) -> None:
        from mlscale.atomic_files import make_folders, write_text
        from mlscale.report.html import page

        if self.settings.page is None:
            return
        shown = self.result(seen)
        title = f"monitor · {seen.look.version}"
        text = page(title, shown.sentence, shown.ok, shown.metrics, shown.artifacts, shown.figures)
        try:
            make_folders(self.settings.page.parent)
            write_text(self.settings.page, text)
        except MLScaleError as error:
            fix = "page=<a file in a folder that you may write to>"
            raise MLScaleError(error.what, where=error.where, why=error.why, fix=fix, exit=error.exit) from error


def _line(seen: Seen) -> str:
    """Return a check as a line of a log."""
    return f"{datetime.now().astimezone().isoformat(timespec='seconds')}  {_sentence(seen)}"


def _sentence(seen: Seen) -> str:
    """Return a sentence about a check and its alerts."""
    told, parts = seen.told, [seen.look.sentence]
    if told.pending:
        parts.append(f"pending: {', '.join(told.pending)}")
    if told.firing:
        parts.append(f"alerting: {', '.join(told.firing)}")
    over = [alert["rule"] for alert in told.changes if alert["status"] == "resolved"]
    if over:
        parts.append(f"over: {', '.join(over)}")
    if told.waiting:
        parts.append(f"{told.waiting} {'alert waits' if told.waiting == 1 else 'alerts wait'}")
    if told.problem:
        parts.append(told.problem)
    return "; ".join(parts)
