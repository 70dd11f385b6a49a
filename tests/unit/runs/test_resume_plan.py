"""Which run may go on, and when it may not."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mlscale.atomic_files import read_json
from mlscale.errors import MLScaleError, Problems
from mlscale.runs.checkpoint_files.checkpoint_commit import AtomicCheckpointWriter
from mlscale.runs.checkpoint_files.checkpoint_record import CheckpointRecord
from mlscale.runs.folder import RunFolder
from mlscale.runs.resume_plan import (
    find_run_of_job,
    find_run_to_resume,
    format_unfinished_line,
    open_attempt,
    restate_fixes,
)
from tests.unit.runs.conftest import CONFIG

Start = Callable[..., RunFolder]


def rewrite(run: RunFolder, text: str) -> RunFolder:
    (run.path / "config.yaml").write_text(text)
    return RunFolder.open(run.path)


@pytest.mark.parametrize("edit", [("lr: 0.1", "lr: 0.3"), ("seed: 1", "seed: 3"), ("optimizer:", "optimizes:")])
def test_a_run_whose_config_was_edited_does_not_go_on(edit: tuple[str, str], start: Start, tmp_path: Path) -> None:
    text = CONFIG.replace(*edit)
    run = rewrite(start(), text)
    with pytest.raises(MLScaleError, match=r"resnet-\w+ is not the one that it began with") as caught:
        find_run_to_resume(run.id, text, None, tmp_path / "runs")
    assert f"mlscale like={run.id} init_from={run.id}" in caught.value.fix
    assert str(caught.value.why).count(edit[0].partition(":")[0]) == 1, "a key is named once"


def test_edits_of_what_computes_nothing_and_configs_that_were_typed_again_go_on(start: Start, tmp_path: Path) -> None:
    elsewhere = CONFIG.replace("devices: 1", "devices: 2")
    run = rewrite(start(), elsewhere)
    assert find_run_to_resume(run.id, elsewhere, None, tmp_path / "runs") is not None
    run = rewrite(run, CONFIG.replace("lr: 0.1", "lr: 0.3"))
    assert (
        find_run_to_resume(run.id, CONFIG, None, tmp_path / "runs") is not None
    )  # the command brings what it began with


def test_a_run_that_an_earlier_mlscale_hashed_otherwise_goes_on(start: Start, tmp_path: Path) -> None:
    run = start()
    document = read_json(run.path / "run.json") | {"config_hash": "0" * 64}
    run.write_json("run.json", document)
    assert find_run_to_resume(run.id, CONFIG, None, tmp_path / "runs") is not None


def save(folder: RunFolder, name: str, step: int, **of: str | bool | None) -> Path:
    """A checkpoint of that run, but for what is said of it."""
    path = folder.path / "checkpoints" / name
    writer = AtomicCheckpointWriter(path)
    torch.save({"step": step}, writer)  # type: ignore[arg-type]  # a file is what writes
    identity = {"run": folder.id, "config_hash": folder.run["config_hash"], **of}
    writer.commit_checkpoint(CheckpointRecord("last", step, 0, **identity))
    return path


def crash(run: RunFolder) -> RunFolder:
    """Leave the run as one whose process has ended without a word."""
    run.update_document(attempts=[{**run.run["attempts"][0], "pid": 2**22 + 1}])
    return run


def test_auto_is_the_unfinished_run_of_the_same_config_and_code(start: Start, tmp_path: Path) -> None:
    root, other = tmp_path / "runs", CONFIG.replace("lr: 0.1", "lr: 0.3")
    assert find_run_to_resume("auto", CONFIG, None, root) is None
    run = crash(start())
    found = find_run_to_resume("auto", CONFIG, None, root)
    assert found is not None
    assert found.id == run.id
    assert find_run_to_resume("auto", other, None, root) is None
    assert find_run_to_resume("auto", CONFIG, "other code", root) is None


def test_a_named_run_is_not_resumed_with_other_settings(start: Start, tmp_path: Path) -> None:
    run = start()
    six = CONFIG.replace("seed: 1", "seed: 2").replace("lr: 0.1", "lr: 0.3\n  a: 1\n  b: 1\n  c: 1\n  d: 1\n  e: 1")
    for text, keys in ((CONFIG.replace("lr: 0.1", "lr: 0.3"), 1), (six, 5)):
        with pytest.raises(
            MLScaleError, match=f"with other settings this would be another run than {run.path.name}"
        ) as e:
            find_run_to_resume(run.id, text, None, tmp_path / "runs")
        assert len(e.value.where.split(", ")) == keys
        resumed, new = e.value.fix.split("\n")
        assert resumed == f"mlscale runs resume {run.id}"
        assert new.startswith(f"mlscale like={run.id} optimizer.")
        assert "optimizer.lr=0.3" in new
    found = find_run_to_resume(run.id, CONFIG.replace("devices: 1", "devices: 4"), None, tmp_path / "runs")
    assert found is not None
    assert found.id == run.id


def test_a_fix_that_a_resume_would_refuse_becomes_a_new_run() -> None:
    one = MLScaleError("too much", fix="data.batch_size=16, or less\ntrainer.devices=2\nmlscale env")
    restate_fixes(Problems([one, MLScaleError("no fix")]), "1skg38w58gxt", "here")
    assert (
        one.fix == "mlscale like=1skg38w58gxt runs_dir=here data.batch_size=16, or less\ntrainer.devices=2\nmlscale env"
    )


def test_an_attempt_goes_on_from_the_latest_checkpoint(start: Start) -> None:
    run = start(derived={"world_size": 1})
    save(run, "early.ckpt", 1000)
    latest = save(run, "last.ckpt", 2000)
    leftover = run.path / "checkpoints" / ".aside-last.ckpt-0123"
    leftover.write_text("half")
    run.seal_run("interrupted")
    plan = open_attempt(run, 1, None)
    assert (plan.folder, plan.checkpoint, plan.step, plan.inexact) == (run, latest, 2000, ())
    assert plan.lines == (f"resume    {run.path.name}, attempt 2: from last.ckpt, step 2,000",)
    assert not leftover.exists()
    assert run.manifest is None
    assert len(run.run["attempts"]) == 2
    assert open_attempt(run, 1, None).lines[-1].partition(":")[0].endswith("attempt 3")


def test_a_run_that_saved_nothing_starts_over(start: Start) -> None:
    run = start()
    save(run, "weights.ckpt", 5, resumable=False, run="another")
    plan = open_attempt(run, 3, None)
    assert (plan.checkpoint, plan.step) == (None, 0)
    assert plan.lines == (f"resume    {run.path.name}, attempt 2: no checkpoint is there, so it starts over",)


@pytest.mark.parametrize(
    ("before", "now", "line"), [(2, 2, ""), (1, 2, "1 process before, 2 now"), (2, 1, "2 processes before, 1 now")]
)
def test_another_number_of_processes_is_reported(start: Start, before: int, now: int, line: str) -> None:
    lines = open_attempt(start(derived={"world_size": before}), now, None).lines
    assert len(lines) == 1 + bool(line)
    assert lines[-1].startswith(f"layout    {line}" if line else "resume")


def test_batches_that_another_number_of_processes_changes_are_reported(start: Start) -> None:
    run = start(derived={"world_size": 2})
    plan = open_attempt(run, 1, None, inelastic="my.Data", batch_size=16)
    assert plan.other_batches.startswith("other batches, as my.Data")
    assert "twice" not in plan.other_batches  # it starts over
    save(run, "last.ckpt", 10)
    plan = open_attempt(run, 1, None, inelastic="my.Data", batch_size=16)
    assert "up to 160 samples may come twice" in plan.lines[-1]
    assert "trainer.devices=2, as before, keeps them" in plan.lines[-1]
    assert "same global batches" not in plan.lines[-1]
    assert "interrupted samples may" in open_attempt(run, 1, None, inelastic="my.Data").other_batches
    assert open_attempt(run, 2, None, inelastic="my.Data", batch_size=16).other_batches == ""
    assert open_attempt(run, 1, None, batch_size=16).other_batches == ""


def test_another_option_of_a_group_is_named_as_it_was_typed(start: Start, tmp_path: Path) -> None:
    groups = "strategy:\n  _target_: {}\n  {}: true\n  plan: [1]\n"
    run = start(config_yaml=CONFIG + groups.format("mlscale.FSDP", "cpu_offload"))
    text = CONFIG + groups.format("mlscale.DDP", "static_graph")
    with pytest.raises(MLScaleError) as caught:
        find_run_to_resume(run.id, text, None, tmp_path / "runs", [f"resume={run.id}", "strategy=ddp"])
    assert caught.value.where == "strategy"
    assert caught.value.fix.splitlines()[1] == f"mlscale like={run.id} strategy=ddp"


def test_a_lost_layout_is_derived_again(start: Start, capsys: pytest.CaptureFixture[str]) -> None:
    run = start(derived={"world_size": 2})
    (run.path / "derived.yaml").write_text("world_size: [")
    assert len(open_attempt(run, 1, None).lines) == 1
    assert "derived.yaml is corrupt" in capsys.readouterr().err


def test_changed_code_is_reported_and_makes_it_inexact(start: Start) -> None:
    plan = open_attempt(start(), 1, "today's digest")
    assert plan.lines[-1] == "code      has changed since the run began: it is resumed with today's"
    assert plan.inexact == ("the code has changed",)


@pytest.mark.parametrize(
    ("status", "what"),
    [("done", "is done"), ("diverged", "has diverged")],
)
def test_a_run_that_ended_has_no_other_attempt(start: Start, status: str, what: str) -> None:
    run = start()
    run.seal_run(status)
    with pytest.raises(MLScaleError, match=f"{run.path.name} {what}") as caught:
        open_attempt(run, 1, None)
    assert caught.value.fix == f"mlscale runs show {run.id}"
    assert bool(caught.value.why) == (status == "diverged")
    assert len(run.run["attempts"]) == 1
    assert run.manifest is not None


@pytest.mark.parametrize(
    ("of", "why"),
    [({"run": "another"}, "it is of the run another"), ({"config_hash": "0"}, "it was saved with other settings")],
)
def test_checkpoints_of_another_run_alone_are_refused(start: Start, of: dict[str, str], why: str) -> None:
    run = start()
    path = save(run, "last.ckpt", 5, **of)
    with pytest.raises(MLScaleError, match=r"the checkpoint last\.ckpt is not one of the run") as caught:
        open_attempt(run, 1, None)
    assert (caught.value.where, caught.value.why.split(",")[0]) == (str(path), why)
    assert len(run.run["attempts"]) == 1
    own = save(run, "own.ckpt", 3)
    plan = open_attempt(run, 1, None)
    assert (plan.checkpoint, plan.step) == (own, 3)
    assert plan.lines[0] == f"{path} is left out: {why}"


@pytest.mark.parametrize(
    ("init", "rebuilt", "lost"), [("a/last.ckpt", True, True), ("", True, False), ("a", False, False)]
)
def test_lost_initial_weights_are_not_started_over_from(start: Start, init: str, rebuilt: bool, lost: bool) -> None:
    run = start(config_yaml=f"{CONFIG}init_from: {init or 'null'}\n")
    run.update_document(rebuilt=rebuilt)
    if lost:
        with pytest.raises(MLScaleError, match="which weights the run started from is lost") as caught:
            open_attempt(run, 1, None)
        assert caught.value.fix == f"mlscale like={run.path} init_from={init}, a new run"
    else:
        assert open_attempt(run, 1, None).checkpoint is None
    save(run, "last.ckpt", 5)
    assert open_attempt(run, 1, None).step == 5


def test_an_unfinished_run_is_named_with_its_last_step(start: Start) -> None:
    run = start()
    end = f"; resume it with mlscale runs resume {run.id}"
    assert format_unfinished_line(run) == f"unfinished {run.path.name} has the same config{end}"
    save(run, "last.ckpt", 2000)
    save(run, "best.ckpt", 1000)
    (run.path / "checkpoints" / "foreign.ckpt").write_bytes(b"")
    assert format_unfinished_line(run) == f"unfinished {run.path.name} has the same config, saved at step 2,000{end}"


def test_a_job_is_known_by_an_agent_of_the_last_attempt(start: Start, tmp_path: Path) -> None:
    run, root = start(), tmp_path / "runs"
    assert find_run_of_job(["a/1/5/none"], CONFIG, None, root) is None  # started by no agent
    run.note_agents(["a/1/5/none", "b/2/6/none"])
    assert read_json(run.path / "run.json")["attempts"][-1]["agents"] == ["a/1/5/none", "b/2/6/none"]
    resumed = find_run_of_job(["b/2/6/none"], CONFIG, None, root)  # one of the machines is gone
    assert resumed is not None
    assert resumed.id == run.id
    assert find_run_of_job(["a/9/9/none"], CONFIG, None, root) is None  # another job
    assert find_run_of_job(["b/2/6/none"], CONFIG.replace("lr: 0.1", "lr: 0.3"), None, root) is None
    run.seal_run("done")
    assert find_run_of_job(["b/2/6/none"], CONFIG, None, root) is not None  # its result is what the ranks end with
