"""What jobs on every platform have: a name, a command, and settings whose problems are reported together."""

import pytest

from mlscale.errors import MLScaleError, Problems
from mlscale.launch.cloud import build_job_name, is_below, read_cloud_settings, resolve_runs_dir
from mlscale.launch.kubernetes import KubernetesSettings
from mlscale.launch.skypilot import SkyPilotSettings
from tests.unit.launch.cloud_jobs import read_launch


@pytest.mark.parametrize(
    ("name", "job"),
    [
        ("resnet", "resnet-1s86mzhyjth4"),
        ("My Run_2", "my-run-2-1s86mzhyjth4"),
        ("ü", "run-1s86mzhyjth4"),
        ("18-layers", "run-1s86mzhyjth4"),
        ("x" * 80, f"{'x' * 27}-1s86mzhyjth4"),
    ],
)
def test_names_of_jobs_are_those_that_kubernetes_accepts(name: str, job: str) -> None:
    assert build_job_name(name, "1s86mzhyjth4") == job
    assert len(job) <= 40


@pytest.mark.parametrize(
    ("path", "below"),
    [
        ("/mnt/a", True),
        ("/mnt/a/b", True),
        ("/mnt/ab", False),
        ("/mnt/a/../b", False),
        ("/mnt", False),
        ("/../mnt/a", True),
    ],
)
def test_paths_of_a_node_are_compared_by_their_parts(path: str, below: bool) -> None:
    assert is_below(path, "/mnt/a") is below


def test_a_relative_folder_is_on_the_volume() -> None:
    assert resolve_runs_dir("runs", "/mnt/a") == "/mnt/a/runs"
    assert resolve_runs_dir("/data", "/mnt/a") == "/data"


def test_all_problems_are_reported_together() -> None:
    launch = read_launch("kubernetes", nodes=0, env={"API_KEY": "x"}, queue="a\nb", variables=["1X"])
    with pytest.raises(Problems) as raised:
        read_cloud_settings(KubernetesSettings, launch, "auto", "runs", ["TOKEN"])
    fixes = [problem.fix for problem in raised.value.problems]
    assert fixes == [
        "launch.image=registry.example.com/train:1",
        "launch.claim=<PersistentVolumeClaim>",
        "trainer.devices=4",
        "launch.nodes=1",
        "launch.variables=[WANDB_API_KEY]",
        "launch.variables=[API_KEY]",
        "launch.variables=[1X,API_KEY,TOKEN]",
        "launch.queue=<one line>",
    ]


@pytest.mark.parametrize(
    ("launch", "fix"),
    [
        ({"mem": 64}, "launch.mem=64Gi"),
        ({"mem": "64GB"}, "launch.mem=64Gi"),
        ({"cpu": "many"}, "launch.cpu=8"),
        ({"shared_memory": "8"}, "launch.shared_memory=8Gi"),
        ({"env": {"A": None}}, "launch.env.A='<text>'; or leave it out"),
        ({"env": {"A": [1, 2]}}, "launch.env.A='<text>'; or leave it out"),
        ({"node_selector": {"a/b": {}}}, "launch.node_selector.a/b='<text>'; or leave it out"),
    ],
)
def test_values_that_a_pod_would_not_take_are_refused(launch: dict[str, object], fix: str) -> None:
    values = read_launch("kubernetes", image="a", claim="b", **launch)
    with pytest.raises(MLScaleError) as raised:
        read_cloud_settings(KubernetesSettings, values, 1, "runs", [])
    assert raised.value.fix == fix


@pytest.mark.parametrize("amount", ["1Gi", "1.5Ti", "500M", 1 << 30, "1e9"])
def test_amounts_as_kubernetes_writes_them(amount: object) -> None:
    launch = read_launch("kubernetes", image="a", claim="b", mem=amount, cpu="500m")
    assert read_cloud_settings(KubernetesSettings, launch, 1, "runs", []).mem == amount


def test_runs_beside_the_bucket_are_refused() -> None:
    with pytest.raises(MLScaleError, match="/data/runs is not on the volume") as raised:
        read_cloud_settings(
            SkyPilotSettings, read_launch("skypilot", bucket="s3://a", image="docker:a"), 1, "/data/runs", []
        )
    assert raised.value.fix == "runs_dir=runs"
