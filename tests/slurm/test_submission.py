"""Submissions to real SLURM daemons: values, secrets, code, cancelling, allocations and sweeps."""

import csv
import json
from pathlib import Path

import pytest

from mlscale.runs.ownership import explain_unproven
from tests.contract.fake_wandb import FakeWandb
from tests.slurm.conftest import Site, read_json, read_record, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NASTY = "a \"b\" 'c' $(touch x) `touch x` # ; \\d"


def test_values_reach_slurm_as_they_were_typed(site: Site) -> None:
    typed = "launch.directives={comment: " + json.dumps(NASTY) + ", begin: now+600}"
    run = site.submit(typed, "launch.nodes=2")
    shown = site.cluster.call("scontrol", "show", "job", read_record(run).id)
    # Hydra keeps both backslashes of a pair.
    assert "Comment=" + NASTY.replace("\\", "\\\\") in shown
    assert "NumNodes=2" in shown
    assert not (site.folder / "x").exists()
    assert "queued" in site.call("runs", "ls")
    assert "is queued" in site.call("runs", "resume", "last", code=2)
    assert "is queued" in site.call("runs", "rm", "last", "yes=true", code=2)
    assert "cancelled job" in site.call("runs", "cancel", "last")
    assert "cancelled" in site.call("runs", "ls")


def test_a_dry_run_leaves_nothing(site: Site) -> None:
    text = site.call(*site.recipe, "launch=slurm", "launch.dry_run=true", variables={"SLURM_CONF": "/nowhere"})
    assert text.startswith("#!/bin/bash\n#SBATCH ")
    assert not list(site.folder.iterdir())


def test_what_slurm_refuses_leaves_nothing(site: Site) -> None:
    text = site.call(*site.recipe, "launch=slurm", "launch.partition=nowhere", code=5)
    assert "sbatch failed" in text
    assert "launch.partition=<one of sinfo -s>" in text
    assert not list(site.folder.iterdir())


def test_secrets_travel_in_the_environment_alone(site: Site) -> None:
    secret = "s3cr3t-Pa55phrase-of-a-test"
    run = site.submit(
        "callbacks=[default,notify]",
        "callbacks.notify.command=['true']",
        f"callbacks.notify.mail.password={secret}",
        "callbacks.notify.mail.user=${oc.env:MAIL_USER}",
        variables={"MAIL_USER": "ann"},
    )
    record = site.wait_for_end(run)
    assert sorted(record.variables) == ["MAIL_USER", "MLSCALE_SECRET_CALLBACKS_NOTIFY_MAIL_PASSWORD"]
    assert record.starts[0].code == 0, (run / "logs/job.log").read_text()
    for path in run.rglob("*"):
        assert not (path.is_file() and secret.encode() in path.read_bytes()), path
    assert run.stat().st_mode & 0o077 == 0


def test_the_job_runs_the_code_that_was_submitted(site: Site) -> None:
    module = site.folder / "mine.py"
    module.write_text("from tests.slurm.pace import Pace\n\nclass Own(Pace):\n    pass\n")
    run = site.submit(
        "snapshot=true",
        f"+callbacks.own={{_target_:mine.Own,folder:{site.folder}}}",
        "launch.directives={begin: now+3}",
    )
    module.write_text("raise SystemExit('changed since')\n")
    record = site.wait_for_end(run)
    assert record.starts[0].code == 0, (run / "logs/job.log").read_text()
    assert "code      has changed" not in (run / "logs/job.log").read_text()


def test_inside_an_allocation_it_works_as_outside(site: Site) -> None:
    words = [*site.recipe, "launch=slurm", "launch.partition=main"]
    site.call(*words, prefix=["salloc", "-Q", "-N2", "-n4", "--mem-per-cpu=100"])
    run = site.find_run()
    shown = site.cluster.call("scontrol", "show", "job", read_record(run).id)
    assert "NumNodes=1" in shown
    record = site.wait_for_end(run)
    assert record.starts[0].code == 0, (run / "logs/job.log").read_text()


def test_a_run_that_is_cancelled_saves_and_is_submitted_again(site: Site) -> None:
    site.be_slow()
    run = site.submit()
    site.wait_for_steps()
    site.call("runs", "cancel", "last")
    wait_until(lambda: read_record(run).starts[-1].ended is not None, "the end")
    assert read_json(run / "manifest.json")["status"] == "interrupted"
    site.be_quick()
    assert "submitted job" in site.call("runs", "resume", "last", "launch.partition=high")
    log = site.call("runs", "logs", "last", "follow=true")
    assert "attempt 2: from last.ckpt" in log
    site.wait_for_end(run)
    assert read_json(run / "manifest.json")["status"] == "done"
    assert len(read_record(run).earlier) == 1


def test_a_sweep_is_one_array(site: Site) -> None:
    words = [
        *site.recipe,
        "-m",
        "launch=slurm",
        "launch.array=2",
        "data.batch_size=64,9999",
        "trainer.max_epochs=1",
    ]
    assert "submitted array" in site.call(*words)
    runs = sorted(path.parent for path in site.folder.glob("runs/*/*/*/run.json"))
    jobs = {read_record(run).id for run in runs}
    assert len(runs) == 2
    assert len({job.split("_")[0] for job in jobs}) == 1
    table = site.call("runs", "sweep", "last")
    assert "queued" in table or "running" in table
    for run in runs:
        site.wait_for_end(run)
    table = site.call("runs", "sweep", "last", code=4)
    assert " done " in table
    assert "1437 training samples make no batch of 9999" in table
    assert "submitted array" in site.call("runs", "sweep", "last", "resubmit=true", code=0)
    lost = [run for run in runs if read_record(run).earlier]
    assert len(lost) == 1
    site.wait_for_end(lost[0])
    assert not Path(site.folder / "multirun").exists()


def test_a_sweep_runs_own_code_where_nodes_lack_the_home_folder(site: Site) -> None:
    home = f"launch.setup=['export HOME={site.folder}/node XDG_STATE_HOME={site.folder}/node']"
    site.call(*site.recipe, "-m", "launch=slurm", home, "optimizer.lr=0.1,0.01", "trainer.max_epochs=1")
    for run in sorted(path.parent for path in site.folder.glob("runs/*/*/*/run.json")):
        record = site.wait_for_end(run)
        assert record.starts[-1].code == 0, Path(record.log).read_text()
        assert not explain_unproven(run)  # what the job has added to the run, as the user's own


def test_a_requeued_run_is_one_run_at_wandb(site: Site) -> None:
    """W&B's real client in each start of the job, and a server that speaks its protocol."""
    site.be_slow()
    with FakeWandb() as server:
        run = site.submit("logger=[csv,wandb]", variables=server.env())
        site.wait_for_steps()
        # To all processes of the job, as preemption does: W&B's own ends at once, and the run saves all the same.
        site.cluster.call("scancel", "--signal=TERM", read_record(run).id)
        wait_until(lambda: len(read_record(run).starts) == 2, "another start")
        site.wait_for_steps()
        site.be_quick()
        record = site.wait_for_end(run)
    assert record.starts[0].cause.startswith("stopped by SIGTERM"), record
    assert [len(record.starts), record.starts[-1].code] == [2, 0], (run / "logs/job.log").read_text()
    ((name, sent),) = server.runs.items()
    assert name == run.name
    assert sent["state"] == "finished"
    steps = [row["trainer/global_step"] for row in sent["history"] if "train/loss" in row]
    with (run / "logs/metrics.csv").open() as file:
        kept = [int(row["step"]) for row in csv.DictReader(file) if row["train/loss"]]
    assert kept
    assert steps == kept  # each of them once, none missing after the requeue


def test_an_array_without_a_sweep_is_reported(site: Site) -> None:
    text = site.call(*site.recipe, "launch=slurm", "launch.array=4", "launch.directives={begin: now+600}")
    assert "launch.array has no effect without -m" in text
    assert "submitted job" in text
