"""What can't work is refused before the first step, with what does."""

import json
from pathlib import Path

import numpy as np
import pytest

from mlscale.assembly.ready import compose_from_overrides
from mlscale.commands.lifecycle.lifecycle_checks import check_lifecycle
from mlscale.commands.lifecycle.retraining_steps import read_suggested_classes
from mlscale.errors import Exit, MLScaleError
from mlscale.retrain.gate.gate_limits import format_name_list


def check(*words: str) -> None:
    check_lifecycle(compose_from_overrides("lifecycle", words))


def refuse(*words: str) -> MLScaleError:
    with pytest.raises(MLScaleError) as caught:
        check(*words)
    assert caught.value.exit == Exit.USER
    return caught.value


@pytest.fixture
def table(tmp_path: Path) -> str:
    """400 rows of numbers alone."""
    values = np.random.default_rng(0).random((400, 2))
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps({"a": a, "b": b, "y": "no" if a < b else "yes"}) + "\n" for a, b in values))
    return str(path)


@pytest.mark.parametrize("shift", ["auto", "unit", "stuck", "concept"])
def test_shifts_of_a_table(shift: str, table: str) -> None:
    check("+recipe=tabular", "data=table", f"data.train={table}", "data.target=y", f"lifecycle.shift={shift}")


def test_a_table_without_categories_has_no_new_one(table: str) -> None:
    error = refuse("+recipe=tabular", "data=table", f"data.train={table}", "data.target=y", "lifecycle.shift=category")
    assert error.why == "the table has no column of categories"
    assert error.fix == "lifecycle.shift=unit\nlifecycle.shift=stuck\nlifecycle.shift=concept"


def test_a_shift_of_another_form_is_refused(table: str) -> None:
    error = refuse("+recipe=tabular", "data=table", f"data.train={table}", "data.target=y", "lifecycle.shift=invert")
    assert (error.what, error.why) == ("the shift 'invert' does not fit this model", "it is none of rows")


def test_the_units_of_targets_are_known(table: str) -> None:
    words = ("data=table", f"data.train={table}", "data.target=a", "data.units={a: kg}", "data.ignore=[y]")
    subject = check_lifecycle(compose_from_overrides("lifecycle", ["+recipe=regression", *words]))
    assert (subject.task_type.name, subject.targets[0].unit) == ("regression", "kg")


def test_a_language_model_has_no_labels_that_could_change(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("plain words, plain words\n" * 4000)
    words = ("+recipe=gpt", "data=text_files", f"data.train={tmp_path}", "data.length=64")
    check(*words)
    assert "no labels" in refuse(*words, "lifecycle.shift=concept").why
    error = refuse(*words, "lifecycle.shift=encoding")
    assert error.why.startswith("0.0% of the texts have characters that ASCII does not have")
    assert error.fix == "lifecycle.shift=domain"


def test_texts_with_accents_can_have_a_broken_encoding(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("größer als früher\n" * 4000)
    check("+recipe=gpt", "data=text_files", f"data.train={tmp_path}", "data.length=64", "lifecycle.shift=encoding")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("lifecycle.shift=sideways",), "unknown shift 'sideways'"),
        (("lifecycle.traffic=5",), "lifecycle.traffic is 5"),
        (("registry=none",), "the tour needs a registry"),
    ],
)
def test_settings_that_make_no_sense(words: tuple[str, ...], what: str) -> None:
    assert refuse("+recipe=tabular", *words).what == what


def test_too_few_samples_for_a_retraining(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,y\n" + "".join(f"{row},{row % 7}.5\n" for row in range(100)))
    words = ("+recipe=regression", "data=table", f"data.train={path}", "data.target=y")
    assert "training samples" in refuse(*words).what


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (("trainer.max_steps=5",), "trainer.max_steps=14"),
        (("trainer.limit_val_batches=0",), "trainer.limit_val_batches=1.0"),
        (("trainer.max_epochs=2", "trainer.check_val_every_n_epoch=3"), "trainer.check_val_every_n_epoch=1"),
    ],
)
def test_a_run_without_a_validation_has_no_best_checkpoint(words: tuple[str, ...], fix: str) -> None:
    error = refuse("+recipe=tabular", *words)
    assert error.what == "the training has no validation"
    assert error.fix == fix
    check("+recipe=tabular", *words, fix)


@pytest.mark.parametrize("names", [("0", "3"), ("a", "b c"), ("true", "x-1"), ("über", "no")])
def test_the_classes_that_the_gate_suggests_are_read_from_its_sentence(names: tuple[str, ...]) -> None:
    sentence = f"rejected: 0 of 3, then gate.relabelled={format_name_list(names)}. Held-out accuracy [1, 2]"
    assert read_suggested_classes(sentence) == list(names)
    assert read_suggested_classes("rejected: it is not surely better") == []
