"""Classes that are declared relabelled: their numbers, what is refused, and how a list of them is typed."""

import shlex

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from mlscale.errors import MLScaleError
from mlscale.retrain.gate.gate_limits import find_relabelled_numbers, format_name_list
from mlscale.task_types.registry import get_task_type
from mlscale.task_types.task_type import AnswerNames, TargetColumn


def find(relabelled: tuple[str, ...], labels: tuple[str, ...]) -> list[int]:
    numbers = find_relabelled_numbers(get_task_type("classification"), AnswerNames(labels, ()), relabelled)
    return [int(number) for number in numbers]


def test_names_become_numbers_in_order() -> None:
    assert find((), ("a", "b")) == []
    assert find(("c", "a", "c"), ("a", "b", "c")) == [0, 2]
    # They index columns, also where none is declared.
    numbers = find_relabelled_numbers(get_task_type("classification"), AnswerNames(("a", "b"), ()), ())
    assert numbers.dtype == np.int64


@pytest.mark.parametrize(
    ("labels", "why", "fix"),
    [
        (("a", "b"), "the model's classes are a, b", "gate.relabelled=[a,b]"),
        (tuple("abcdefghijklmnopqrst"), ", s, t", "gate.relabelled=[a,b]"),
        (tuple("abcdefghijklmnopqrstu"), ", s, t, …", "gate.relabelled=[a,b]"),
        (("new york", "oslo"), "new york, oslo", """gate.relabelled='["new york",oslo]'"""),
    ],
)
def test_an_unknown_class_lists_the_known_ones(labels: tuple[str, ...], why: str, fix: str) -> None:
    with pytest.raises(MLScaleError, match="unknown class 'x'") as caught:
        find((labels[0], "x", "y"), labels)
    assert caught.value.why is not None
    assert caught.value.why.endswith(why)
    assert caught.value.fix == f"{fix}, with the classes whose meaning has changed"


@pytest.mark.parametrize("targets", [(), ("u",)])
def test_a_model_without_other_classes_has_none_to_leave_out(targets: tuple[str, ...]) -> None:
    names = AnswerNames((), tuple(TargetColumn(name) for name in targets))
    with pytest.raises(MLScaleError, match="a model of regression has no classes to leave out") as caught:
        find_relabelled_numbers(get_task_type("regression"), names, ("x",))
    assert caught.value.fix == "gate.old=false"


def test_not_all_classes_can_be_declared() -> None:
    assert find(("a",), ("a", "b")) == [0]
    with pytest.raises(MLScaleError, match="all classes are declared relabelled") as caught:
        find(("b", "a"), ("a", "b"))
    assert caught.value.fix == "gate.old=false"


@pytest.mark.parametrize(
    ("names", "typed"),
    [
        (["cat", "dog-2", "_x"], "[cat,dog-2,_x]"),
        (["3", "07"], "[3,07]"),
        (["true", "b"], """'["true",b]'"""),
        (["FALSE"], """'["FALSE"]'"""),
        (["Null"], """'["Null"]'"""),
        (["new york", "a,b"], """'["new york","a,b"]'"""),
        (["3d"], """'["3d"]'"""),
    ],
)
def test_a_list_of_names_can_be_typed(names: list[str], typed: str) -> None:
    assert format_name_list(names) == typed
    (argument,) = shlex.split(f"gate.relabelled={typed}")
    read = OverridesParser.create().parse_override(argument).value()
    assert isinstance(read, list)
    assert [str(name) for name in read] == names
