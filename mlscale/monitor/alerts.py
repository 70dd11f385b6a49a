"""From looks to alerts: each incident is told when it begins and when it is over, once each, and never lost."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from mlscale.contracts import stamp
from mlscale.files import plain
from mlscale.monitor import monitor_state as memory_file
from mlscale.monitor.alert_rule import Change, Patience, State, step
from mlscale.monitor.monitor_state import Memory
from mlscale.monitor.window_check import Look
from mlscale.notify.webhook import Webhook


@dataclass(frozen=True)
class Told:
    """What came of one look.

    Attributes:
        firing: rules with an incident.
        pending: rules that are over their limit, and may become one.
        changes: alerts of this look, documents of the contract 'alert'.
        sent: alerts that arrived, older ones among them.
        waiting: alerts that did not; they are sent at the next look.
        problem: why not, or what else went wrong; ''.
    """

    firing: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    changes: tuple[Mapping[str, Any], ...] = ()
    sent: int = 0
    waiting: int = 0
    problem: str = ""


@dataclass(frozen=True)
class _Change:
    """An incident that begins or is over: of which rule and version, since when, in words."""

    rule: str
    status: Change
    version: str
    since: str
    sentence: str


@dataclass(frozen=True)
class Desk:
    """Keeps the incidents of what is watched, and tells them.

    Args:
        path: the file that remembers.
        watched: as the user named it, `resnet@champion`; a part of each alert's id.
        rules: that may become incidents.
        patience: how many looks that takes.
        webhook: whom to tell; None for nobody.
    """

    path: Path
    watched: str
    rules: Collection[str]
    patience: Patience
    webhook: Webhook | None = None

    def take(self, look: Look, model: str, now: datetime) -> Told:
        """Take in one look, and tell what is to be told.

        What is to be sent is on the disk before it is sent, and leaves it after it arrived: an alert is sent twice
        where the process is killed in between (its id is the same), and never not at all.

        Raises:
            MLScaleError: the state can't be written (exit code 5), or is of a later format.
        """
        time = now.isoformat(timespec="milliseconds")
        with memory_file.held(self.path):
            before = memory_file.load(self.path)
            rules, changes = self._stepped(before, look, time)
            alerts = tuple(self._alert(change, look, model, time) for change in changes)
            outbox = before.outbox + (alerts if self.webhook else ())
            after = Memory(look.version, before.looks + 1, rules, outbox)
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
        """Where the rules stand after the look, and what has changed."""
        rules: dict[str, State] = {}
        changes = []
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
                since = rules[name].since if status == "firing" else old.since
                over = f"{name} is over: " if status == "resolved" else ""
                sentence = f"{look.version}: {over}{signal.sentence or 'within its limit'}"
                changes.append(_Change(name, status, look.version, since, sentence))
        return rules, changes

    def _alert(self, change: _Change, look: Look, model: str, time: str) -> dict[str, Any]:
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
        """Send what waits, oldest first; what is left, and why. A webhook that is dead is asked once."""
        left, problem, dead = list(memory.outbox), "", False
        for alert in memory.outbox:
            if self.webhook is None or dead:
                break
            sent = self.webhook.send(alert)
            if sent.arrived:
                left.remove(alert)
                memory_file.save(self.path, replace(memory, outbox=tuple(left)), time)
            else:
                dead, problem = sent.again, f"the webhook at {self.webhook.host} took no alert: {sent.why}"
        return tuple(left), problem
