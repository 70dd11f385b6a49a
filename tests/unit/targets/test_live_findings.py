"""The table of docs/proven.md keeps what another machine has proven."""

from __future__ import annotations

from scripts.live_check.finding import HEAD, Finding, format_findings, merge_findings

PROVEN = Finding("target=triton, image: its own server", "proven", "triton 2.51.0", "263 raw samples", "2026-11-29")
ABSENT = Finding("GPU busy, ResNet-18 at 224", "not here", "no CUDA device", date="2026-11-29")


def test_rows_are_added_replaced_and_kept() -> None:
    page = merge_findings("# What was proven\n\nText.\n", format_findings([PROVEN, ABSENT]))
    assert page.startswith("# What was proven\n\nText.\n\n" + HEAD)
    assert page.count("\n| ") == 3  # with the head
    later = [
        Finding(PROVEN.what, "not here", "no server", date="2027-01-01"),
        Finding(ABSENT.what, "proven", "H100", "97 % | in 40 looks", date="2027-01-01"),
        Finding("W&B: a run and a version", "failed", "wandb 0.31", "no\nanswer", date="2027-01-01"),
    ]
    rows = merge_findings(page, format_findings(later)).splitlines()
    # A machine without a server does not take away what one with a server has proven.
    assert PROVEN.format_row() in rows
    assert "| GPU busy, ResNet-18 at 224 | proven | H100 | 97 % / in 40 looks | 2027-01-01 |" in rows
    assert rows[-1] == "| W&B: a run and a version | failed | wandb 0.31 | no answer | 2027-01-01 |"
    # What fails now replaces what was proven.
    failed = Finding(PROVEN.what, "failed", "triton 2.52.0", "p99 is 80 ms", date="2027-01-02")
    assert PROVEN.format_row() not in merge_findings(page, format_findings([failed]))
