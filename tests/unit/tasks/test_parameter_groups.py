"""Groups of parameters: each parameter in exactly one, by rules and by layers, and schedules keep their factors."""

from functools import partial
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, CyclicLR, OneCycleLR

from mlscale.errors import MLScaleError
from mlscale.tasks import MLP, OneCycle, ResNet
from mlscale.tasks.models.layers import list_layers
from mlscale.tasks.optimizers import build_optimizers
from mlscale.tasks.parameter_groups import parameter_groups

SGD = partial(torch.optim.SGD, lr=0.1, weight_decay=0.01)
RULES: list[dict[str, Any]] = [{"match": "head.*", "lr_scale": 10}, {"match": "*.bias|*norm*", "weight_decay": 0.0}]


def net() -> ResNet:
    return ResNet(1, 10, (4, 8), 2)


def names(module: nn.Module, group: dict[str, Any]) -> list[str]:
    ours = {id(parameter) for parameter in group["params"]}
    return [name for name, parameter in module.named_parameters() if id(parameter) in ours]


@pytest.mark.parametrize("rules", [[], RULES])
@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_every_parameter_is_in_exactly_one_group(rules: list[dict[str, Any]], layer_decay: float) -> None:
    module = net()
    groups = parameter_groups(module, rules, layer_decay)
    found = [name for group in groups for name in names(module, group)]
    assert sorted(found) == sorted(name for name, _ in module.named_parameters())
    assert len({group["name"] for group in groups}) == len(groups)


def test_all_rules_that_match_apply() -> None:
    module = net()
    groups = {group["name"]: group for group in parameter_groups(module, RULES)}
    assert list(groups) == ["rest", "*.bias|*norm*", "head.*", "head.* + *.bias|*norm*"]
    assert names(module, groups["head.*"]) == ["head.weight"]
    assert names(module, groups["head.* + *.bias|*norm*"]) == ["head.bias"]
    assert groups["head.* + *.bias|*norm*"]["lr_scale"] == 10
    assert "stem.1.weight" in names(module, groups["*.bias|*norm*"]), "by the class of its layer"
    assert "stem.0.weight" in names(module, groups["rest"])


def test_a_layer_learns_slower_the_further_it_is_from_the_head() -> None:
    module = net()
    scales: dict[str, float] = {}
    for group in parameter_groups(module, [{"match": "head.*", "lr_scale": 4}], 0.5):
        scales |= dict.fromkeys(names(module, group), group.get("lr_scale", 1.0))
    assert scales["head.weight"] == 4
    assert scales["stages.3.first.0.weight"] == 0.5
    assert scales["stages.0.first.0.weight"] == 0.5**4
    assert scales["stem.0.weight"] == scales["stem.1.bias"] == 0.5**5


@pytest.mark.parametrize(
    ("scheduler", "tops"),
    [
        (None, (0.1, 1.0)),
        (partial(CosineAnnealingLR, T_max=10), (0.1, 1.0)),
        (partial(OneCycle, max_lr=0.2, total_steps=10), (0.2, 2.0)),
        (partial(OneCycleLR, max_lr=0.2, total_steps=10), (0.2, 2.0)),
        (partial(CyclicLR, base_lr=0.01, max_lr=0.2, step_size_up=3), (0.2, 2.0)),
        ({"scheduler": partial(OneCycle, max_lr=0.2, total_steps=10), "interval": "step"}, (0.2, 2.0)),
    ],
)
def test_schedules_keep_the_factors(scheduler: Any, tops: tuple[float, float]) -> None:
    configured = build_optimizers(net(), SGD, scheduler, [{"match": "head.*", "lr_scale": 10}])
    optimizer = configured if scheduler is None else configured["optimizer"]
    plain, head = optimizer.param_groups
    assert head["name"] == "head.*"
    seen = []
    for _ in range(9):
        seen.append((plain["lr"], head["lr"]))
        assert head["lr"] == pytest.approx(10 * plain["lr"])
        optimizer.step()
        if scheduler is not None:
            configured["lr_scheduler"]["scheduler"].step()
    assert max(seen) == pytest.approx(tops)


def test_without_rules_it_is_what_it_was() -> None:
    optimizer = build_optimizers(net(), SGD, None)
    assert len(optimizer.param_groups) == 1
    assert "name" not in optimizer.param_groups[0]
    assert "lr_scale" not in optimizer.param_groups[0]


@pytest.mark.parametrize(
    ("rules", "decay", "what"),
    [
        ([{"match": "haed.*", "lr_scale": 2}], 1.0, r"no parameter is called 'haed\.\*'"),
        ([{"match": "head.*", "weigth_decay": 0}], 1.0, "SGD has no setting 'weigth_decay'"),
        ([{"match": "head.*"}], 1.0, "not a rule for parameters"),
        ([{"lr_scale": 2}], 1.0, "not a rule for parameters"),
        (["head"], 1.0, "not a rule for parameters"),
        ([{"match": "head.*", "lr_scale": 0}], 1.0, "lr_scale is 0"),
        ([{"match": "head.*", "lr_scale": True}], 1.0, "lr_scale is True"),
        ([], 0.0, "layer_decay is 0"),
        ([], 1.5, "layer_decay is 1.5"),
    ],
)
def test_what_is_wrong_is_reported(rules: Any, decay: float, what: str) -> None:
    with pytest.raises(MLScaleError, match=what) as caught:
        build_optimizers(net(), SGD, None, rules, decay)
    assert caught.value.unbuilt
    assert caught.value.fix


def test_a_typo_is_reported_with_the_right_name() -> None:
    with pytest.raises(MLScaleError) as caught:
        build_optimizers(net(), SGD, None, [{"match": "head.*", "weigth_decay": 0}])
    assert caught.value.fix == "write 'weight_decay' in place of 'weigth_decay'"


@pytest.mark.parametrize(
    ("build", "count", "first", "last"),
    [
        (net, 6, "stem.0.weight", ["head.weight", "head.bias"]),
        (lambda: MLP(64, 10, (3, 3)), 3, "layers.1.weight", ["layers.5.weight", "layers.5.bias"]),
        (torchvision.models.resnet18, 10, "conv1.weight", ["fc.weight", "fc.bias"]),
        (torchvision.models.mobilenet_v3_small, 14, "features.0.0.weight", None),
        (lambda: nn.Linear(2, 2), 1, "weight", ["weight", "bias"]),
    ],
)
def test_layers_from_the_input_to_the_head(build: Any, count: int, first: str, last: list[str] | None) -> None:
    module = build()
    layers = list_layers(module)
    assert sorted(name for layer in layers for name in layer) == sorted(name for name, _ in module.named_parameters())
    assert len(layers) == count
    assert layers[0][0] == first
    assert last is None or layers[-1] == last


def test_what_belongs_to_no_block_is_in_the_first_layer() -> None:
    with torch.device("meta"):
        module = torchvision.models.vit_b_16()
    layers = list_layers(module)
    assert len(layers) == 14
    assert {"class_token", "encoder.pos_embedding", "conv_proj.weight"} <= set(layers[0])
    assert "encoder.ln.weight" in layers[-2]


def test_muon_by_timm_trains_matrices_without_a_fallback() -> None:
    muon = pytest.importorskip("timm.optim").Muon
    module = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    made = build_optimizers(module, partial(muon, lr=0.01), None, [{"match": "1.weight", "use_fallback": True}])
    module(torch.ones(2, 8)).sum().backward()
    made.step()
    chosen = {name: made.state[parameter]["use_muon"] for name, parameter in module.named_parameters()}
    assert chosen == {"0.weight": True, "0.bias": False, "1.weight": False, "1.bias": False}


def test_muon_by_torch_names_the_parameter_of_another_shape() -> None:
    with pytest.raises(MLScaleError, match=r"trains matrices alone, and bias has the shape \(4,\)") as caught:
        build_optimizers(nn.Linear(3, 4), torch.optim.Muon, None)
    assert caught.value.fix.startswith("optimizer._target_=timm.optim.Muon")
    with pytest.raises(MLScaleError, match="SGD has no setting 'use_fallback'"):
        build_optimizers(nn.Linear(3, 4), SGD, None, [{"match": "*", "use_fallback": True}])
