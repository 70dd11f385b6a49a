"""Decide what a drill has found: named faults of the platform's settings, each with a fix, and one sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mlscale.errors import Exit
from mlscale.verify_resume.platform_rules import JobEnding, PlatformRules

_MARGIN = 1.5  # of a grace period over the time that was needed here: a save takes longer on a busy file system


@dataclass(frozen=True)
class DrillFinding:
    """One fault.

    Attributes:
        kind: grace, folder, secret, size, exit, restart or order.
        text: the fact, in one line.
        fix: what to type.
    """

    kind: str
    text: str
    fix: str


@dataclass(frozen=True)
class DrillFacts:
    """The observations of a drill.

    Attributes:
        starting: how a start of the job ended that was stopped before it trained.
        ending: how the job ended.
        killed_step: optimizer steps that it had completed.
        resumed_step: optimizer steps at which the restarted job began; None where it never began.
        devices, restart_devices: processes before and after.
        batch_size: the global batch; None for data of the user's own loader.
        missing: environment variables without which the restarted job failed.
        size_error: the error with the other number of processes; empty where it worked.
        restart_error: any other error of the restarted job.
        other_batch: the first optimizer step with other samples than the uninterrupted run; None for none.
        is_bitwise: True if losses and weights are bitwise equal to those of the uninterrupted run.
        hosts: the host names before and after.
    """

    starting: JobEnding
    ending: JobEnding
    killed_step: int
    resumed_step: int | None
    devices: int
    restart_devices: int
    batch_size: int | None = None
    missing: Sequence[str] = ()
    size_error: str = ""
    restart_error: str = ""
    other_batch: int | None = None
    is_bitwise: bool = False
    hosts: tuple[str, str] = ("", "")

    @property
    def lost_steps(self) -> int | None:
        """Optimizer steps that are done again; None where the job never began again."""
        return None if self.resumed_step is None else max(0, self.killed_step - self.resumed_step)


def list_findings(rules: PlatformRules, facts: DrillFacts) -> list[DrillFinding]:
    """Return the faults, in the order in which a job meets them."""
    findings = []
    for ending, when in ((facts.starting, " while it started"), (facts.ending, "")):
        # A job that was killed has no exit code, so it is one or the other.
        if ending.needed_s is not None and ending.code is None and not when:
            findings.append(_find_short_grace(rules, ending))
        elif not rules.accepts_exit(ending.code):
            findings.append(
                DrillFinding(
                    "exit",
                    f"ended{when} with exit code {ending.code}, and {rules.name} restarts {int(Exit.SAVED)} alone",
                    "the log of the run has its error: the same with keep=true",
                )
            )
    if facts.missing:
        names = ", ".join(facts.missing)
        text = f"{rules.name} does not pass {names} to the restarted job"
        findings.append(DrillFinding("secret", text, rules.variable_fix.format(facts.missing[0])))
    # A lost folder does not end the drill: the other faults are to be seen in the same run.
    if not rules.survives:
        text = f"the run folder does not survive the node: {rules.runs_dir} is lost with it"
        findings.append(DrillFinding("folder", text, rules.lost_fix))
    if facts.size_error:
        findings.append(_describe_size(facts))
    if facts.restart_error:
        text = f"the restarted job failed: {facts.restart_error.splitlines()[0]}"
        findings.append(DrillFinding("restart", text, "the same with keep=true, and read node-2.log"))
    if facts.other_batch is not None:
        text = f"the restarted job trained on other samples, first at step {facts.other_batch:,}"
        findings.append(
            DrillFinding("order", text, "mlscale verify-resume, with the same words, names what is not saved")
        )
    return findings


def _find_short_grace(rules: PlatformRules, ending: JobEnding) -> DrillFinding:
    needed = ending.needed_s or 0.0
    more = "" if ending.is_complete else "more than "
    text = f"the grace period is too short: the run needs {more}{format_seconds(needed)}, " + (
        f"{rules.name} gives {rules.grace_s:g} s"
    )
    return DrillFinding("grace", text, rules.grace_key.format(math.ceil(needed * _MARGIN)))


def _describe_size(facts: DrillFacts) -> DrillFinding:
    batch = facts.batch_size
    # The usual cause is named by its numbers; any other has the error of the run.
    if batch and batch % facts.restart_devices:
        text = f"the global batch of {batch} does not divide by {facts.restart_devices} processes"
        divisor = next(count for count in range(facts.restart_devices, 0, -1) if batch % count == 0)
        return DrillFinding(
            "size", text, f"data.batch_size={_round_up(batch, facts.restart_devices)}, or {divisor} processes"
        )
    text = f"it does not run on {facts.restart_devices} processes: {facts.size_error.splitlines()[0]}"
    return DrillFinding("size", text, f"restart_devices={facts.devices}")


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step


def describe_drill(rules: PlatformRules, facts: DrillFacts, findings: Sequence[DrillFinding]) -> str:
    """Return the verdict: one sentence, and below it a line for each finding, with its fix."""
    parts = [_describe_loss(facts), _describe_grace(rules, facts.ending)]
    if facts.resumed_step is not None and not findings:
        parts.append(_describe_restart(facts))
    lines = [f"{rules.name}: {'; '.join(parts)}"]
    for finding in findings:
        lines += [f"{finding.kind}: {finding.text}", f"  fix: {finding.fix}"]
    return "\n  ".join(lines)


def _describe_loss(facts: DrillFacts) -> str:
    lost = facts.lost_steps
    if lost is None:
        return f"not resumed, all {facts.killed_step:,} steps lost"
    return f"lost {lost:,} step{'s' * (lost != 1)}"


def _describe_grace(rules: PlatformRules, ending: JobEnding) -> str:
    if ending.needed_s is None:
        return f"{rules.name} gives no grace period: what follows the last checkpoint is lost"
    more = "" if ending.is_complete else "more than "
    return f"needs {more}{format_seconds(ending.needed_s)} of grace, the platform gives {rules.grace_s:g}"


def _describe_restart(facts: DrillFacts) -> str:
    # On another size the sums of gradients differ in their order, so equal samples are all that can be expected.
    same = facts.devices == facts.restart_devices
    size = f"{facts.restart_devices} process{'es' * (facts.restart_devices != 1)}"
    where = size if same else f"{size} in place of {facts.devices}"
    how = "bitwise identical" if facts.is_bitwise else "the same global batches"
    moved = facts.hosts[0] != facts.hosts[1]
    return f"resumed on {where}{', on another host' if moved else ''}: {how}"


def format_seconds(seconds: float) -> str:
    """Return a duration with two digits: `0.84 s`, `11 s`, `140 s`."""
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
