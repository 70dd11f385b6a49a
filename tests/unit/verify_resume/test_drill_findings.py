"""Verdicts of drills: every fault is named with a fix, and a drill without one says what was needed."""

from typing import Any

import pytest

from mlscale.verify_resume.drill_findings import DrillFacts, describe_drill, format_seconds, list_findings
from mlscale.verify_resume.platform_rules import JobEnding, PlatformRules
from tests.unit.verify_resume.rules import make_rules


def make_facts(**values: Any) -> DrillFacts:
    usual: dict[str, Any] = {
        "starting": JobEnding(0.4, 75), "ending": JobEnding(11.2, 75),
        "killed_step": 12, "resumed_step": 12, "devices": 2, "restart_devices": 1,
        "batch_size": 64, "hosts": ("node-1", "node-2"),
    }  # fmt: skip
    return DrillFacts(**usual | values)


def read_kinds(rules: PlatformRules, facts: DrillFacts) -> list[str]:
    return [finding.kind for finding in list_findings(rules, facts)]


def test_a_drill_without_a_fault_says_what_was_needed() -> None:
    rules, facts = make_rules(), make_facts()
    assert list_findings(rules, facts) == []
    assert describe_drill(rules, facts, []) == (
        "kubernetes: lost 0 steps; needs 11 s of grace, the platform gives 30; "
        "resumed on 1 process in place of 2, on another host: the same global batches"
    )
    same = make_facts(restart_devices=2, is_bitwise=True, hosts=("a", "a"), resumed_step=11)
    assert describe_drill(rules, same, []).endswith("resumed on 2 processes: bitwise identical")
    assert "lost 1 step;" in describe_drill(rules, same, [])


@pytest.mark.parametrize(
    ("rules", "facts", "kind", "text", "fix"),
    [
        ({}, {"ending": JobEnding(40.1, None)}, "grace", "needs 40 s, kubernetes gives 30 s", "launch.grace_s=61"),
        ({}, {"ending": JobEnding(600.0, None, False)}, "grace", "needs more than 600 s", "launch.grace_s=900"),
        ({}, {"starting": JobEnding(2.0, -15)}, "exit", "ended while it started with exit code -15", "keep=true"),
        ({}, {"ending": JobEnding(2.0, 1)}, "exit", "exit code 1, and kubernetes restarts 75 alone", "keep=true"),
        ({}, {"missing": ["A", "B"]}, "secret", "does not pass A, B", "launch.variables=[A]"),
        ({"survives": False}, {"resumed_step": 0}, "folder", "/mnt/runs is lost", "launch.claim=runs"),
        ({}, {"size_error": "x", "restart_devices": 3}, "size", "64 does not divide by 3", "data.batch_size=66, or 2"),
        ({}, {"size_error": "no port", "restart_devices": 4}, "size", "4 processes: no port", "restart_devices=2"),
        ({}, {"restart_error": "boom\nmore"}, "restart", "the restarted job failed: boom", "keep=true"),
        ({}, {"other_batch": 13}, "order", "other samples, first at step 13", "verify-resume"),
    ],
)  # fmt: skip
def test_every_fault_is_named_with_a_fix(
    rules: dict[str, Any], facts: dict[str, Any], kind: str, text: str, fix: str
) -> None:
    seen = list_findings(make_rules(**rules), make_facts(**facts))
    assert [finding.kind for finding in seen] == [kind]
    assert text in seen[0].text
    assert fix in seen[0].fix
    assert seen[0].fix in describe_drill(make_rules(**rules), make_facts(**facts), seen)


def test_all_faults_are_reported_together() -> None:
    facts = make_facts(ending=JobEnding(40.0, None), missing=["A"], size_error="x", restart_devices=3, resumed_step=0)
    assert read_kinds(make_rules(survives=False), facts) == ["grace", "secret", "folder", "size"]


def test_a_platform_without_a_signal_has_no_grace_period() -> None:
    rules = make_rules(signal_name="none", grace_s=0.0)
    facts = make_facts(ending=JobEnding(None, None), resumed_step=10)
    assert list_findings(rules, facts) == []
    assert "lost 2 steps; kubernetes gives no grace period" in describe_drill(rules, facts, [])


def test_a_job_that_never_began_again_has_lost_everything() -> None:
    facts = make_facts(resumed_step=None, restart_error="boom")
    assert "not resumed, all 12 steps lost" in describe_drill(make_rules(), facts, list_findings(make_rules(), facts))


def test_seconds_have_two_digits() -> None:
    assert [format_seconds(value) for value in (0.8412, 2.0, 11.2, 140.4)] == ["0.84 s", "2 s", "11 s", "140 s"]
