"""Turns looks into alerts: each incident is reported when it begins and when it ends, and no alert is lost."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from mlscale.atomic_files import convert_to_json
from mlscale.contracts import get_format_tag
from mlscale.monitor import monitor_state as memory_file
from mlscale.monitor.alert_rule import AlertPolicy, Change, RuleState, advance_rule
from mlscale.monitor.check_record import CheckLog, CheckRecord, build_check_record, locate_check_log
from mlscale.monitor.monitor_state import MonitorState
from mlscale.monitor.window_check import RuleResult, WindowCheck
from mlscale.notify.delivery import DocumentRecipient
from mlscale.outbox import ItemRefusedError, Outbox, OutboxReport, RetryPolicy

# Exponential, up to an hour; each look sends what is due.
_POLICY = RetryPolicy(backoff_s=(30, 60, 120, 240, 480, 960, 1920, 3600), max_refusals=100, max_age_s=7 * 86_400)
_SEND_SECONDS = 30.0  # of a look: no alert is sent later, so that another monitor does not wait too long for the state


@dataclass(frozen=True)
class AlertReport:
    """The alerts of one look, and their delivery.

    Attributes:
        firing: rules with an incident.
        pending: rules that are over their limit, and may become an incident.
        changes: alerts of this look, documents of the contract 'alert'.
        sent: the number of alerts that arrived, older ones included; of each recipient.
        waiting: the number of alerts that did not; they are sent at the next look.
        problem: the reason why an alert did not arrive, or another problem; '' if none.
        record: of the check, as the history has it.
        checks: the number of checks so far.
    """

    firing: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    changes: tuple[Mapping[str, Any], ...] = ()
    sent: int = 0
    waiting: int = 0
    problem: str = ""
    record: CheckRecord | None = None
    checks: int = 0


@dataclass(frozen=True)
class _Change:
    """An incident that begins or ends: its rule, version, start and description."""

    rule: str
    status: Change
    version: str
    since: str
    sentence: str
    began_as: str = ""


@dataclass(frozen=True)
class AlertDispatcher:
    """Tracks the incidents of one monitored reference, and sends their alerts.

    Args:
        path: the state file.
        watched: the reference as the user named it, `resnet@champion`; a part of each alert's id.
        rules: the rules that may become incidents.
        patience: the number of looks that this takes.
        recipients: get the alerts; by the names of folders of their own, so that one who is away holds up no other.
        retries: when an alert that did not arrive is sent again.
    """

    path: Path
    watched: str
    rules: Collection[str]
    patience: AlertPolicy
    recipients: Mapping[str, DocumentRecipient] = field(default_factory=dict)
    retries: RetryPolicy = _POLICY

    def process_check(self, check: WindowCheck, model: str, now: datetime) -> AlertReport:
        """Process one look, and send the alerts.

        An alert is on disk before it is sent, and is removed after it has arrived: it is sent twice, with the same id
        and key, where the process is killed in between, or where it was sent and no answer came; it is never lost.

        Raises:
            MLScaleError: the state can't be written (exit code 5), or is of a later format.
        """
        time = now.isoformat(timespec="milliseconds")
        # The lock spans the sending, too: another process would send the same alerts.
        with memory_file.lock_state(self.path):
            before = memory_file.load_state(self.path)
            rules, changes, counted = self._advance_rules(before, check, time)
            alerts = tuple(self._build_alert(change, check, model, time) for change in changes)
            # Without recipients nothing would ever take them out again, and the state file would grow.
            outbox = before.outbox + (alerts if self.recipients else ())
            after = MonitorState(check.version, before.looks + 1, rules, outbox, counted)
            # With the rules in one file first: a process that is killed here neither loses nor repeats an alert.
            memory_file.save_state(self.path, after, time)
            firing = tuple(name for name, state in rules.items() if state.phase == "firing")
            # Before the sending, which takes long: a process that is killed then has its check in the history.
            record = build_check_record(
                check, watched=self.watched, model=model, time=time, firing=firing, alerts=alerts
            )
            with memory_file.report_state_errors():
                CheckLog(locate_check_log(self.path)).append_record(record)
            if outbox and self.recipients:
                self._enqueue_alerts(outbox)
                after = replace(after, outbox=())
                memory_file.save_state(self.path, after, time)
            sent, problem = self._send_alerts()
            waiting = len(after.outbox) + sum(Outbox(path).count_items() for path in self._list_outboxes())
        if before.corruption:
            problem = "; ".join(
                filter(None, (f"the state was corrupt and is re-initialised ({before.corruption})", problem))
            )
        return AlertReport(
            firing=firing,
            pending=tuple(name for name, state in rules.items() if state.phase == "pending"),
            changes=alerts,
            sent=sent,
            waiting=waiting,
            problem=problem,
            record=record,
            checks=after.looks,
        )

    def _advance_rules(
        self, before: MonitorState, check: WindowCheck, time: str
    ) -> tuple[dict[str, RuleState], list[_Change], str]:
        """Return the states of the rules after the look, the changes, and the time up to which drift has counted."""
        rules: dict[str, RuleState] = {}
        changes = []
        # Incidents belong to a version: those of a replaced one end, since no more events of it are examined.
        replaced = before.version not in ("", check.version)
        for name, old in before.rules.items():
            if old.phase == "firing" and (replaced or name not in self.rules):
                why = f"{check.version} took its place" if replaced else "the rule is watched no more"
                sentence = f"{before.version}: {name} is over: {why}"
                changes.append(_Change(name, "resolved", before.version, old.since, sentence, old.began_as))
        counted = "" if replaced else before.counted
        for name in self.rules:
            old = RuleState() if replaced else before.rules.get(name, RuleState())
            result = check.find_result(name)
            level, patience = result.level if result else None, self.patience
            if name == "drift" and result and level is not None:
                if result.is_weak:
                    patience = replace(patience, looks=max(2, patience.looks))
                # A window that is mostly the one that has counted holds no new evidence: neither for an incident that
                # is pending, nor against one. The first look over the limit counts at once.
                if old.phase != "clear" and not self._is_new_evidence(old, result, check, counted):
                    level = None
                elif old.phase != "clear" or level >= 1:
                    counted = check.newest
            rules[name], status = advance_rule(old, level, patience, time)
            if result and status:
                # The id of the end is that of the beginning, so the time of the beginning is taken from the old state.
                since = rules[name].since if status == "firing" else old.since
                over = f"{name} is over: " if status == "resolved" else ""
                sentence = f"{check.version}: {over}{result.sentence or 'within its limit'}"
                changes.append(_Change(name, status, check.version, since, sentence, old.began_as))
        return rules, changes, counted

    def _is_new_evidence(self, old: RuleState, result: RuleResult, check: WindowCheck, counted: str) -> bool:
        if old.phase == "pending" and self.patience.looks == 1:
            # It waits to be confirmed: by strong evidence at once, by other evidence of other events alone.
            return (result.is_over and not result.is_weak) or check.is_new_since(counted, share=1.0)
        return check.is_new_since(counted)

    def _build_alert(self, change: _Change, check: WindowCheck, model: str, time: str) -> dict[str, Any]:
        # Of a replaced version there are no metrics at this look.
        result = check.find_result(change.rule) if change.version == check.version else None
        return {
            "format": get_format_tag("alert"),
            "id": f"{self.watched}/{change.began_as or change.rule}/{change.since}",
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

    @property
    def outboxes(self) -> Path:
        """The folder with a folder of waiting alerts for each recipient."""
        return self.path.with_name(f"{self.path.stem}-outbox")

    def _list_outboxes(self) -> list[Path]:
        # Of recipients that are set no more, too: what waits for them is counted, and sent once they are set again.
        return sorted(self.outboxes.iterdir()) if self.outboxes.is_dir() else []

    def _enqueue_alerts(self, alerts: Collection[Mapping[str, Any]]) -> None:
        with memory_file.report_state_errors():
            for name in self.recipients:
                outbox = Outbox(self.outboxes / name, self.retries)
                for alert in alerts:
                    outbox.add_item(alert, f"{alert['id']} {alert['status']}")

    def _send_alerts(self) -> tuple[int, str]:
        """Send the waiting alerts to each recipient, oldest first; return how many arrived, and what went wrong."""
        sent, problems = 0, []
        # At once: one that is slow must not delay the others.
        with ThreadPoolExecutor(max(1, len(self.recipients))) as pool:
            reports = dict(zip(self.recipients, pool.map(self._send_outbox, self.recipients), strict=True))
        for name, report in reports.items():
            sent += report.sent
            problems += _describe_problems(self.recipients[name].label, report)
        # Fails while a recipient's folder is in it.
        with contextlib.suppress(OSError):
            self.outboxes.rmdir()
        return sent, "; ".join(problems)

    def _send_outbox(self, name: str) -> OutboxReport:
        outbox = Outbox(self.outboxes / name, self.retries)
        with memory_file.report_state_errors():
            report = outbox.send_items(partial(_send_to_recipient, self.recipients[name]), seconds=_SEND_SECONDS)
            outbox.remove_if_empty()
        return report


def _send_to_recipient(recipient: DocumentRecipient, alerts: Sequence[Mapping[str, Any]]) -> None:
    for alert in alerts:
        result = recipient.send_document(alert)
        if not result.arrived:
            raise (ConnectionError if result.can_retry else ItemRefusedError)(result.why)


def _describe_problems(label: str, report: OutboxReport) -> list[str]:
    problems = [f"{label} took no alert: {report.why}"] if report.why else []
    return problems + [f"{label}: an alert is not sent any more: {line}" for line in report.failed]
