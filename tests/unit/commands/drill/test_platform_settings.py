"""The rules of a platform follow from the settings of `launch`."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from mlscale.commands.drill.entry import read_platform_rules
from mlscale.errors import MLScaleError
from mlscale.verify_resume.platform_rules import PlatformRules

REPO = Path(__file__).parents[4]


def read_rules(platform: str, runs_dir: str = "runs", **launch: Any) -> PlatformRules:
    shipped = OmegaConf.to_container(OmegaConf.load(REPO / f"conf/launch/{platform}.yaml"))
    assert isinstance(shipped, dict)
    settings = {**{str(name): value for name, value in shipped.items()}, **launch}
    return read_platform_rules(settings, runs_dir, ["/local"])


def test_a_platform_that_ends_no_jobs_is_refused() -> None:
    with pytest.raises(MLScaleError, match="launch=local ends no jobs") as raised:
        read_rules("local")
    assert raised.value.fix == "launch=slurm"


@pytest.mark.parametrize(
    ("launch", "runs_dir", "survives", "fix"),
    [
        ({"claim": "runs"}, "runs", True, ""),
        ({"claim": "runs"}, "/mnt/mlscale/mine", True, ""),
        ({"claim": "runs"}, "/mnt/mlscale/../data", False, "runs_dir=runs"),
        ({"claim": "runs"}, "/mnt/mlscale-2", False, "runs_dir=runs"),
        ({}, "runs", False, "launch.claim="),
    ],
)
def test_runs_survive_on_the_volume(launch: dict[str, Any], runs_dir: str, survives: bool, fix: str) -> None:
    rules = read_rules("kubernetes", runs_dir, **launch)
    assert rules.survives is survives
    assert survives or fix in rules.lost_fix


def test_a_bucket_survives_and_a_spot_instance_is_lost_without_notice() -> None:
    rules = read_rules("skypilot", bucket="s3://runs", variables=["KEY"], env={"A": "1"})
    assert rules.survives
    assert rules.signal_number is None
    assert rules.passed == ("KEY", "A")
    assert not read_rules("skypilot").survives


@pytest.mark.parametrize("platform", ["torchrun"])
def test_a_folder_that_each_node_has_of_its_own_is_lost(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/scratch/tmp")
    assert not read_rules(platform, "/local/runs").survives
    assert not read_rules(platform, "/scratch/tmp/runs").survives
    assert read_rules(platform, "/shared/runs").survives
