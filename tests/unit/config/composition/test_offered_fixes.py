"""What errors offer to type: not what was typed, nor what the run has; else a reason and the page."""

from __future__ import annotations

from pathlib import Path

import pytest

import mlscale
from mlscale.cli import main
from mlscale.config.composition.offered_fixes import offer_fixes
from mlscale.errors import MLScaleError


@pytest.mark.parametrize(
    ("recipe", "typed", "fixes"),
    [
        ("tabular", "lr=0.1 epochs=3", ["optimizer.lr=0.1", "trainer.max_epochs=3"]),
        ("resnet", "--opt adamw --lr 0.2", ["optimizer=adamw", "optimizer.lr=0.2"]),
        (
            "resnet",
            "per_device_train_batch_size=16 gradient_accumulation_steps=4",
            ["", "trainer.accumulate_grad_batches=4"],
        ),
        ("resnet", "batch_size=64", [""]),  # which is in force
        ("resnet", "trainer.max_epochs=30.0", [""]),
        ("resnet", "model.widths=16", [""]),  # which has several
        ("resnet", "optimizer=sgd,resnet_sgd", ["-m optimizer=sgd,resnet_sgd, which runs one job for each"]),
        # What is wrong in another way, and reported next, says nothing about a fix.
        ("resnet", "--lr 0.2 optimizer=adamww", ["optimizer.lr=0.2"]),
        ("resnet", "optimizer=resnet_sgdd", [""]),  # which is in force
        ("text", "launch.max_restarts=1,000", [""]),  # a number, not a sweep
        (
            "text",
            "trainer.limit_train_batches=5,6,7",
            ["-m trainer.limit_train_batches=5,6,7, which runs one job for each"],
        ),
        ("resnet", "lr_scheduler_type=cosine warmup_ratio=0.1", ["scheduler=cosine", ""]),  # which has no pct_start
        (
            "resnet",
            "--warmup_ratio 0.1 --lr_scheduler_type linear",
            ["scheduler.warmup=0.1", "scheduler=warmup_linear"],
        ),
        # What is offered is refused itself: a key of another option, of another launcher, a device that is none.
        ("resnet", "optimizer.betas=0.9,0.95", [""]),
        ("resnet", "trainer.num_nodes=2", [""]),
        ("resnet", "--num_nodes 2", [""]),
        ("resnet", "trainer.devices=0,1", [""]),
        ("resnet", "metrics=[accuracy] epochs=3", ["metric=val/accuracy", "trainer.max_epochs=3"]),
        ("resnet", "verbose=0", ["~callbacks.progress"]),
        ("resnet", "optimizer=adamww model=vitt", ["optimizer=adamw", "model=vit"]),
        ("resnet", "+model=vitt ++optimizer=sgdd", ["model=vit", "optimizer=sgd"]),
        ("vitt", "", ["recipe=vit"]),
    ],
)
def test_what_is_offered(recipe: str, typed: str, fixes: list[str]) -> None:
    with pytest.raises(MLScaleError) as caught:
        mlscale.compose([f"+recipe={recipe}", *typed.split()])
    assert [problem.fix for problem in caught.value.list_problems()] == fixes


@pytest.mark.parametrize(("command", "typed"), [("estimate", "estimate=abc"), ("profile", "profile=3")])
def test_a_value_for_what_holds_keys_is_refused(command: str, typed: str) -> None:
    with pytest.raises(MLScaleError, match="mapping of keys") as caught:
        mlscale.compose([typed], command=command)
    assert (caught.value.fix, "docs/configuration.md" in caught.value.why) == ("", True)


def test_another_value_than_the_typed_one_is_an_example_also_where_a_class_refuses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["+recipe=resnet", "augment.mixup=-1"]) == 2
    shown = capsys.readouterr().err
    assert "augment.mixup is -1" in shown
    assert "fix:" not in shown
    assert "between 0 (none) and 20; such as augment.mixup=0.2" in " ".join(shown.split())
    assert main(["export", "last", "quantize=int8", "compress=none"]) == 2
    assert "fix:   leave compress=none out" in capsys.readouterr().err


def test_next_to_a_run_a_file_names_its_checkpoint() -> None:
    typed = ["last", "ckpt=last.ckpt"]
    with pytest.raises(MLScaleError) as caught, offer_fixes(typed, "export"):
        raise MLScaleError("unknown key 'ckpt'", where="command line: ckpt=last.ckpt", fix="checkpoint=last.ckpt")
    assert caught.value.fix == "checkpoint=last.ckpt"


def test_a_port_counts_nothing() -> None:
    with pytest.raises(MLScaleError, match="'port' must be int") as caught:
        mlscale.compose(["ref=last", "port=80k"], command="serve")
    assert caught.value.fix == ""


def test_a_key_that_a_run_reads_is_not_taken_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["+recipe=resnet", "~trainer.devices"]) == 2
    shown = capsys.readouterr().err
    assert "the configuration has no 'trainer.devices'" in shown
    assert "fix:   leave ~trainer.devices out" in shown
