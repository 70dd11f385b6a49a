"""Submissions, with stand-ins for SLURM's programs: what is frozen, recorded, refused and listed."""

import json
import os
from pathlib import Path

import pytest

from mlscale import api, cli
from mlscale.errors import MLScaleError
from mlscale.launch.slurm.slurm_commands import read_cluster_name
from mlscale.runs.job_record import read_job_record
from tests.conftest import runs_in

WORDS = ["+recipe=resnet", "model=mlp", "launch=slurm", "trainer.accelerator=cpu"]


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with stand-ins that note their arguments; job 7 waits."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.delenv("MLSCALE_JOB_RUN", raising=False)
    read_cluster_name.cache_clear()
    for name, text in {
        "sbatch": "echo 7",
        "scontrol": "case $1 in show) [ $2 = config ] && echo 'ClusterName = mini' || exit 1;; esac",
        "squeue": "echo '7|PENDING|Priority'; echo '7_0|PENDING|Priority'; echo '7_1|RUNNING|None'",
        "scancel": "true",
    }.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\necho {name} "$@" >>{tmp_path}/bin/calls\n{text}\n')
        path.chmod(0o755)
    return tmp_path


def read_calls(site: Path) -> list[str]:
    return (site / "bin/calls").read_text().splitlines()


def test_a_submission_freezes_and_returns(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site / "shipped_net.py").write_text("x = 1\n")
    result = api.run("train", [*WORDS, "launch.nodes=2", "trainer.devices=2"])
    (run,) = runs_in(site)
    assert (result.artifacts, result.details) == ({"run": str(run)}, {"job": "7"})
    assert result.sentence.startswith("submitted job 7 to mini, 2 nodes × 2 processes; mlscale runs logs ")
    assert [call for call in read_calls(site) if not call.startswith("scontrol show")] == [
        f"sbatch --parsable --export=ALL --hold {run}/job.sh",
        "scontrol release 7",
    ]
    record = read_job_record(run)
    assert record is not None
    assert (record.id, record.cluster, record.log) == ("7", "mini", f"{run}/logs/job.log")
    assert (run / "code/shipped_net.py").read_text() == "x = 1\n"
    assert json.loads((run / "run.json").read_text())["attempts"][0]["queued"] is True

    assert cli.main(["runs", "ls"]) == 0
    assert " queued " in capsys.readouterr().out
    for words in (["runs", "resume", "last"], ["runs", "rm", "last", "yes=true"], [*WORDS, "resume=auto"]):
        words = [*words, "launch=local"] if words[-1] == "resume=auto" else words
        assert cli.main(words) == 2
        assert "job 7 of the run" in capsys.readouterr().err
    assert cli.main(["runs", "cancel", "last"]) == 0
    assert read_calls(site)[-1] == "scancel 7"
    assert cli.main(["runs", "ls", "output=json"]) == 0


def test_a_dry_run_prints_the_script_alone(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*WORDS, "launch.dry_run=true"]) == 0
    assert capsys.readouterr().out.startswith("#!/bin/bash\n#SBATCH ")
    assert [path.name for path in site.iterdir()] == ["bin"]


def test_a_refusal_of_slurm_leaves_nothing(site: Path) -> None:
    (site / "bin/sbatch").write_text("#!/bin/sh\necho 'sbatch: error: Invalid qos specification' >&2\nexit 1\n")
    with pytest.raises(MLScaleError) as caught:
        api.run("train", WORDS)
    assert (caught.value.exit, caught.value.fix) == (5, "launch.qos=<one of sacctmgr show qos>")
    assert [path.name for path in site.iterdir()] == ["bin"]


def test_code_with_a_secret_is_refused(site: Path) -> None:
    (site / "shipped_net.py").write_text(f'TOKEN = "hf_{"a1B2" * 9}"\n')
    with pytest.raises(MLScaleError, match="the code holds what looks like a secret"):
        api.run("train", WORDS)
    assert not (site / "runs").exists()


def test_a_variable_that_is_missing_is_named(site: Path) -> None:
    with pytest.raises(MLScaleError, match="NOT_SET, which is not set") as caught:
        api.run("train", [*WORDS, "notes=${oc.env:NOT_SET}"])
    assert caught.value.fix == "export NOT_SET=<value>"


def test_a_sweep_is_one_array(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["-m", *WORDS, "optimizer.lr=0.1,0.01", "launch.array=1", "snapshot=false"]) == 0
    assert "submitted array 7, 2 jobs" in capsys.readouterr().err
    (sweep,) = site.glob("runs/*/*")
    runs = (sweep / "jobs-1.txt").read_text().splitlines()
    assert [read_job_record(Path(run)).id for run in runs] == ["7_0", "7_1"]  # type: ignore[union-attr]
    assert sum(call.startswith("sbatch") for call in read_calls(site)) == 1
    assert "#SBATCH --array=0-1%1\n" in (sweep / "jobs-1.sh").read_text()

    (site / "bin/squeue").write_text("#!/bin/sh\necho '7_1|RUNNING|None'\n")
    assert cli.main(["runs", "sweep", "last"]) == 4
    printed = capsys.readouterr()
    assert "optimizer.lr=0.01  running" in printed.out
    assert "vanished" in printed.err
    assert cli.main(["runs", "sweep", "last", "resubmit=true"]) == 4
    assert (sweep / "jobs-2.txt").read_text().splitlines() == runs[:1]


def test_other_commands_are_not_submitted() -> None:
    with pytest.raises(MLScaleError, match="mlscale profile is not submitted") as caught:
        api.compose(WORDS, command="profile")
    assert "sbatch --wrap" in caught.value.fix
