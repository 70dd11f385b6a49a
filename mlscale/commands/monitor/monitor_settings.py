"""The settings of `mlscale monitor`, read and checked: all problems are reported at once."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from mlscale.commands.monitor.foreign_log import ForeignLog, find_foreign_log
from mlscale.commands.monitor.metric_export import MetricExport, read_metric_export
from mlscale.config.names.suggest import find_nearest
from mlscale.errors import MLScaleError, raise_all
from mlscale.export.required_extras import require_extra
from mlscale.monitor.alert_rule import AlertPolicy
from mlscale.monitor.event_window import WindowSpan
from mlscale.monitor.monitor_state import FORMER_RULES
from mlscale.monitor.window_check import RULES, MonitorLimits
from mlscale.notify.apprise_notifier import AppriseNotifier
from mlscale.notify.command_notifier import CommandNotifier
from mlscale.notify.delivery import DocumentRecipient
from mlscale.notify.mail_notifier import MailNotifier
from mlscale.notify.webhook import Webhook
from mlscale.runs.identity import make_folder_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from omegaconf import DictConfig

    from mlscale.versions.trained_model import TrainedModel


@dataclass(frozen=True)
class MonitorSettings:
    """The settings of conf/command/monitor.yaml; `events` is a folder, also where a log has files elsewhere."""

    ref: str
    events: Path
    span: WindowSpan
    limits: MonitorLimits
    rules: tuple[str, ...]
    patience: AlertPolicy
    recipients: Mapping[str, DocumentRecipient]
    page: Path | None
    every_s: float
    export: MetricExport = field(default_factory=MetricExport)
    log: ForeignLog | None = None

    @classmethod
    def read_monitor_settings(cls, cfg: DictConfig) -> MonitorSettings:
        """Read and check them.

        Raises:
            MLScaleError: numbers out of their range, unknown rules, invalid times or addresses.
        """
        problems = list(_find_setting_problems(cfg))
        window, drift, accuracy, alert = cfg.window, cfg.drift, cfg.accuracy, cfg.alert
        # The constructors refuse bad values: their errors join the others instead of hiding them.
        span, recipients = None, {}
        try:
            span = WindowSpan(window.hours, _parse_time(window.since), window.max_events, accuracy.hours)
        except MLScaleError as error:
            problems.append(error)
        try:
            recipients = create_recipients(alert)
        except MLScaleError as error:
            problems.append(error)
        export = MetricExport()
        try:
            export = read_metric_export(cfg)
        except MLScaleError as error:
            problems.append(error)
        log, events = None, Path(cfg.events).expanduser().absolute()
        try:
            log = find_foreign_log(events, cfg.mapping)
        except MLScaleError as error:
            problems.append(error)
        # From here on `span` is set, because its error would have been raised.
        raise_all(problems)
        assert span is not None
        return cls(
            ref=str(cfg.ref),
            events=log.folder if log else events,
            span=span,
            limits=MonitorLimits(
                fdr=drift.fdr,
                min_distance=drift.min_distance,
                min_events=window.min_events,
                min_labels=accuracy.min_labels,
                tolerance=accuracy.tolerance,
                confidence=cfg.confidence,
                p99_ms=cfg.latency.p99_ms,
                max_failures=cfg.failures.max_share,
            ),
            # Each rule once, in the typed order.
            rules=tuple(dict.fromkeys(_list_rules(cfg))),
            patience=AlertPolicy(alert.looks, alert.hysteresis, alert.keep, alert.cooldown),
            recipients=recipients,
            page=Path(cfg.page).expanduser().absolute() if cfg.page else None,
            every_s=cfg.every_s,
            export=export,
            log=log,
        )

    def resolve_state_file(self, typed: str | None, events: Path, model: TrainedModel) -> Path:
        """Return the state file: as typed, or next to the model's events, one for each watched name and each log of
        another server: the champion and the challenger have incidents of their own, and so have two logs.
        """
        if typed:
            return Path(typed).expanduser().absolute()
        watched = self.ref
        if not model.is_registered:  # a folder
            # Two folders may hold models of the same name: their incidents must not share a file.
            digest = hashlib.sha256(str(model.servable).encode()).hexdigest()[:8]
            watched = f"{model.name}-{digest}"
        if self.log is not None:
            watched = f"{watched}-{self.log.build_state_suffix()}"
        return events / make_folder_name(model.name) / "monitor" / f"{make_folder_name(watched)}.json"


def _find_setting_problems(cfg: DictConfig) -> Iterator[MLScaleError]:
    # A misspelt rule would never send an alert, without any sign of it.
    rules = _list_rules(cfg)
    for rule in rules:
        if rule not in RULES:
            best = find_nearest(rule, RULES) or "<a rule>"
            why = f"rules: {', '.join(RULES)}"
            others = ",".join(best if other == rule else other for other in rules)
            yield MLScaleError(f"unknown rule '{rule}'", where="alert.rules", why=why, fix=f"alert.rules=[{others}]")


def _list_rules(cfg: DictConfig) -> list[str]:
    """Return the rules of the settings, by their names of today."""
    return [FORMER_RULES.get(str(rule), str(rule)) for rule in cfg.alert.rules]


def _parse_time(text: object) -> datetime | None:
    """Return ISO 8601 text as a time; without a zone it is UTC, like the events'."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(str(text))
    except ValueError as error:
        fix = f"window.since={datetime.now(UTC) - timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}"
        raise MLScaleError(f"'{text}' is not a time", where="window.since", why="ISO 8601", fix=fix) from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def create_recipients(alert: DictConfig) -> dict[str, DocumentRecipient]:
    """Return the recipients of alerts, by the names of their folders of the outbox.

    Raises:
        MLScaleError: all wrong settings at once, or apprise is not installed (exit code 5).
    """
    recipients: dict[str, DocumentRecipient] = {}
    problems: list[MLScaleError] = []
    for name, where in _list_wanted(alert):
        # The constructors refuse bad values: one error must not hide the others.
        try:
            recipients[name] = _create_recipient(alert, name, where)
        except MLScaleError as error:
            problems.append(error)
    raise_all(problems)
    return recipients


def _list_wanted(alert: DictConfig) -> Iterator[tuple[str, str]]:
    """Yield the name of each recipient's folder, and its address where there are several of a kind."""
    if alert.webhook is not None:
        yield "webhook", str(alert.webhook)
    if alert.command is not None:
        yield "command", ""
    if alert.mail.host is not None:
        yield "mail", ""
    urls = [alert.apprise] if isinstance(alert.apprise, str) else alert.apprise or []
    for number, url in enumerate(urls, 1):
        # By number: any part of the address may be secret.
        yield f"apprise-{number}", str(url)


def _create_recipient(alert: DictConfig, name: str, url: str) -> DocumentRecipient:
    # A command and apprise show no sign of having got the alert before they end: one time limit for both.
    whole_s = alert.timeout_s + alert.answer_s
    if name == "webhook":
        return Webhook(url, alert.timeout_s, alert.tries, answer_s=alert.answer_s)
    if name == "command":
        return CommandNotifier(_split_command(alert.command), whole_s, "alert.command")
    if name == "mail":
        return _create_mail(alert)
    require_extra("notify", "apprise")
    return AppriseNotifier(url, whole_s, "alert.apprise")


def _split_command(command: object) -> list[str]:
    """Return the words of a command: a list, or a text that is split as a shell would, without being run by one."""
    if not isinstance(command, str):
        return [str(word) for word in command]  # type: ignore[attr-defined]  # a ListConfig
    try:
        return shlex.split(command)
    except ValueError as error:
        raise MLScaleError(
            "the command can't be split into words",
            where="alert.command",
            why=str(error).lower(),
            fix="alert.command=[notify-send,mlscale]",
        ) from error


def _create_mail(alert: DictConfig) -> MailNotifier:
    mail = alert.mail
    # Reported with the names of the keys, which the notifier does not know.
    missing = [f"alert.mail.{name}" for name in ("to", "sender") if not mail[name]]
    if missing:
        raise MLScaleError(
            f"a mail needs {' and '.join(missing)}",
            where=missing[0],
            fix="alert.mail.to=[me@example.org] alert.mail.sender=monitor@example.org",
        )
    to = [mail.to] if isinstance(mail.to, str) else [str(address) for address in mail.to]
    return MailNotifier(
        host=str(mail.host),
        to=to,
        sender=str(mail.sender),
        port=mail.port,
        security=mail.security,
        user=mail.user,
        password=mail.password,
        timeout_s=alert.timeout_s,
        where="alert.mail",
        answer_s=alert.answer_s,
    )
