"""From a node to an object."""

import pytest
from omegaconf import OmegaConf

from mlscale.assembly.build import build, build_each
from mlscale.config.targets import has_argument
from mlscale.errors import MLScaleError


def node(**keys: object):  # type: ignore[no-untyped-def]
    return OmegaConf.create(keys)


def test_plain_containers() -> None:
    built = build(node(_target_="builtins.dict", sizes=[1, 2]), "x")
    assert type(built["sizes"]) is list


def test_nothing_for_an_empty_node() -> None:
    assert build(None, "x") is None
    assert build(node(), "x") is None


def test_supplied_arguments() -> None:
    assert build(node(_target_="builtins.dict", a=1), "x", b=2) == {"a": 1, "b": 2}


def test_each_by_name_without_the_empty_ones() -> None:
    nodes = node(a={"_target_": "builtins.dict", "k": 1}, b=None)
    assert build_each(nodes, "callbacks") == {"a": {"k": 1}}


def test_accepts() -> None:
    assert has_argument(node(_target_="mlscale.errors.MLScaleError"), "fix")
    assert not has_argument(node(_target_="mlscale.errors.MLScaleError"), "model")
    assert not has_argument(None, "model")


def test_failure_names_node_and_reason() -> None:
    with pytest.raises(MLScaleError) as caught:
        build(node(_target_="fractions.Fraction", numerator=1, denominator=0), "model")
    assert caught.value.what == "fractions.Fraction could not be built"
    assert caught.value.where == "model"
    assert caught.value.why == "ZeroDivisionError: Fraction(1, 0)"


def test_own_errors_come_through() -> None:
    with pytest.raises(MLScaleError, match="does not exist: nowhere"):
        build(node(_target_="mlscale.config.schema.roots.find_roots", config_dirs=["nowhere"]), "x")


def test_what_the_data_does_not_give_is_the_default_of_a_users_class() -> None:
    cfg = OmegaConf.create(
        {
            "derived": {"num_classes": None, "channels": 3},
            "span": {
                "_target_": "datetime.timedelta",
                "days": "${derived.num_classes}",
                "hours": "${derived.channels}",
            },
            "date": {"_target_": "datetime.date", "year": "${derived.num_classes}", "month": 1, "day": 1},
        }
    )
    assert build(cfg.span, "task").total_seconds() == 3 * 3600
    with pytest.raises(MLScaleError) as caught:
        build(cfg.date, "task")
    assert caught.value.fix == "task.year=<its value>, which your data does not give"


def test_an_optimizer_waits_for_its_parameters() -> None:
    with pytest.raises(MLScaleError, match=r"torch\.optim\.RMSprop could not be built") as caught:
        build(OmegaConf.create({"_target_": "torch.optim.RMSprop", "lr": 0.1}), "optimizer")
    assert caught.value.fix.startswith("optimizer._partial_=true")


def test_a_misspelt_model_of_timm_is_answered_with_similar_names() -> None:
    pytest.importorskip("timm")
    with pytest.raises(MLScaleError, match="could not be built") as caught:
        build(node(_target_="timm.create_model", model_name="mobilenetv3_smal"), "model")
    assert "Unknown model (mobilenetv3_smal)" in caught.value.why
    assert caught.value.fix.splitlines()[0].startswith("model.model_name=mobilenetv3_small")
