"""Each platform starts a job by its own processes and variables."""

from mlscale.commands.drill.played_job import build_start


def test_each_platform_starts_its_own_processes() -> None:
    slurm = build_start("slurm", ["train"], 2, 1, {"TMPDIR": "/x"})
    assert [variables["SLURM_PROCID"] for variables in slurm.variables] == ["0", "1"]
    assert {variables["SLURM_RESTART_COUNT"] for variables in slurm.variables} == {"1"}
    assert all(variables["TMPDIR"] == "/x" for variables in slurm.variables)
    pods = build_start("kubernetes", ["train"], 2, 0, {})
    assert pods.variables[0]["PET_NPROC_PER_NODE"] == "2"
    assert "mlscale.launch.external.elastic_agent" in pods.commands[0]
    sky = build_start("skypilot", ["train", "like=a b"], 2, 0, {})
    assert sky.commands[0][:2] == ["bash", "-c"]
    assert "--node-rank=$SKYPILOT_NODE_RANK" in sky.commands[0][2]
    assert "'like=a b'" in sky.commands[0][2]
    assert "torch.distributed.run" in build_start("torchrun", ["train"], 2, 0, {}).commands[0]


def test_torchrun_does_not_end_ranks_ahead_of_the_grace_period() -> None:
    """Its own limit, 30 s, made a job of 140 s look as if it needed 40."""
    (command,) = build_start("torchrun", ["train"], 2, 0, {}).commands
    (limit,) = [word.partition("=")[2] for word in command if word.startswith("--shutdown-timeout=")]
    assert int(limit) >= 24 * 60 * 60
