"""The one rule for fixes: several of one command line, and one next to words that are wrong in another way."""

from __future__ import annotations

import pytest

import mlscale
from mlscale.errors import MLScaleError


@pytest.mark.parametrize(
    ("recipe", "typed", "fixes"),
    [
        ("tabular", "lr=0.1 epochs=3", ["optimizer.lr=0.1", "trainer.max_epochs=3"]),
        ("resnet", "--opt adamw --lr 0.2", ["optimizer=adamw", "optimizer.lr=0.2"]),
        # Typed one after the other, only the last would count.
        ("gpt", "adam_beta1=0.8 adam_beta2=0.99", ["", ""]),
        (
            "resnet",
            "per_device_train_batch_size=16 gradient_accumulation_steps=4",
            ["", "trainer.accumulate_grad_batches=4"],
        ),
        # The batch of one device is counted with their number.
        ("resnet", "batch_size=32 gpus=2", ["", "trainer.devices=2"]),
        # What is wrong in another way, and reported next, says nothing about a fix.
        ("resnet", "--lr 0.2 optimizer=adamww", ["optimizer.lr=0.2"]),
        ("resnet", "optimizer=resnet_sgdd", [""]),  # which is in force
        ("text", "trainer.limit_train_batches=0,5", [""]),  # a job of the sweep would be refused
        (
            "text",
            "trainer.limit_train_batches=5,6,7",
            ["-m trainer.limit_train_batches=5,6,7, which runs one job for each"],
        ),
        ("resnet", "optimizer=adamww model=vitt", ["optimizer=adamw", "model=vit"]),
    ],
)
def test_fixes_of_one_command_line_suit_each_other(recipe: str, typed: str, fixes: list[str]) -> None:
    with pytest.raises(MLScaleError) as caught:
        mlscale.compose([f"+recipe={recipe}", *typed.split()])
    assert [problem.fix for problem in caught.value.list_problems()] == fixes


@pytest.mark.parametrize(
    ("command", "typed"), [("estimate", "estimate=abc"), ("train", "debugger=null"), ("profile", "profile=3")]
)
def test_a_value_for_what_holds_keys_is_refused(command: str, typed: str) -> None:
    with pytest.raises(MLScaleError, match="mapping of keys") as caught:
        mlscale.compose([typed], command=command)
    assert (caught.value.fix, "docs/configuration.md" in caught.value.why) == ("", True)
