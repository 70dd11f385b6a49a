"""Swapped labels do not pass the gate where a champion is far from trained, right ones do: small trained networks."""

import numpy as np
import pytest

from scripts.bench_gate_labels import run_gate


@pytest.mark.parametrize("window", ["swapped", "flipped"])
def test_labels_that_contradict_the_original_data_are_stopped(window: str) -> None:
    rng = np.random.default_rng(1)
    runs = [run_gate(rng, 3, 5, window) for _ in range(3)]
    # Any training makes such a champion better, also on the original data.
    assert max(run.exact for run in runs) < 0.75
    reasons = ["; ".join(run.objections) for run in runs]
    named = "gate.relabelled=[0,1]" if window == "swapped" else "gate.relabelled=[0]"
    assert all("the window's labels contradict 0" in reason and named in reason for reason in reasons), reasons


def test_right_labels_pass() -> None:
    rng = np.random.default_rng(1)
    assert [run.objections for run in (run_gate(rng, 3, 5, "same") for _ in range(3))] == [[], [], []]
