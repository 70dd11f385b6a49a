"""The settings `prometheus.*` of `mlscale monitor`: metrics as a file or at a port, alerting rules, and a dashboard."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mlscale.atomic_files import write_setting_file
from mlscale.config.names.suggest import format_override
from mlscale.errors import Exit, MLScaleError
from mlscale.monitor.alert_rule import AlertPolicy

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.monitor.alerts import AlertReport
    from mlscale.monitor.drift import ColumnDrift
    from mlscale.monitor.exporters.metrics_text import CheckCollector


@dataclass
class MetricExport:
    """The exporters of one monitor.

    Attributes:
        textfile: for node_exporter's textfile collector.
        host, port: of `/metrics`; no server where the port is None.
        rules, dashboard: files for Prometheus and Grafana.
    """

    textfile: Path | None = None
    host: str = "127.0.0.1"
    port: int | None = None
    rules: Path | None = None
    dashboard: Path | None = None
    _served: CheckCollector | None = None

    @contextlib.contextmanager
    def serve_metrics(self) -> Iterator[str]:
        """Serve `/metrics` inside the block, if a port is set; yield its address, else an empty text."""
        # A context either way, so that the caller has one path.
        if self.port is None:
            yield ""
            return
        from prometheus_client import start_http_server

        from mlscale.monitor.exporters.metrics_text import CheckCollector

        self._served = CheckCollector()
        try:
            server, thread = start_http_server(self.port, self.host, self._served)
        except OSError as error:
            raise MLScaleError(
                f"can't serve metrics at {self.host}:{self.port}",
                where="prometheus.port",
                why=error.strerror or type(error).__name__,
                fix="prometheus.port=<a free port>",
                exit=Exit.ENVIRONMENT,
            ) from error
        # An IPv6 address has brackets in a URL.
        host = f"[{self.host}]" if ":" in self.host else self.host
        try:
            # With port 0 the system chooses: the address is known only now.
            yield f"http://{host}:{server.server_port}/metrics"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def write_rule_files(
        self, watched: str, rules: Sequence[str], policy: AlertPolicy, every_s: float
    ) -> dict[str, str]:
        """Write the alerting rules and the dashboard, and return their paths by name.

        Raises:
            MLScaleError: a file can't be written (exit code 5).
        """
        if self.rules is not None:
            from mlscale.monitor.exporters.alerting_rules import render_alerting_rules

            write_setting_file("prometheus.rules", self.rules, render_alerting_rules(watched, rules, policy, every_s))
        if self.dashboard is not None:
            from mlscale.monitor.exporters.alerting_rules import render_dashboard

            write_setting_file("prometheus.dashboard", self.dashboard, render_dashboard(watched))
        paths = {"alerting_rules": self.rules, "dashboard": self.dashboard, "textfile": self.textfile}
        return {name: str(path) for name, path in paths.items() if path is not None}

    def export_check(
        self, alerts: AlertReport, columns: Sequence[ColumnDrift], rules: Sequence[str], newest: datetime | None
    ) -> None:
        """Export the metrics of a check.

        Raises:
            MLScaleError: the file can't be written (exit code 5).
        """
        # A check without a record has found nothing to export, such as one of a replaced version.
        if (self.textfile is None and self._served is None) or alerts.record is None:
            return
        from prometheus_client import generate_latest

        from mlscale.monitor.exporters.metrics_text import CheckCollector, build_check_metrics

        families = build_check_metrics(
            alerts.record, columns, rules=rules, checks=alerts.checks, waiting=alerts.waiting, newest=newest
        )
        if self.textfile is not None:
            text = generate_latest(CheckCollector(families)).decode()
            # node_exporter runs as a user of its own; the umask still applies.
            write_setting_file("prometheus.textfile", self.textfile, text, mode=0o644)
        if self._served is not None:
            self._served.families = families


def read_metric_export(cfg: DictConfig) -> MetricExport:
    """Return the exporters of the settings `prometheus.*`.

    Raises:
        MLScaleError: a file that node_exporter would not read, or a port without `watch=true`.
    """
    node = cfg.prometheus
    textfile, rules, dashboard = (
        Path(node[name]).expanduser().absolute() if node[name] else None for name in ("textfile", "rules", "dashboard")
    )
    # It would be ignored without a word, and the alerts with it.
    if textfile is not None and textfile.suffix != ".prom":
        raise MLScaleError(
            f"{textfile.name} does not end in .prom",
            where="prometheus.textfile",
            why="node_exporter reads no other file",
            fix=format_override("prometheus.textfile", str(textfile.with_suffix(".prom"))),
        )
    if node.port is not None and not cfg.watch:
        raise MLScaleError(
            "metrics are served by a monitor that keeps running",
            where="prometheus.port",
            why="a single check has ended before Prometheus scrapes it",
            fix="watch=true\nprometheus.textfile=<a file *.prom>",
        )
    return MetricExport(textfile, str(node.host), node.port, rules, dashboard)
