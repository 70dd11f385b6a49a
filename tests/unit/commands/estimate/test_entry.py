"""What `mlscale estimate` concludes from what was measured."""

import math
from dataclasses import replace
from typing import Any

import pytest

from mlscale.commands.estimate.entry import (
    EstimateMeasurements,
    EstimateSettings,
    build_estimate_result,
    compute_cuda_overhead,
    parse_bytes,
)
from mlscale.commands.estimate.measurements import TimeEstimate
from mlscale.errors import Exit, MLScaleError
from mlscale.estimate.prices import load_price_file
from mlscale.estimate.step_memory import StepMemory
from mlscale.report import Result
from mlscale.runs.host.machine import MachineLoad

GIB = 2**30
NONE = dict.fromkeys(("accelerator", "memory_limit", "max_hours", "budget_usd", "instance", "usd_per_hour", "prices"))
MEMORY = StepMemory(
    peak=GIB,
    parameters=GIB // 4,
    gradients=GIB // 4,
    optimizer_state=GIB // 4,
    activations=GIB // 8,
    scratch=GIB // 8,
    error=0.03,
    how="traced",
)
OCCUPIED = 5 * GIB // 2  # what a process takes at most, where none was measured
TIME = TimeEstimate(
    seconds=7200.0,
    error=0.1,
    steps=100,
    step_s=72.0,
    samples_per_s=1.0,
    validation_s=1.0,
    startup_s=1.0,
    resident_bytes=3 * GIB // 2,
)


def concluded(limit: int = 2 * GIB, time: TimeEstimate | None = TIME, cuda: bool = False, **settings: Any) -> Result:
    wanted = EstimateSettings.read_estimate_settings({"probe_seconds": 20.0, **NONE, **settings})
    prices = load_price_file()
    instance = prices.find_instance(wanted.instance) if wanted.instance else None
    terms = compute_cuda_overhead(MEMORY, 1) if cuda else {}
    return build_estimate_result(
        EstimateMeasurements(MEMORY, terms, "cuda" if cuda else "cpu", limit, time, OCCUPIED), wanted, prices, instance
    )


def test_a_sharded_model_shows_what_is_gathered_and_what_a_save_takes() -> None:
    memory = replace(MEMORY, gathered_weights=GIB // 16, exchange_buffers=GIB // 16, start=GIB, hosted=GIB // 2)
    measured = EstimateMeasurements(memory, {}, "cpu", 2 * GIB, None, OCCUPIED, save_bytes=3 * GIB)
    wanted = EstimateSettings.read_estimate_settings({"probe_seconds": 0.0, **NONE})
    metrics = build_estimate_result(measured, wanted, load_price_file(), None).metrics
    assert metrics["gathered_weights_bytes"] == metrics["exchange_buffers_bytes"] == GIB // 16
    assert (metrics["start_memory_bytes"], metrics["save_memory_bytes"]) == (GIB, 3 * GIB)
    assert metrics["host_memory_bytes"] == GIB // 2
    assert not any("gathered" in name or "save" in name for name in concluded().metrics)


def test_the_sentence_and_the_figures() -> None:
    result = concluded()
    assert result.ok
    assert result.exit == Exit.DONE
    assert result.sentence == "needs 1.0 GiB (±3 %) per process, 2 h 00 min (±10 %) on this machine, cost unknown"
    assert result.metrics["peak_memory_bytes"] == GIB
    assert result.metrics["needed_memory_bytes"] == 3 * GIB // 2  # what the probe's process took
    assert result.metrics["time_s"] == 7200
    assert result.as_dict()["metrics"]["cost_usd"] is None


def test_a_trace_that_misses_most_of_the_memory_is_a_range() -> None:
    memory = MEMORY.add_unseen_bytes(0, 5.0, "traced")
    wanted = EstimateSettings.read_estimate_settings({"probe_seconds": 0.0, **NONE})
    measured = EstimateMeasurements(memory, {}, "cpu", 0, None, OCCUPIED)
    assert build_estimate_result(measured, wanted, load_price_file(), None).sentence.startswith(
        "needs 1.0 GiB to 6.0 GiB per process"
    )


@pytest.mark.parametrize("count", [GIB, -GIB // 16, -GIB // 4])
def test_bytes_that_a_trace_has_not_seen_are_in_the_parts(count: int) -> None:
    memory = MEMORY.add_unseen_bytes(count, 0.03, "measured")
    parts = (memory.parameters, memory.gradients, memory.optimizer_state, memory.activations, memory.scratch)
    assert memory.peak == sum(parts) == GIB + count
    assert min(parts) >= 0


def test_the_load_of_the_machine_is_in_the_range_and_in_the_sentence() -> None:
    busy = MachineLoad(20.0, 2)
    assert busy.compute_uncertainty(2) > 1.32  # by so much a run took longer than was stated
    assert MachineLoad(0.2, 8).compute_uncertainty(2) == 0
    result = concluded(time=replace(TIME, error=busy.compute_uncertainty(2), busy=", load 20.0 on 2 cores"))
    assert "2 h 00 min (42 min 35 s to 5 h 38 min, load 20.0 on 2 cores) on this machine" in result.sentence


def test_a_price_per_hour() -> None:
    result = concluded(usd_per_hour=1.5)
    assert result.metrics["cost_usd"] == 3.0
    assert result.sentence.endswith("$3.00 at $1.5 per hour, if that is as fast as this machine")


def test_the_price_of_an_instance_shows_its_age_and_its_source() -> None:
    result = concluded(instance="aws/g5.xlarge")
    assert result.metrics["cost_usd"] == pytest.approx(2.012)
    assert result.metrics["price_age_days"] >= 0
    assert "prices of 2026-11-24" in result.details["price_by"]
    assert "two public tables that agree" in result.details["price_by"]


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"limit": GIB}, "1.5 GiB are more than the 1.0 GiB of a process"),
        ({"max_hours": 1.5}, "2 h 00 min is more than estimate.max_hours=1.5"),
        ({"budget_usd": 2.0, "usd_per_hour": 1.5}, "$3.00 is more than estimate.budget_usd=2"),
        ({"budget_usd": 2.0}, "an unknown cost is more than estimate.budget_usd=2"),
        ({"max_hours": 1.0, "time": None}, "an unknown time is more than estimate.max_hours=1"),
    ],
)
def test_a_limit_that_does_not_hold_is_a_gate(settings: dict[str, Any], what: str) -> None:
    result = concluded(**settings)
    assert not result.ok
    assert result.exit == Exit.GATE
    assert what in result.sentence


def test_limits_that_hold() -> None:
    assert concluded(max_hours=2.0, budget_usd=3.0, usd_per_hour=1.5).ok
    assert concluded(limit=0).ok  # nobody knows how much there is


def test_what_cuda_needs_besides_stands_apart_and_says_that_it_is_not_verified() -> None:
    result = concluded(limit=24 * GIB, cuda=True)
    terms = {name: value for name, value in result.metrics.items() if name.startswith("unverified_")}
    assert set(terms) == {f"unverified_{name}_bytes" for name in ("context", "workspace", "fragmentation")}
    assert result.metrics["needed_memory_bytes"] == GIB + sum(terms.values())
    assert "that CUDA needs besides (not verified)" in result.sentence


def test_without_a_probe_time_and_cost_are_unknown() -> None:
    result = concluded(limit=3 * GIB, time=None, usd_per_hour=1.0, probe_seconds=0.0)
    assert result.sentence == "needs 1.0 GiB (±3 %) per process, which occupies up to 2.5 GiB; time not probed"
    assert math.isnan(result.metrics["time_s"])
    assert math.isnan(result.metrics["cost_usd"])
    large = concluded(limit=3 * GIB, time=None)
    assert large.sentence.endswith("time not probed, since the run does not fit into the free memory")


@pytest.mark.parametrize("probe_seconds", [0.0, 20.0], ids=["not requested", "does not fit"])
def test_where_no_process_was_measured_the_limit_holds_for_what_one_may_occupy(probe_seconds: float) -> None:
    """Tensors are a half or less of what a process occupies: they alone would fit."""
    result = concluded(limit=2 * GIB, time=None, probe_seconds=probe_seconds)
    assert result.exit == Exit.GATE
    assert result.metrics["needed_memory_bytes"] == OCCUPIED
    assert "up to 2.5 GiB are more than the 2.0 GiB of a process" in result.sentence
    assert ("estimate.probe_seconds=20 measures it" in result.sentence) == (not probe_seconds)
    assert concluded(limit=3 * GIB, time=None, probe_seconds=probe_seconds).ok


def test_a_run_without_an_end_has_no_time_and_says_so() -> None:
    result = concluded(time=replace(TIME, seconds=math.nan, steps=0), max_hours=1.0)
    assert result.sentence == (
        "needs 1.0 GiB (±3 %) per process; 1 min 12 s a step on this machine, and the run has no end: "
        "trainer.max_epochs=… gives it one; an unknown time is more than estimate.max_hours=1"
    )
    assert "nan" not in result.sentence


@pytest.mark.parametrize(
    ("text", "count"), [("24GiB", 24 * GIB), ("1.5 GB", 1_500_000_000), ("512mib", 2**29), ("1000", 1000)]
)
def test_amounts_of_memory(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["much", "24 gigs", "-1GiB", ""])
def test_no_amounts_of_memory(text: str) -> None:
    with pytest.raises(MLScaleError, match="is not an amount of memory"):
        parse_bytes(text)
