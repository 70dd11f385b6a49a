"""Flags and words of other command lines are answered from the chosen recipe, each with a reason of its own."""

from __future__ import annotations

import pytest

from mlscale.config.composition.argv import parse_command_line
from mlscale.config.suggestions.unknown_keys import suggest_key
from mlscale.errors import MLScaleError
from tests.unit.config.names.composed_names import names


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (["--opt-betas", "0.9", "0.95"], "optimizer=adamw optimizer.betas=[0.9,0.95]"),
        (["--input-size", "3", "224", "224"], "data.image_size=224"),
        (["--output", "out"], "runs_dir=out"),
        (["hydra/sweeper=optuna"], ""),
    ],
)
def test_words_of_other_command_lines(words: list[str], fix: str) -> None:
    with pytest.raises(MLScaleError) as error:
        parse_command_line("train", words)
    assert error.value.fix == fix


@pytest.mark.parametrize(
    ("words", "fix", "why"),
    [
        (["recipe=gpt", "--label-smoothing", "1"], "leave label_smoothing out", "task=language has no label smoothing"),
        (["recipe=tabular", "--img-size", "32"], "leave img_size out", "data=breast_cancer has no image size"),
        (["recipe=gpt", "--n-heads", "8"], "model.heads=8", ""),
        (["recipe=gpt", "--max-seq-length", "64"], "data.length=64", ""),
        (["trainer.max_epochs=30", "--warmup-epochs", "3"], "scheduler=warmup_cosine scheduler.warmup=0.1", "epochs"),
        (["model=gone", "--lr", "0.1"], "optimizer.lr=0.1", ""),
        (["--label-smoothing", "0.1"], "task.label_smoothing=0.1", ""),
        (["lr=0.1,0.01"], "-m optimizer.lr=0.1,0.01, which runs one job for each", ""),
        (["device=0,1"], "trainer.devices=2 trainer.accelerator=gpu", ""),
    ],
)  # fmt: skip
def test_flags_are_answered_from_the_recipe_that_is_chosen(words: list[str], fix: str, why: str) -> None:
    with pytest.raises(MLScaleError) as error:
        parse_command_line("train", words)
    assert error.value.fix == fix
    assert why in error.value.why


@pytest.mark.parametrize(
    ("recipe", "typed", "value", "why"),
    [
        ("gpt", "label_smoothing", 0.1, "task=language has no label smoothing"),
        ("gpt", "task.label_smoothing", 0.1, "task=language has no label smoothing"),
        ("tabular", "img_size", 32, "data=breast_cancer has no image size"),
        ("gpt", "class_weights", "balanced", "task=language has no class weights"),
    ],
)
def test_what_the_chosen_task_or_data_does_not_have(recipe: str, typed: str, value: object, why: str) -> None:
    advice = suggest_key(typed, value, names(f"recipe={recipe}"))
    assert advice is not None
    assert (advice.fix, advice.why) == (f"leave {typed} out", why)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("move_metrics_to_cpu", "metrics"), ("torch_empty_cache_steps", "memory"), ("save_on_each_node", "checkpoints"),
        ("process_position", "progress bar"), ("extras.ignore_warnings", "warnings"), ("enforce_tags", "tags"),
        ("logging_nan_inf_filter", "finite"), ("log_file", "log"), ("skip_memory_metrics", "memory"),
        ("split_batches", "batch"), ("automatic_optimization", "LightningModule"),
    ],
)  # fmt: skip
def test_a_reason_is_about_the_setting_that_it_is_given_for(name: str, reason: str) -> None:
    advice = suggest_key(name, True, names())
    assert advice is not None
    assert advice.why.startswith("not supported: ")
    assert reason in advice.why
