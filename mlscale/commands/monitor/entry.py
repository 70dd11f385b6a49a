"""Compare the answers of a server with the reference profile of its model, and send alerts if something is wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlscale.assembly.build import build
from mlscale.commands.monitor.foreign_log import ConvertedLog
from mlscale.commands.monitor.monitor_settings import MonitorSettings
from mlscale.errors import MLScaleError
from mlscale.export.required_extras import require_extra
from mlscale.launch.start_notices import print_masked_lines
from mlscale.report import Result
from mlscale.report.text import format_count
from mlscale.secrets.mask import Masker

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.monitor.alerts import AlertReport
    from mlscale.monitor.baseline import Baseline
    from mlscale.monitor.window_check import WindowCheck


def run(cfg: DictConfig) -> Result:
    """Check once, or with `watch=true` until SIGTERM; alerts go to the webhook and the services of apprise.

    Not ok while a rule has an incident, or without data: exit code 4. A watch that is ended by a signal is ok.

    Raises:
        MLScaleError: no such version, a corrupt reference profile, events of another model, settings out of their
            range, a state that can't be written (exit code 5), or the extra 'monitor' is not installed.
    """
    require_extra("monitor", "prometheus_client", "pyarrow")
    # Settings are checked first: a watch must not fail after hours for a typo.
    monitor = Monitor(
        MonitorSettings.read_monitor_settings(cfg), build(cfg.registry, "registry"), Path(cfg.runs_dir), cfg.alert.state
    )
    if cfg.watch:
        return _watch_model(monitor, Masker.create_for_run(cfg))
    return monitor.build_monitor_result(monitor.check_window())


def _watch_model(monitor: Monitor, masker: Masker) -> Result:
    """Check again and again until a signal comes; print a line for each check."""
    from mlscale.monitor.event_folder import ShutdownRequest, wait_for_first_check

    settings = monitor.settings
    with ShutdownRequest() as stop, settings.export.serve_metrics() as address:
        # What is wrong with the command is wrong now; a server without its first event is not.
        first = wait_for_first_check(
            monitor.check_window, stop, settings.every_s, lambda line: print_masked_lines([line], masker)
        )
        if first is None:
            return Result("monitor", ok=True, sentence="no checks: no event came", metrics={"looks": 0})
        check = first
        checks, alerts = 1, len(check.alerts.changes)
        served = f", metrics at {address}" if address else ""
        begun = f"watching {settings.ref}, every {settings.every_s:g} s{served}"
        print_masked_lines([begun, _format_log_line(check)], masker)
        while not stop.wait_for_request(settings.every_s):
            try:
                check = monitor.check_window()
            except MLScaleError as error:  # a registry that is being moved, a full disk: the next look may do better
                print_masked_lines([f"no look: {error}"], masker)
                continue
            checks, alerts = checks + 1, alerts + len(check.alerts.changes)
            print_masked_lines([_format_log_line(check)], masker)
    result = monitor.build_monitor_result(check)
    return replace(
        result,
        ok=True,
        sentence=f"{format_count(checks, 'look')}, {format_count(alerts, 'alert')}; at last {result.sentence}",
        metrics={"looks": checks, **result.metrics},
    )


@dataclass(frozen=True)
class MonitorCheck:
    """One check, its subject, and the alerts about it."""

    baseline: Baseline
    window_check: WindowCheck
    alerts: AlertReport
    state: Path
    newest: datetime | None
    skipped: int
    log: ConvertedLog | None = None
    losses: str = ""


@dataclass
class Monitor:
    """The checks of a model by its settings; the version is resolved again for each, because an alias moves."""

    settings: MonitorSettings
    registry: Any
    runs_dir: Path
    state: str | None
    quiet: bool = False
    checks: int = 0
    files: Mapping[str, str] = field(default_factory=dict)

    def check_window(self) -> MonitorCheck:
        """Check the window that ends now, and send the alerts that are due."""
        from mlscale.events.store import EventStore
        from mlscale.monitor import baseline
        from mlscale.monitor import event_window as window
        from mlscale.monitor import window_check as window_check
        from mlscale.monitor.alerts import AlertDispatcher
        from mlscale.monitor.event_folder import check_event_folder
        from mlscale.versions.model_reference import resolve_reference
        from mlscale.versions.trained_model import require_servable

        settings, now = self.settings, datetime.now(UTC)
        # Quiet after the first check: a watch would print the same line each time.
        quiet = self.quiet or self.checks > 0
        model = resolve_reference(settings.ref, runs_dir=self.runs_dir, registry=self.registry, quiet=quiet)
        self.checks += 1
        located = require_servable(model, self.runs_dir)
        assert located.servable is not None
        reference = baseline.read_baseline(located.servable, model=located.name, version=located.version)
        store, log, start = EventStore(settings.events), None, settings.span.compute_start(now, settings.span.hours)
        if settings.log is None:
            check_event_folder(store)
        else:
            log = settings.log.convert_events(located, settings.span.compute_earliest_start(now))
            store = log.store
            # What the log does not have can't be compared, and is not missing data.
            known = tuple(sketch for sketch in reference.sketches if log.is_mapped(sketch.name))
            reference = replace(reference, sketches=known)
        events = window.read_event_window(
            store,
            located.name,
            located.version,
            settings.span,
            now,
            reference.scorer,
            settings.limits.min_events,
        )
        outcome = window_check.check_rules(reference, events, settings.limits)
        state = settings.resolve_state_file(self.state, settings.events, located)
        watched = settings.ref if located.is_registered else located.name
        desk = AlertDispatcher(state, watched, settings.rules, settings.patience, settings.recipients)
        # The state is saved by this call, before the page is written: an error there repeats no alert.
        alerts = desk.process_check(outcome, located.name, now)
        export = settings.export
        if self.checks == 1:  # they depend on the settings alone
            self.files = export.write_rule_files(watched, settings.rules, settings.patience, settings.every_s)
        export.export_check(alerts, outcome.columns, settings.rules, events.newest)
        losses = log.describe_losses(start) if log else ""
        check = MonitorCheck(reference, outcome, alerts, state, events.newest, events.skipped, log, losses)
        self._write_page(check)
        return check

    def build_monitor_result(self, check: MonitorCheck) -> Result:
        """Return the result of one check."""
        from mlscale.monitor.drift_plots import build_drift_table, list_changed_columns, plot_drifted_columns

        columns, least = check.window_check.columns, self.settings.limits.min_distance
        alerts, no_data = check.alerts, check.window_check.find_result("no_data")
        page = {"page": str(self.settings.page)} if self.settings.page else {}
        return Result(
            command="monitor",
            # No data is a failure: a server that writes no events looks healthy otherwise.
            ok=not alerts.firing and not (no_data and no_data.sentence),
            sentence=_summarize_check(check),
            metrics={
                **check.window_check.metrics,
                "newest_event_age_s": (datetime.now(UTC) - check.newest).total_seconds() if check.newest else math.nan,
                "skipped_files": check.skipped,
                **_count_log_rows(check.log),
                "firing_rules": len(alerts.firing),
                "alerts": len(alerts.changes),
                "sent_alerts": alerts.sent,
                "waiting_alerts": alerts.waiting,
            },
            artifacts={"state": str(check.state), **page, **self.files},
            figures=(*build_drift_table(columns, least), *plot_drifted_columns(columns)),
            details={
                **{f"drifted_{group}": self._list_drifted(check, group) for group in ("inputs", "outputs")},
                "changed_columns": list_changed_columns(columns, least),
            },
        )

    def _list_drifted(self, check: MonitorCheck, group: str) -> list[str]:
        """Return the columns of inputs, or of outputs, that are worth an alert."""
        least = self.settings.limits.min_distance
        columns = check.window_check.columns
        over = [column for column in columns if column.is_detected and column.distance >= least]
        return list(dict.fromkeys(column.name for column in over if column.group == group))

    def _write_page(self, check: MonitorCheck) -> None:
        from mlscale.atomic_files import write_setting_file
        from mlscale.report.html import render_page

        if self.settings.page is None:
            return
        shown = self.build_monitor_result(check)
        title = f"monitor · {check.window_check.version}"
        text = render_page(title, shown.sentence, shown.ok, shown.metrics, shown.artifacts, shown.figures)
        write_setting_file("page", self.settings.page, text)


def _count_log_rows(log: ConvertedLog | None) -> dict[str, float]:
    """Return the metrics of a log that was read; none where events are those of mlscale's own servers."""
    if log is None:
        return {}
    report = log.report
    return {
        "log_rows": report.rows,
        "unreadable_rows": report.unreadable.total(),
        "rows_of_other_versions": report.other_versions.total(),
    }


def _format_log_line(check: MonitorCheck) -> str:
    """Return a check as a line of a log."""
    return f"{datetime.now().astimezone().isoformat(timespec='seconds')}  {_summarize_check(check)}"


def _summarize_check(check: MonitorCheck) -> str:
    """Return a sentence about a check and its alerts."""
    alerts, parts = check.alerts, [check.window_check.sentence]
    if check.losses:
        parts.append(check.losses)
    if alerts.pending:
        parts.append(f"pending: {', '.join(alerts.pending)}")
    if alerts.firing:
        parts.append(f"alerting: {', '.join(alerts.firing)}")
    over = [alert["rule"] for alert in alerts.changes if alert["status"] == "resolved"]
    if over:
        parts.append(f"over: {', '.join(over)}")
    if alerts.waiting:
        parts.append(f"{alerts.waiting} {'alert waits' if alerts.waiting == 1 else 'alerts wait'}")
    if alerts.problem:
        parts.append(alerts.problem)
    return "; ".join(parts)
