"""The rules of a platform follow from the settings of `launch`."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from mlscale.commands.drill.platform_settings import read_platform_rules
from mlscale.commands.drill.platform_start import build_start
from mlscale.errors import MLScaleError

REPO = Path(__file__).parents[4]


def make_config(platform: str, runs_dir: str = "runs", **launch: Any) -> DictConfig:
    shipped = OmegaConf.load(REPO / f"conf/launch/{platform}.yaml")
    settings = OmegaConf.merge(shipped, launch)
    return OmegaConf.create({"runs_dir": runs_dir, "node_folders": ["/local"], "launch": settings})


def test_a_platform_that_ends_no_jobs_is_refused() -> None:
    with pytest.raises(MLScaleError, match="launch=local ends no jobs") as raised:
        read_platform_rules(make_config("local"))
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
    rules = read_platform_rules(make_config("kubernetes", runs_dir, **launch))
    assert rules.survives is survives
    assert survives or fix in rules.lost_fix


def test_a_bucket_survives_and_a_spot_instance_is_lost_without_notice() -> None:
    rules = read_platform_rules(make_config("skypilot", bucket="s3://runs", variables=["KEY"], env={"A": "1"}))
    assert rules.survives
    assert rules.signal_number is None
    assert rules.passed == ("KEY", "A")
    assert not read_platform_rules(make_config("skypilot")).survives


@pytest.mark.parametrize("platform", ["torchrun"])
def test_a_folder_that_each_node_has_of_its_own_is_lost(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/scratch/tmp")
    assert not read_platform_rules(make_config(platform, "/local/runs")).survives
    assert not read_platform_rules(make_config(platform, "/scratch/tmp/runs")).survives
    assert read_platform_rules(make_config(platform, "/shared/runs")).survives


def test_each_platform_starts_its_own_processes() -> None:
    slurm = build_start("slurm", ["train"], 2, 1, {"TMPDIR": "/x"})
    assert [variables["SLURM_PROCID"] for variables in slurm.variables] == ["0", "1"]
    assert {variables["SLURM_RESTART_COUNT"] for variables in slurm.variables} == {"1"}
    assert all(variables["TMPDIR"] == "/x" for variables in slurm.variables)
    pods = build_start("kubernetes", ["train"], 2, 0, {})
    assert pods.variables[0]["PET_NPROC_PER_NODE"] == "2"
    assert "mlscale.launch.elastic_agent" in pods.commands[0]
    sky = build_start("skypilot", ["train", "like=a b"], 2, 0, {})
    assert sky.commands[0][:2] == ["bash", "-c"]
    assert "--node-rank=$SKYPILOT_NODE_RANK" in sky.commands[0][2]
    assert "'like=a b'" in sky.commands[0][2]
    assert "torch.distributed.run" in build_start("torchrun", ["train"], 2, 0, {}).commands[0]
