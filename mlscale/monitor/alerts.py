"""Turns looks into alerts: each incident is reported when it begins and when it ends, and no alert is lost."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from mlscale.atomic_files import plain
from mlscale.contracts import stamp
from mlscale.monitor import monitor_state as memory_file
from mlscale.monitor.alert_rule import Change, Patience, State, step
from mlscale.monitor.monitor_state import Memory
from mlscale.monitor.window_check import Look
from mlscale.notify.webhook import Webhook


@dataclass(frozen=True)
class Told:
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
class Desk:
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
    patience: Patience
    webhook: Webhook | None = None

    def take(self, look: Look, model: str, now: datetime) -> Told:
        """Process one look, and send the alerts.

        An alert is on disk before it is sent, and is removed after it has arrived: it is sent twice, with the same id,
        where the process is killed in between, and is never lost.

        Raises:
            MLScaleError: the state can't be written (exit code 5), or is of a later format.
        """
        time = now.isoformat(timespec="milliseconds")
        # The lock spans the sending, too: another process would send the same alerts.
        with memory_file.held(self.path):
            before = memory_file.load(self.path)
            rules, changes = self._stepped(before, look, time)
            alerts = tuple(self._alert(change, look, model, time) for change in changes)
            outbox = before.outbox + (alerts if self.webhook else ())
            after = Memory(look.version, before.looks + 1, rules, outbox)
            # Before anything is sent: see above.
            memory_file.save(self.path, after, time)
            waiting, problem = self._send(after, time)
        if before.damaged:
            problem = "; ".join(filter(None, (f"the state was damaged and begins anew ({before.damaged})", problem)))
        return Told(
            firing=tuple(name for name, state in rules.items() if state.phase == "firing"),
            pending=tuple(name for name, state in rules.items() if state.phase == "pending"),
            changes=alerts,
            sent=len(outbox) - len(waiting),
            waiting=len(waiting),
            problem=problem,
        )

    def _stepped(self, before: Memory, look: Look, time: str) -> tuple[dict[str, State], list[_Change]]:
        """Return the states of the rules after the look, and the changes."""
        rules: dict[str, State] = {}
        changes = []
        # Incidents belong to a version: those of a replaced one end, since no more events of it are examined.
        replaced = before.version not in ("", look.version)
        for name, old in before.rules.items():
            if old.phase == "firing" and (replaced or name not in self.rules):
                why = f"{look.version} took its place" if replaced else "the rule is watched no more"
                sentence = f"{before.version}: {name} is over: {why}"
                changes.append(_Change(name, "resolved", before.version, old.since, sentence))
        for name in self.rules:
            old = State() if replaced else before.rules.get(name, State())
            signal = look.signal(name)
            rules[name], status = step(old, signal.level if signal else None, self.patience, time)
            if signal and status:
                # The id of the end is that of the beginning, so the time of the beginning is taken from the old state.
                since = rules[name].since if status == "firing" else old.since
                over = f"{name} is over: " if status == "resolved" else ""
                sentence = f"{look.version}: {over}{signal.sentence or 'within its limit'}"
                changes.append(_Change(name, status, look.version, since, sentence))
        return rules, changes

    def _alert(self, change: _Change, look: Look, model: str, time: str) -> dict[str, Any]:
        # Of a replaced version there are no metrics at this look.
        signal = look.signal(change.rule) if change.version == look.version else None
        return {
            "format": stamp("alert"),
            "id": f"{self.watched}/{change.rule}/{change.since}",
            "status": change.status,
            "rule": change.rule,
            "watched": self.watched,
            "model": model,
            "version": change.version,
            "sentence": change.sentence,
            "since": change.since,
            "time": time,
            "metrics": plain({"events": look.events, **signal.metrics}) if signal else {},
        }

    def _send(self, memory: Memory, time: str) -> tuple[tuple[Mapping[str, Any], ...], str]:
        """Send the waiting alerts, oldest first; return the ones that are left, and why. After one failure that a retry
        may fix, no more are tried."""
        left, problem, dead = list(memory.outbox), "", False
        for alert in memory.outbox:
            if self.webhook is None or dead:
                break
            sent = self.webhook.send(alert)
            if sent.arrived:
                left.remove(alert)
                # Saved after each: a process that is killed here sends at most one alert twice.
                memory_file.save(self.path, replace(memory, outbox=tuple(left)), time)
            else:
                # An alert that is refused for good (not `again`) waits as well, but does not hold up those behind it.
                dead, problem = sent.again, f"the webhook at {self.webhook.host} took no alert: {sent.why}"
        return tuple(left), problem
