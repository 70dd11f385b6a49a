"""Secrets of a config: found, moved to the environment, never resolved."""

import pytest
from omegaconf import OmegaConf

from mlscale.secrets.config_secrets import (
    find_missing_secrets,
    find_secrets,
    mask_overrides,
    protect_config,
    protect_yaml,
    read_referenced_variables,
)

CONFIG = {
    "optimizer": {"lr": 0.1, "_target_": "torch.optim.SGD"},
    "logger": {"wandb": {"api_key": "hunter22", "project": "p"}, "mlflow": {"uri": "https://ana:hunter33@host/x"}},
    "data": {"label_key": "cls", "hosts": [{"password": "hunter44"}], "token": "${oc.env:HF_TOKEN}"},
    "auth": {"_target_": "my.Auth", "user": "ana", "pin": 987654},
    "extra": ["AKIA" + "IOSFODNN7EXAMPLE", "plain"],
    "model": {"tokenizer": "bert", "max_tokens": 5, "token": 7, "api_key": None, "secret": "???"},
}
SECRETS = {
    "logger.wandb.api_key": "hunter22",
    "logger.mlflow.uri": "https://ana:hunter33@host/x",
    "data.hosts[0].password": "hunter44",
    "auth.user": "ana",
    "auth.pin": 987654,
    "extra[0]": "AKIA" + "IOSFODNN7EXAMPLE",
}


def test_find() -> None:
    assert find_secrets(CONFIG) == SECRETS
    assert find_secrets(OmegaConf.create(CONFIG)) == SECRETS


def test_protect_keeps_the_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    protected, environment = protect_config(CONFIG)
    assert find_secrets(protected) == {}
    assert environment["MLSCALE_SECRET_LOGGER_WANDB_API_KEY"] == "hunter22"
    assert not any(
        str(value) in OmegaConf.to_yaml(OmegaConf.create(protected)) for value in SECRETS.values() if value != "ana"
    )
    assert find_missing_secrets(protected, {}) == sorted(environment)
    assert find_missing_secrets(protected, environment) == []
    for name, value in {**environment, "HF_TOKEN": "hf"}.items():
        monkeypatch.setenv(name, value)
    resolved = OmegaConf.to_container(OmegaConf.create(protected), resolve=True)
    assert resolved == {**CONFIG, "data": {**CONFIG["data"], "token": "hf"}}  # type: ignore[dict-item]
    assert protect_config(protected) == (protected, {})


def test_default_of_an_interpolation_is_a_literal() -> None:
    config = {"password": "${oc.env:PW,hunter22}"}
    assert find_secrets(config) == {"password": "${oc.env:PW,hunter22}"}
    assert protect_config(config, {"PW": "real"}) == ({"password": "${oc.env:PW}"}, {})
    protected, environment = protect_config(config, {})
    assert protected == {"password": "${oc.env:MLSCALE_SECRET_PASSWORD}"}
    assert environment == {"MLSCALE_SECRET_PASSWORD": "hunter22"}
    assert find_secrets({"password": "${oc.env:PW,null}"}) == {}


def test_literal_beside_an_interpolation() -> None:
    protected, environment = protect_config({"password": "abcd${model.name}efgh"})
    assert "abcd" not in str(protected)
    assert "${model.name}" in protected["password"]
    assert sorted(environment.values()) == ["abcd", "efgh"]


def test_same_name_twice() -> None:
    _, environment = protect_config({"a": {"b_password": "first11"}, "a_b": {"password": "second2"}})
    assert sorted(environment.values()) == ["first11", "second2"]


def test_interpolated() -> None:
    config = {"a": "${oc.env:ONE}", "b": ["x${oc.env:TWO,d}"], "c": "${oc.env:GONE}"}
    assert read_referenced_variables(config, {"ONE": "1", "TWO": "2", "OTHER": "3"}) == {"ONE": "1", "TWO": "2"}


def test_overrides() -> None:
    typed = [
        "optimizer.lr=0.1",
        "optimizer.api_key=abc",
        "++x.password='with space'",
        "+hosts=[{password: hunter22}]",
        "tracker.uri=https://ana:hunter33@host/x",
        "logger.wandb.api_key=${oc.env:KEY}",
        "~logger.token",
        "x.token=one,two",
        "data.label_key=cls",
        "trainer.max_tokens=100",
    ]
    assert mask_overrides(typed) == [
        "optimizer.lr=0.1",
        "optimizer.api_key=***",
        "++x.password=***",
        "+hosts=[{password: ***}]",
        "tracker.uri=https://ana:***@host/x",
        "logger.wandb.api_key=${oc.env:KEY}",
        "~logger.token",
        "x.token=***",
        "data.label_key=cls",
        "trainer.max_tokens=100",
    ]


def test_yaml_without_secrets_is_left_as_it_is() -> None:
    text = "lr: 1.0e-05  # why\n"
    assert protect_yaml(text) == text
    assert "hunter22" not in protect_yaml("lr: 1.0e-05\napi_key: hunter22\n")
