"""Which weights of a file go where: prefixes, a head with other classes, and what does not fit."""

import pytest
import torch
from torch import Tensor, nn

from mlscale.tasks import Classification, Regression, ResNet, TabularNet
from mlscale.train.initial_weights.start import match_weights

Weights = dict[str, Tensor]


def net(classes: int = 10, width: int = 4) -> ResNet:
    return ResNet(1, classes, (width,), 1)


def task(classes: int = 10) -> Classification:
    return Classification(classes, model=net(classes))


@pytest.mark.parametrize(
    "prefix", ["", "module.", "model.", "model.module.", "_orig_mod.", "module._orig_mod.", "net."]
)
def test_prefixes_of_wrappers_make_no_difference(prefix: str) -> None:
    given = {prefix + name: value for name, value in net().state_dict().items()}
    for has in (task().state_dict(), net().state_dict()):
        found = match_weights(has, given, 10)
        assert found.is_complete
        assert found.share == 1
        assert set(found.fits) == set(has)


def test_what_stands_beside_the_model_is_unexpected_and_keeps_its_name() -> None:
    given = {f"model.{name}": value for name, value in net().state_dict().items()} | {"criterion.weight": torch.ones(3)}
    found = match_weights(net().state_dict(), given, 10)
    assert found.unexpected == ("criterion.weight",)
    assert found.share == 1
    assert not found.is_complete


def test_a_head_with_another_number_of_classes_is_left_as_it_is() -> None:
    found = match_weights(task(10).state_dict(), net(9).state_dict(), 10)
    assert found.head == ("model.head.weight", "model.head.bias")
    assert found.classes == (9, 10)
    assert found.is_complete
    assert found.share == 1
    assert not set(found.head) & set(found.fits)


@pytest.mark.parametrize("classes", [None, 7])
def test_where_the_first_size_is_not_that_of_the_classes_nothing_is_replaced(classes: int | None) -> None:
    found = match_weights(task(10).state_dict(), net(9).state_dict(), classes)
    assert found.head == ()
    assert found.shapes["model.head.bias"] == "(9,) and not (10,)"


def test_where_more_than_the_head_differs_nothing_is_replaced() -> None:
    found = match_weights(task(10).state_dict(), net(9, width=8).state_dict(), 10)
    assert found.head == ()
    assert "model.head.weight" in found.shapes
    assert found.share < 0.01


def test_counters_that_old_files_lack_are_not_missed() -> None:
    given = {name: value for name, value in net().state_dict().items() if "num_batches_tracked" not in name}
    assert match_weights(task().state_dict(), given, 10).is_complete


def test_a_layer_without_a_shape_takes_that_of_its_weights() -> None:
    lazy = nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2))
    found = match_weights(lazy.state_dict(), nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 2)).state_dict(), 2)
    assert found.is_complete
    assert found.share == 1


def test_other_targets_get_units_of_their_own() -> None:
    """Weights that were told the units of one target do not say that those of two are known."""
    one, two = (Regression(targets, model=TabularNet(3, targets)) for targets in (1, 2))
    one.scaled.fill_(True)
    found = match_weights(two.state_dict(), one.state_dict(), 2)
    assert found.is_complete
    assert {"target_mean", "target_std", "scaled"} <= set(found.head)
    assert found.classes == (1, 2)


def test_weights_of_another_model_are_reported_by_kind() -> None:
    found = match_weights(task().state_dict(), nn.Linear(3, 3).state_dict(), 10)
    assert found.share == 0
    assert [line.split(":")[0] for line in found.list_differences()] == ["missing", "unexpected"]
    assert "model.stem.0.weight" in found.list_differences()[0]
    assert found.list_differences()[0].endswith(" more")
