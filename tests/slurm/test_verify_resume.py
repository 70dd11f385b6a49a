"""`mlscale verify-resume launch=slurm` on real SLURM daemons: jobs whose ranks are killed, and that are requeued."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.slurm.conftest import ROOT, Site, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

WORDS = ["+recipe=resnet", "model=mlp", "trainer.accelerator=cpu", "trainer.max_epochs=2", "snapshot=false"]
WORDS += ["trainer.limit_train_batches=4", "callbacks.checkpoint.every_n_steps=1", "launch=slurm"]


def test_ranks_on_two_nodes_are_killed_and_requeued(site: Site) -> None:
    # Sharded checkpoints: each node has written its part of what the requeued job resumes from.
    more = ["launch.nodes=2", "strategy=fsdp", "strategy.sharded_checkpoint=true", "kills=1", "keep=true"]
    text = site.call("verify-resume", *WORDS, *more, "output=json")
    result, _ = json.JSONDecoder().raw_decode(text)
    assert result["metrics"]["identical"] == 1, text
    assert text.count("resumed from step ") == 1, text
    kept = Path(result["artifacts"]["scratch"])
    assert kept.parent == site.folder / "runs", "where all nodes see it"
    for run in kept.glob("*/killed-*"):
        starts = json.loads((run / "job.json").read_text())["starts"]
        assert [start["code"] for start in starts] == [137, 0], starts
        assert {start["nodes"].count("-") for start in starts} == {1}
    assert "no runs" in site.call("runs", "ls").lower(), "its runs are not the user's"


def test_a_wrong_setting_ends_the_job_and_the_command_with_its_code(site: Site) -> None:
    text = site.call("verify-resume", *WORDS, "launch.nodes=2", "data.batch_size=7", code=2)
    assert "the run fails without any kill: data.batch_size=7 does not divide by 2" in text
    assert not (site.folder / "runs").exists()


def test_stopping_it_cancels_its_job(site: Site) -> None:
    site.be_slow()
    pace = f"+callbacks.pace={{_target_:tests.slurm.pace.Pace,folder:{site.folder}}}"
    process = subprocess.Popen(
        [sys.executable, "-m", "mlscale", "verify-resume", *WORDS, pace],
        cwd=site.folder,
        env={**site.cluster.environment, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        site.wait_for_steps()
        process.send_signal(signal.SIGTERM)
        _, printed = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 143, printed
    wait_until(lambda: not site.cluster.call("squeue", "-h"), "empty queue")
    assert not (site.folder / "runs").exists()
