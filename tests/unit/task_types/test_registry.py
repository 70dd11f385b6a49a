"""Task types by name: built in, of a package, of a task's own; and what importing them costs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlscale.errors import Exit, MLScaleError
from mlscale.task_types.classification_type import ClassificationType
from mlscale.task_types.registry import (
    find_label_type,
    find_task_type,
    get_task_kind,
    get_task_type,
    list_type_names,
    resolve_task_type,
)

BUILTIN = ["classification", "multilabel", "segmentation", "regression", "language"]
RANKS = """
from mlscale.task_types.regression_type import RegressionType
class Ranks(RegressionType):
    name = "ranks"
RANKS = Ranks()
WORD = "ranks"
"""
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a package with these entry points where pip would."""
    site = tmp_path / "site"
    (site / "ranking_types-1.dist-info").mkdir(parents=True)
    (site / "ranking_types.py").write_text(RANKS)
    monkeypatch.syspath_prepend(str(site))

    def declare(**points: str) -> None:
        info = site / "ranking_types-1.dist-info"
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ranking-types\nVersion: 1\n")
        lines = [f"{name} = ranking_types:{value}" for name, value in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[mlscale.task_types]", *lines, ""]))

    return declare


def test_the_built_in_ones_have_their_names_and_a_metric_that_is_logged() -> None:
    assert [get_task_type(name).name for name in BUILTIN] == list_type_names() == BUILTIN
    for name in BUILTIN:
        task_type = get_task_type(name)
        assert task_type is find_task_type(name)
        assert task_type.default_metric.startswith("val/")
        assert task_type.target_fact in ("num_classes", "targets", "vocab_size")
        assert "loss" in task_type.table_columns
    assert find_task_type("ranks") is find_task_type(None) is None
    labelled = {form: find_label_type(form) for form in ("one", "several", "mask", "two")}
    assert [item and item.name for item in labelled.values()] == [*BUILTIN[:3], None]


@pytest.mark.parametrize("value", ["Ranks", "RANKS"])
def test_a_package_adds_one_by_name(install: Install, value: str) -> None:
    install(ranks=value)
    assert get_task_type("ranks").name == "ranks"
    assert list_type_names() == [*BUILTIN, "ranks"]

    class Task:
        kind = "ranks"

    assert get_task_kind(Task) == "ranks"
    found = resolve_task_type(Task())
    assert found is not None
    assert found.target_fact == "targets"


def test_a_package_can_not_replace_a_built_in_one(install: Install) -> None:
    install(regression="Ranks")
    assert type(get_task_type("regression")).__module__ == "mlscale.task_types.regression_type"
    assert list_type_names() == BUILTIN


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("ranks", "Missing", "AttributeError"),
        ("ranks", "WORD", "ranking_types:WORD is not an mlscale.task_types.task_type.TaskType"),
        ("places", "Ranks", "its name is 'ranks'"),
    ],
)
def test_one_that_does_not_load_names_its_package(install: Install, name: str, value: str, why: str) -> None:
    install(**{name: value})
    with pytest.raises(MLScaleError, match=f"the task type '{name}' does not load") as caught:
        get_task_type(name)
    assert why in str(caught.value.why)
    assert caught.value.where == "package ranking-types"
    assert f"{name} = ranking_types:{value}" in str(caught.value.fix)
    assert caught.value.exit == Exit.ENVIRONMENT


def test_an_unknown_one_is_an_error_with_the_known_names() -> None:
    with pytest.raises(MLScaleError, match="unknown task type 'ranks'") as caught:
        get_task_type("ranks")
    assert caught.value.why == f"known are {', '.join(BUILTIN)}"


def test_a_task_may_bring_its_own_and_words_of_another_meaning_do_not_count() -> None:
    class Own(ClassificationType):
        name = "own"

    class Task:
        kind = "classification"
        task_type: object = Own()

    class Other:
        kind = "regression"
        task_type = "binary"  # as torchmetrics has it

    assert get_task_kind(Task) == "own"
    assert get_task_kind(Other()) == "regression"
    unknown = type("Unknown", (), {"kind": "poses"})
    assert resolve_task_type(unknown) is None
    assert get_task_kind(unknown) == "poses"
    assert get_task_kind(object()) is None


def test_importing_them_imports_no_torch() -> None:
    code = (
        "import sys; from mlscale.task_types.registry import get_task_type as get, list_type_names; "
        "list(map(get, list_type_names())); "
        "print([name for name in ('torch', 'pyarrow', 'scipy', 'PIL', 'hydra', 'omegaconf') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr
