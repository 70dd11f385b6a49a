"""What a resumed run may claim: the checkpoint is its own, and all that its last bits depend on is as before."""

import random
import shutil
import signal
from pathlib import Path

import pytest
import torch

from mlscale.cli import main
from mlscale.runs import recover
from mlscale.runs.checkpoint_files.checkpoint_digest import read_checkpoint_metadata
from mlscale.runs.folder import RunFolder
from mlscale.train.checkpoint import arithmetic
from mlscale.train.checkpoint.lightning_io import VerifiedCheckpointIO
from tests.conftest import runs_in
from tests.resume.commands import end, ended
from tests.unit.runs.test_recover import SEED, damaged

WORDS = (
    "+recipe=resnet", "model=mlp", "snapshot=false", "trainer.max_epochs=2", "++trainer.limit_train_batches=3",
    "++trainer.limit_val_batches=1",
)  # fmt: skip


def killed(folder: Path, *words: str) -> RunFolder:
    """A run that was killed in its second epoch."""
    code, printed = ended(folder, *WORDS, *words, end("step", folder, step=4))
    assert code == -signal.SIGKILL, printed
    return RunFolder.open(runs_in(folder)[-1])


def result(capsys: pytest.CaptureFixture[str]) -> str:
    """What was said on both streams."""
    printed = capsys.readouterr()
    return printed.out + printed.err


def test_another_number_of_threads_is_reported(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    killed(folder)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert main(["runs", "resume", "last"]) == 0
    printed = result(capsys)
    assert "with the same samples, not bitwise identical (threads 1 before, 2 now)" in printed
    assert "machine   threads 1 before, 2 now: not the same bits" in printed


def test_a_resume_keeps_the_threads_of_its_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = killed(folder)
    monkeypatch.delenv("OMP_NUM_THREADS")  # of several cores, a new run would take more
    assert main(["runs", "resume", "last"]) == 0
    assert "resumed from step 3 bitwise identical" in result(capsys)
    assert run.derived["threads"] == 1


def test_nothing_else_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = killed(folder)
    assert main(["runs", "resume", "last"]) == 0
    assert "resumed from step 3 bitwise identical" in result(capsys)
    record = read_checkpoint_metadata(run.path / "checkpoints/last.ckpt").record
    assert record is not None
    assert (record.run, record.config_hash) == (run.id, run.run["config_hash"])


def test_a_checkpoint_that_records_none_of_it_is_read_and_not_called_identical(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = killed(folder)
    for path in run.checkpoints:  # as an earlier mlscale wrote it
        state = torch.load(path, weights_only=True)
        for rank in state["mlscale_resume"]["ranks"]:
            del rank["arithmetic"]
        VerifiedCheckpointIO().save_checkpoint(state, path)
    assert main(["runs", "resume", "last"]) == 0
    assert f"not bitwise identical ({arithmetic.NOT_RECORDED})" in result(capsys)


def test_the_fix_of_a_typo_is_one_that_a_resume_takes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    killed(folder)
    for typo, meant in (("optimzer.lr=0.3", "mlscale like=last optimizer.lr=0.3"), ("nmae=x", "name=x")):
        assert main(["runs", "resume", "last", typo]) == 2
        assert f"fix:   {meant}\n" in capsys.readouterr().err


def test_a_checkpoint_of_another_run_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = killed(folder)
    shutil.rmtree(folder / "notes")
    mine = killed(folder, "optimizer.lr=0.02")
    stolen = mine.path / "checkpoints/last.ckpt"
    for path in mine.checkpoints:
        path.unlink()
    shutil.copy(theirs.path / "checkpoints/last.ckpt", stolen)
    assert main(["runs", "resume", mine.id]) == 2
    printed = result(capsys)
    assert f"error: the checkpoint last.ckpt is not one of the run {mine.path.name}" in printed
    assert f"it is of the run {theirs.id}" in printed
    assert mine.status == "crashed"
    assert main([*WORDS, "optimizer.lr=0.02", f"init_from={stolen}"]) == 0  # the fix that it names
    stolen.rename(folder / "away.ckpt")
    assert main(["runs", "resume", mine.id]) == 0


@pytest.mark.parametrize("name", ["threads", "torch", "oneDNN", "CPU"])
def test_each_fact_is_compared(name: str) -> None:
    now = arithmetic.collect_arithmetic_facts(torch.device("cpu"))
    assert arithmetic.describe_changed_facts(now, now) == []
    assert arithmetic.describe_changed_facts({**now, name: "x"}, now) == [f"{name} x before, {now[name]} now"]
    assert arithmetic.describe_changed_facts({k: v for k, v in now.items() if k != name}, now)
    assert arithmetic.describe_changed_facts(None, now) == [arithmetic.NOT_RECORDED]


def test_oneDNN_that_is_off_or_limited_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    before = arithmetic.collect_arithmetic_facts(torch.device("cpu"))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert len(arithmetic.describe_changed_facts(before, arithmetic.collect_arithmetic_facts(torch.device("cpu")))) == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_damaged_folder_is_resumed_and_evaluated_or_refused_in_words(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each file of a killed run in turn, a fresh seed each time: FUZZ_SEED repeats one."""
    run = killed(folder)
    files = sorted(path.relative_to(run.path) for path in run.path.rglob("*") if path.is_file())
    shutil.copytree(run.path, folder / "copy")
    for name in files:
        draw = random.Random(f"{SEED} {name}")
        shutil.rmtree(run.path)
        shutil.copytree(folder / "copy", run.path)
        content = damaged((run.path / name).read_bytes(), draw)
        (run.path / name).write_bytes(content)
        checkpoints = {path.name: path.read_bytes() for path in run.checkpoints}
        for words in (["evaluate", "last", "checkpoint=last"], ["runs", "resume", "last"]):
            recover.warn_once.cache_clear()
            code, printed = main(words), result(capsys)
            assert code in (0, 2, 5), (SEED, name, words, content[:80], printed)
            assert "Traceback" not in printed
            assert code == 0 or printed.count("error: ") >= 1
            if code:  # what was refused has lost nothing
                assert {path.name: path.read_bytes() for path in run.checkpoints} == checkpoints
