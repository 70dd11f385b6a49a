"""The live check of mixed precision compares on the same samples, here on a CPU."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts.live_check.precision_checks import PrecisionDevice, check_cpu_precision, compare_with_fp32, name_rows

_PAIRED = r"accuracy [\d.]+ % against [\d.]+ %, difference [+−-][\d.]+ \[.*\] points, p [<\d.]+ \(McNemar, exact, 114"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_mixed_precision_on_a_cpu(folder: Path) -> None:
    findings = check_cpu_precision(folder, 0, ["tabular"])
    assert [finding.what for finding in findings] == ["bf16, tabular on a CPU", "fp16, tabular on a CPU"]
    for finding in findings:
        assert finding.status == "proven", finding
        assert re.search(_PAIRED, finding.seen), finding.seen


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_precision_that_is_worse_or_does_not_train_is_no_proof(folder: Path) -> None:
    words = ("trainer.accelerator=cpu", "trainer.devices=1", "trainer.max_epochs=3")
    # float16 is refused on a CPU without the setting; bf16 has one step here.
    device = PrecisionDevice("CPU", " made worse", words, {"bf16": ("trainer.max_steps=1",)})
    worse, refused = compare_with_fp32(folder, device, ["tabular"])
    assert (worse.what, worse.status) == ("bf16, tabular made worse", "failed")
    assert worse.seen.startswith("worse than fp32: accuracy ")
    assert refused.status == "failed"
    assert "on_cpu" in refused.seen or "CPU" in refused.seen


def test_rows_are_one_for_each_recipe_and_precision() -> None:
    assert name_rows(" on a CPU")[:2] == ["bf16, resnet on a CPU", "fp16, resnet on a CPU"]
    assert len(set(name_rows())) == 6
