"""A run is measured again from its folder, as it was composed, with overrides on top."""

import shutil
from pathlib import Path

import pytest
import torch

from mlscale import commands
from mlscale.assembly.trained_model.rebuild import apply_training_facts, find_checkpoint_file
from mlscale.errors import MLScaleError
from mlscale.report import Result
from mlscale.runs.checkpoint_files.checkpoint_commit import AtomicCheckpointWriter
from mlscale.runs.checkpoint_files.checkpoint_record import CheckpointRecord
from mlscale.runs.folder import RunFolder

TRAINED = ("+recipe=resnet", "debug=fast", "model.widths=[8]", "snapshot=false", "callbacks=checkpoint")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluate")


@pytest.fixture(scope="module")
def trained(folder: Path) -> Result:
    return commands.run_command("train", [*TRAINED, f"runs_dir={folder}/runs", f"data.root={folder}/digits"])


def evaluate(folder: Path, *overrides: str) -> Result:
    return commands.run_command("evaluate", ["last", f"runs_dir={folder}/runs", *overrides])


def test_the_checkpoint_gives_what_training_saw(folder: Path, trained: Result) -> None:
    result = evaluate(folder, "trainer.limit_val_batches=1")  # as debug=fast has it
    assert result.ok
    assert result.metrics["val/accuracy"] == pytest.approx(trained.metrics["val/accuracy"])
    assert Path(result.artifacts["run"]) == Path(trained.artifacts["run"])


def test_overrides_apply_on_top_of_the_run(folder: Path, trained: Result, capsys: pytest.CaptureFixture[str]) -> None:
    whole = evaluate(folder, "data.batch_size=100", "checkpoint=last")
    assert "evaluate  all samples: trainer.limit_val_batches=1 was for training" in capsys.readouterr().err
    assert whole.metrics["val/samples"] == 360
    assert whole.metrics["val/accuracy"] * 360 == pytest.approx(round(whole.metrics["val/accuracy"] * 360), abs=1e-3)
    assert whole.metrics["val/loss"] != trained.metrics["val/loss"]


@pytest.mark.parametrize(
    ("override", "what", "fix"),
    [
        ("+recipe=resnet", "a run brings its own recipe", "leave recipe=resnet out"),
        ("split=tst", "'split' must be val or test, not the text 'tst'", "split=test"),
        ("split=test", "this data has no test split", "split=val"),
        ("checkpoint=bst", "no checkpoint 'bst'", "checkpoint=best"),
        (
            "model.widths=[9]",
            "the checkpoint's weights do not fit the model",
            "leave model and model.* out: the model that was trained has its own",
        ),
    ],
)
def test_what_is_wrong_is_reported(folder: Path, trained: Result, override: str, what: str, fix: str) -> None:
    with pytest.raises(MLScaleError) as caught:
        evaluate(folder, override)
    assert what in str(caught.value)
    assert fix in str(caught.value)


@pytest.mark.parametrize("damage", ["torn", "altered"])
def test_a_damaged_checkpoint_is_refused(folder: Path, trained: Result, tmp_path: Path, damage: str) -> None:
    content = Path(trained.artifacts["checkpoint"]).read_bytes()
    copy = tmp_path / "copy.ckpt"
    copy.write_bytes(content)
    assert evaluate(folder, f"checkpoint={copy}").ok
    copy.write_bytes(content[:-1000] if damage == "torn" else content[:5000] + b"\xff" + content[5001:])
    with pytest.raises(MLScaleError, match="the checkpoint can't be used") as caught:
        evaluate(folder, f"checkpoint={copy}")
    assert caught.value.where == str(copy)


def test_a_checkpoint_by_its_name_and_the_best_by_any(tmp_path: Path) -> None:
    words = [*TRAINED, "trainer.max_epochs=2", "scheduler=none", f"runs_dir={tmp_path}/runs"]
    kept = 'callbacks.checkpoint.filename="{epoch}"', "callbacks.checkpoint.save_top_k=-1"
    trained = commands.run_command("train", [*words, *kept, "callbacks.checkpoint.every_n_steps=1"])
    assert Path(evaluate(tmp_path).artifacts["checkpoint"]) == Path(trained.artifacts["checkpoint"])
    for name in ("epoch=1", "step=2.ckpt"):
        found = evaluate(tmp_path, f"checkpoint={name}").artifacts["checkpoint"]
        assert Path(found).name == f"{name.removesuffix('.ckpt')}.ckpt"


def test_the_last_checkpoint_where_there_is_no_best_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = [
        "model=mlp",
        "data=digits",
        "trainer.max_steps=1",
        "trainer.limit_val_batches=0",
        "metric=val/accuracy",
    ]
    run = commands.run_command("train", [*overrides, f"runs_dir={tmp_path}/runs"]).artifacts["run"]
    assert [path.name for path in Path(run).glob("checkpoints/*")] == ["last.ckpt"]
    capsys.readouterr()
    result = evaluate(tmp_path, "trainer.limit_val_batches=1.0")
    assert Path(result.artifacts["checkpoint"]).name == "last.ckpt"
    printed = capsys.readouterr().err
    assert "the run has no best checkpoint: the last one is measured" in printed
    assert "last.ckpt on val, cpu × 1 (one device)" in printed
    with pytest.raises(MLScaleError, match="no checkpoint 'best'") as caught:
        evaluate(tmp_path, "checkpoint=best")  # what was typed is not replaced
    assert caught.value.fix == "checkpoint=last"


def test_a_secret_that_is_missing_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "ghp_" + "0123456789" * 4
    typed = ["+recipe=resnet", "debug=fast", "snapshot=false", f"notes={secret}", f"runs_dir={tmp_path}/runs"]
    monkeypatch.setenv("MLSCALE_SECRET_NOTES", "")  # taken back when the test ends
    commands.run_command("train", typed)
    monkeypatch.delenv("MLSCALE_SECRET_NOTES")  # another day, another shell
    with pytest.raises(MLScaleError) as caught:
        evaluate(tmp_path)
    assert str(caught.value) == (
        "'notes' needs the environment variable MLSCALE_SECRET_NOTES, which is not set\n"
        "  where: the run's config.yaml: notes\n"
        "  why:   the run was given a secret here, and keeps none in its files\n"
        "  fix:   export MLSCALE_SECRET_NOTES=<the value that was given then>"
    )
    monkeypatch.setenv("MLSCALE_SECRET_NOTES", secret)
    assert evaluate(tmp_path).ok


def test_other_data_may_be_smaller_than_a_training_batch_but_not_of_another_shape() -> None:
    trained = {"num_classes": 10, "channels": 1, "height": 8, "width": 8, "train_samples": 1437}
    small = {**trained, "num_classes": 2, "train_samples": 5, "val_samples": 5, "version": "v"}
    assert apply_training_facts(small, trained) == {**trained, "val_samples": 5, "version": "v"}
    assert apply_training_facts(None, trained) is None
    with pytest.raises(MLScaleError, match=r"takes 1 channel\(s\), this data has 3"):
        apply_training_facts({**small, "channels": 3}, trained)


def test_a_run_that_was_cut_short_before_it_saved_is_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "digits-1s2de0/checkpoints").mkdir(parents=True)
    with pytest.raises(MLScaleError, match="no checkpoint 'best'") as caught:
        find_checkpoint_file(tmp_path / "digits-1s2de0", "best", "val/accuracy", "max")
    assert caught.value.fix.startswith("mlscale runs resume digits-1s2de0, if it was cut short")


def test_a_checkpoint_of_another_run_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (
        RunFolder.create(tmp_path / "runs", name, command="train", config_yaml="seed: 0\n")
        for name in ("first", "second")
    )
    for run in (first, second):
        record = CheckpointRecord("best", 5, 1, run=run.id, config_hash=run.run["config_hash"])
        writer = AtomicCheckpointWriter(run.path / "checkpoints/best.ckpt")
        torch.save({"weights": torch.arange(9)}, writer)  # type: ignore[arg-type]  # a file is what writes
        writer.commit_checkpoint(record)
    assert find_checkpoint_file(first.path, "best", None, None).is_file()
    assert "warning" not in capsys.readouterr().err
    shutil.copy(second.path / "checkpoints/best.ckpt", first.path / "checkpoints/best.ckpt")
    assert find_checkpoint_file(first.path, "best", None, None).is_file()
    reported = capsys.readouterr().err
    assert f"best.ckpt is not a checkpoint of {first.path.name}: it is of the run {second.id}" in reported
