"""Settings of a job on SLURM: what is refused, with which fix, and how time limits are read."""

import pytest

from mlscale.errors import MLScaleError, Problems
from mlscale.launch.slurm.settings import SlurmSettings, parse_time_limit, read_slurm_settings


def read(**launch: object) -> SlurmSettings:
    return read_slurm_settings(launch, 2, "cpu")


def test_only_keys_of_a_job_are_taken() -> None:
    settings = read(scheduler="slurm", nodes=3, max_restarts=0)
    assert (settings.nodes, settings.world_size, settings.uses_gpus) == (3, 6, False)


@pytest.mark.parametrize(("accelerator", "uses"), [("auto", True), ("cuda", True), ("gpu", True), ("mps", False)])
def test_gpus_are_requested_unless_the_accelerator_is_another(accelerator: str, uses: bool) -> None:
    assert read_slurm_settings({}, 1, accelerator).uses_gpus is uses


@pytest.mark.parametrize(
    ("launch", "fix"),
    [
        ({"nodes": 0}, "launch.nodes=1"),
        ({"max_failures": 0}, "launch.max_failures=1"),
        ({"cpus": 0}, "launch.cpus=4"),
        ({"time": "tomorrow"}, "launch.time=04:00:00"),
        ({"time": 2, "grace_s": 120}, "launch.grace_s=30"),
        ({"directives": {"--exclusive": True}}, "launch.directives={exclusive: …}"),
        ({"directives": {"time": "1"}}, "launch.time=1"),
        ({"directives": {"export": "NONE"}}, "leave export out"),
        ({"directives": {"job": "x"}}, "launch.directives={<option>: …}"),
        ({"directives": {"comment": {"a": 1}}}, "launch.directives.comment=<text>"),
        ({"partition": "main\n#SBATCH --uid=0"}, "launch.partition=<one line>"),
        ({"directives": {"comment": "a\rb"}}, "launch.directives.comment=<one line>"),
        ({"setup": ["true\nfalse"]}, "launch.setup=['first line','second line']"),
    ],
)
def test_what_is_refused_and_its_fix(launch: dict[str, object], fix: str) -> None:
    with pytest.raises(MLScaleError) as caught:
        read(**launch)
    assert caught.value.fix == fix


def test_all_problems_are_reported_together() -> None:
    with pytest.raises(Problems) as caught:
        read_slurm_settings({"nodes": 0, "array": 0}, "auto", "cpu")
    assert [problem.where for problem in caught.value.problems] == ["launch.nodes", "launch.array", "trainer.devices"]


@pytest.mark.parametrize(
    ("limit", "seconds"),
    [("90", 5400), ("1:30", 90), ("04:00:00", 14400), ("1-0", 86400), ("1-12:30", 131400), ("infinite", None)],
)
def test_time_limits_as_slurm_writes_them(limit: str, seconds: int | None) -> None:
    assert parse_time_limit(limit) == seconds
