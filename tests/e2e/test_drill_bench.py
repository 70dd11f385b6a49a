"""Verdicts of `mlscale drill` on platforms with planted faults, drawn anew each night."""

import os
import random
import time

import pytest

from scripts import bench_drill


@pytest.mark.nightly
@pytest.mark.timeout(2400)
def test_three_platforms_of_the_night_are_judged_right() -> None:
    seed = os.environ.get("MUTATION_SEED") or time.strftime("%Y%m%d", time.gmtime())
    # The bench prints each verdict; .ci/nightly shows it, with the seed that repeats it.
    assert bench_drill.main(["--seed", seed, "--count", "3", "--jobs", "3"]) == 0


def test_every_fault_is_planted_by_some_seed() -> None:
    """A sample of three without any fault would be right whatever the drill finds."""
    drawn = [bench_drill.PlantedPlatform.draw(random.Random(seed)) for seed in range(60)]
    kinds = {kind for platform in drawn for kind in platform.expected}
    assert kinds == {"grace", "secret", "folder", "size"}
    assert {platform.name for platform in drawn} == set(bench_drill.PLATFORMS)
