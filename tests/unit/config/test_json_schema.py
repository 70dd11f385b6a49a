"""The JSON schema of a composed config."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from omegaconf import OmegaConf

from mlscale.config.composition.argv import parse_command_line
from mlscale.config.composition.compose import compose_config
from mlscale.config.json_schema import DRAFT, build_json_schema, dump_schema
from mlscale.config.schema.roots import find_roots


@cache
def schema() -> dict[str, Any]:
    return build_json_schema(find_roots())


def problems(*overrides: str) -> list[str]:
    jsonschema = pytest.importorskip("jsonschema")
    tree = OmegaConf.to_container(compose_config(parse_command_line("train", overrides)))
    validator = jsonschema.Draft202012Validator(schema())
    return sorted(".".join(map(str, error.path)) or "(top)" for error in validator.iter_errors(tree))


def test_is_a_schema() -> None:
    assert schema()["$schema"] == DRAFT
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(schema())
    assert dump_schema(schema()).startswith("{")


def test_descriptions_and_types_come_from_the_yaml() -> None:
    seed = schema()["properties"]["seed"]
    assert seed["description"].startswith("weights, order and augmentation")
    assert seed["default"] == 0
    assert seed["anyOf"][0] == {"type": "integer", "minimum": 0, "maximum": 4294967295}
    assert "adamw" in schema()["properties"]["optimizer"]["description"]
    (digits,) = [
        branch["then"]["properties"]
        for branch in schema()["properties"]["data"]["allOf"]
        if branch["if"]["properties"]["_target_"]["const"] == "mlscale.data.Digits"
    ]
    assert digits["batch_size"]["description"] == "global, over all devices and accumulation"
    assert "augment" not in digits


@pytest.mark.parametrize("overrides", [("recipe=resnet",), ("model=mlp", "optimizer=adamw", "logger=[csv,wandb]")])
def test_what_composes_is_valid(overrides: tuple[str, ...]) -> None:
    assert problems(*overrides) == []


@pytest.mark.parametrize(
    ("override", "where"),
    [
        ("lr=0.1", "(top)"),
        ("trainer.devcies=8", "trainer"),
        ("optimizer.lr=fast", "optimizer.lr"),
        ("callbacks.x={a:1}", "callbacks.x"),
    ],
)
def test_what_is_wrong_is_not(override: str, where: str) -> None:
    assert problems(override) == [where]
