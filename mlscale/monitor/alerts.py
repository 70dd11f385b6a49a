"""Turns looks into alerts: each incident is reported when it begins and when it ends, and no alert is lost."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from mlscale.atomic_files import convert_to_json
from mlscale.contracts import get_format_tag
from mlscale.monitor import monitor_state as memory_file
from mlscale.monitor.alert_rule import AlertPolicy, Change, RuleState, advance_rule
from mlscale.monitor.monitor_state import MonitorState
from mlscale.monitor.window_check import WindowCheck
from mlscale.notify.webhook import Webhook


@dataclass(frozen=True)
class AlertReport:
    """The alerts of one look, and their delivery.

    Attributes:
        firing: rules with an incident.
        pending: rules that are over their limit, and may become an incident.
        changes: alerts of this look, documents of the contract 'alert'.
        sent: the number of alerts that arrived, older ones included.
        waiting: the number of alerts that did not; they are sent at the next look.
        problem: the reason why an alert did not arrive, or another problem; '' if none.
    """

    firing: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    changes: tuple[Mapping[str, Any], ...] = ()
    sent: int = 0
    waiting: int = 0
    problem: str = ""


@dataclass(frozen=True)
class _Change:
    """An incident that begins or ends: its rule, version, start and description."""

    rule: str
    status: Change
    version: str
    since: str
    sentence: str


@dataclass(frozen=True)
class AlertDispatcher:
    """Tracks the incidents of one monitored reference, and sends their alerts.

    Args:
        path: the state file.
        watched: the reference as the user named it, `resnet@champion`; a part of each alert's id.
        rules: the rules that may become incidents.
        patience: the number of looks that this takes.
        webhook: receives the alerts; None: they are not sent.
    """

    path: Path
    watched: str
    rules: Collection[str]
    patience: AlertPolicy
    webhook: Webhook | None = None

    def process_check(self, check: WindowCheck, model: str, now: datetime) -> AlertReport:
        """Process one look, and send the alerts.

        An alert is on disk before it is sent, and is removed after it has arrived: it is sent twice, with the same id,
        where the process is killed in between, and is never lost.

        Raises:
            MLScaleError: the state can't be written (exit code 5), or is of a later format.
        """
        time = now.isoformat(timespec="milliseconds")
        # The lock spans the sending, too: another process would send the same alerts.
        with memory_file.lock_state(self.path):
            before = memory_file.load_state(self.path)
            rules, changes = self._advance_rules(before, check, time)
            alerts = tuple(self._build_alert(change, check, model, time) for change in changes)
            outbox = before.outbox + (alerts if self.webhook else ())
            after = MonitorState(check.version, before.looks + 1, rules, outbox)
            # Before anything is sent: see above.
            memory_file.save_state(self.path, after, time)
            waiting, problem = self._send_alerts(after, time)
        if before.corruption:
            problem = "; ".join(
                filter(None, (f"the state was corrupt and is re-initialised ({before.corruption})", problem))
            )
        return AlertReport(
            firing=tuple(name for name, state in rules.items() if state.phase == "firing"),
            pending=tuple(name for name, state in rules.items() if state.phase == "pending"),
            changes=alerts,
            sent=len(outbox) - len(waiting),
            waiting=len(waiting),
            problem=problem,
        )

    def _advance_rules(
        self, before: MonitorState, check: WindowCheck, time: str
    ) -> tuple[dict[str, RuleState], list[_Change]]:
        """Return the states of the rules after the look, and the changes."""
        rules: dict[str, RuleState] = {}
        changes = []
        # Incidents belong to a version: those of a replaced one end, since no more events of it are examined.
        replaced = before.version not in ("", check.version)
        for name, old in before.rules.items():
            if old.phase == "firing" and (replaced or name not in self.rules):
                why = f"{check.version} took its place" if replaced else "the rule is watched no more"
                sentence = f"{before.version}: {name} is over: {why}"
                changes.append(_Change(name, "resolved", before.version, old.since, sentence))
        for name in self.rules:
            old = RuleState() if replaced else before.rules.get(name, RuleState())
            result = check.find_result(name)
            rules[name], status = advance_rule(old, result.level if result else None, self.patience, time)
            if result and status:
                # The id of the end is that of the beginning, so the time of the beginning is taken from the old state.
                since = rules[name].since if status == "firing" else old.since
                over = f"{name} is over: " if status == "resolved" else ""
                sentence = f"{check.version}: {over}{result.sentence or 'within its limit'}"
                changes.append(_Change(name, status, check.version, since, sentence))
        return rules, changes

    def _build_alert(self, change: _Change, check: WindowCheck, model: str, time: str) -> dict[str, Any]:
        # Of a replaced version there are no metrics at this look.
        result = check.find_result(change.rule) if change.version == check.version else None
        return {
            "format": get_format_tag("alert"),
            "id": f"{self.watched}/{change.rule}/{change.since}",
            "status": change.status,
            "rule": change.rule,
            "watched": self.watched,
            "model": model,
            "version": change.version,
            "sentence": change.sentence,
            "since": change.since,
            "time": time,
            "metrics": convert_to_json({"events": check.events, **result.metrics}) if result else {},
        }

    def _send_alerts(self, memory: MonitorState, time: str) -> tuple[tuple[Mapping[str, Any], ...], str]:
        """Send the waiting alerts, oldest first; return the ones that are left, and why. After one failure that a retry
        may fix, no more are tried."""
        left, problem, dead = list(memory.outbox), "", False
        for alert in memory.outbox:
            if self.webhook is None or dead:
                break
            sent = self.webhook.send_document(alert)
            if sent.arrived:
                left.remove(alert)
                # Saved after each: a process that is killed here sends at most one alert twice.
                memory_file.save_state(self.path, replace(memory, outbox=tuple(left)), time)
            else:
                # An alert that is refused for good (not `again`) waits as well, but does not hold up those behind it.
                dead, problem = sent.can_retry, f"the webhook at {self.webhook.host} took no alert: {sent.why}"
        return tuple(left), problem
