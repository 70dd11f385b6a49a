"""The steps of a drill for its page."""

from __future__ import annotations

from collections.abc import Sequence

from mlscale.drill.drill_findings import DrillFacts, DrillFinding, format_seconds
from mlscale.drill.platform_rules import PlatformRules
from mlscale.report import ReportStep

_STEPS = {"ended": ("grace", "exit"), "restarted": ("secret", "folder", "size", "restart"), "compared": ("order",)}


def build_drill_steps(
    rules: PlatformRules, facts: DrillFacts, findings: Sequence[DrillFinding]
) -> tuple[ReportStep, ...]:
    """Return the numbered steps: ended, restarted, compared; each with its findings, or with what was seen."""
    seen = {
        "ended": f"after step {facts.killed_step:,}, on {facts.hosts[0] or 'a node'}, {facts.devices} processes",
        "restarted": f"on {facts.hosts[1] or 'another node'}, {facts.restart_devices} processes",
        "compared": "bitwise identical" if facts.is_bitwise else "the same global batches",
    }
    needed = facts.ending.needed_s
    values = {
        "ended": "" if needed is None else f"{format_seconds(needed)} of {rules.grace_s:g} s",
        "restarted": "" if facts.lost_steps is None else f"{facts.lost_steps:,} steps lost",
    }
    steps = []
    for title, kinds in _STEPS.items():
        faults = [finding for finding in findings if finding.kind in kinds]
        reached = title == "ended" or facts.resumed_step is not None or bool(faults)
        text = "; ".join(f"{finding.text}. Fix: {finding.fix}" for finding in faults) or seen[title]
        steps.append(ReportStep(title, text if reached else "", not faults if reached else None, values.get(title, "")))
    return tuple(steps)
