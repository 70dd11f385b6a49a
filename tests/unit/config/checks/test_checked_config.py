"""The names that may be set in a config, and the origin of its keys."""

from __future__ import annotations

from typing import Any

import pytest

from mlscale.config.checks.checked_config import CheckedConfig
from mlscale.config.checks.suggestions import Names
from tests.unit.config.checks.small_configs import get_groups, parse_config

LINEAR = "model: {_target_: torch.nn.Linear, in_features: 1, out_features: '${seed}'}"


def names(text: str, command: str = "train") -> Names:
    return check(text, command=command).names


def check(text: str, origin: Any = None, command: str = "train") -> CheckedConfig:
    return CheckedConfig(parse_config(text), get_groups(), origin, command)


def test_hydras_keys_are_left_out_and_interpolations_stay() -> None:
    config = check(f"hydra: {{a: 1}}\n{LINEAR}")
    assert config.tree == {"model": {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": "${seed}"}}


def test_groups_and_keys_at_the_top() -> None:
    run = check("{}")
    assert {"data", "model", "trainer", "callbacks", "precision"} <= run.top_groups
    assert not run.top_groups & {"base", "recipe", "debug", "hydra", "sweep"}
    assert {"seed", "name", "derived"} <= run.top_keys
    assert "ref" not in run.top_keys
    service = check("{}", command="serve")
    assert {"port", "ref"} <= service.top_keys
    # Groups that no folder has: those of a command's base.
    without = CheckedConfig(parse_config("{}"), {"model/small": ["a"], "hydra/job": ["b"]}, None, "train").top_groups
    assert {"model", "data", "trainer"} <= without
    assert not without & {"model/small", "hydra"}
    assert CheckedConfig(parse_config("{}"), {}, None, "serve").top_groups == {"registry"}


def test_paths_are_of_the_command_of_objects_and_of_groups_that_build_nothing() -> None:
    paths = names(f"{LINEAR}\noptimizer: {{}}\nprecision: {{}}\ntask: {{_target_: mlscale.tasks.Classification}}").paths
    assert {"seed", "model.in_features", "model.bias", "precision.loss_scale", "task.num_classes"} <= set(paths)
    assert not [path for path in paths if path.startswith("derived.")]
    assert "task.model" not in paths  # another group owns it
    assert len(paths) == len(set(paths))
    assert "model.in_features" not in names("other: {_target_: torch.nn.Linear}").paths
    assert "precision.loss_scale" not in names("precision: {_target_: torch.nn.Linear}").paths
    assert "ref" in names("{}", "evaluate").paths


def test_objects_by_their_path_and_not_below_unknown_keys() -> None:
    config = check(f"{LINEAR}\nfoo: {{_target_: torch.nn.ReLU}}\nseed: {{_target_: torch.nn.ReLU}}")
    assert list(config.nodes) == ["model", "seed"]
    assert {"model", "data", "seed"} <= set(config.names.nodes)
    assert "foo" not in config.names.nodes


def test_the_signature_of_an_imported_target_comes_before_that_of_its_source() -> None:
    config = check(LINEAR)
    node = check("model: {_target_: torch.nn.Conv1d}").nodes["model"]
    config.known["model"] = node
    assert "model.kernel_size" in config.names.paths
    assert "model.in_features" not in config.names.paths


def test_the_entries_of_a_group() -> None:
    found = names("callbacks: {ema: {_target_: a.B}, own: null}\nseed: 3").entries
    assert found == {"callbacks": ["ema"]}


@pytest.mark.parametrize(
    ("path", "types"),
    [
        ("model.in_features", ["int"]), ("model.bias", ["bool"]), ("model.bias.x", []),
        ("seed", ["int from 0 to 4294967295"]),
        ("precision.loss_scale", ["float > 0"]), ("model.xyz", []), ("xyz", []), ("precision.xyz", []),
        ("callbacks.own.patience", ["int"]),
    ],
)  # fmt: skip
def test_the_types_of_a_key(path: str, types: list[str]) -> None:
    text = f"{LINEAR}\ncallbacks: {{own: {{_target_: pytorch_lightning.callbacks.EarlyStopping}}}}"
    assert [kind.text for kind in names(text).types(path)] == types


def test_where_a_key_was_set() -> None:
    sources = {"a": "command line: a=1", "b": "my.yaml", "c": ""}
    config = check("{}", lambda path: sources[path])
    assert [config.describe_origin(path) for path in "abc"] == ["command line: a=1", "my.yaml: b", "c"]
    assert [config.is_in_file(path) for path in "abc"] == [False, True, True]
    without = check("{}")
    assert without.describe_origin("a") == "a"
    assert not without.is_in_file("a")
