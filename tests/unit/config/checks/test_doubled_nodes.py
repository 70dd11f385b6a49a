"""Messages for an entry under a misspelt name that builds what an option builds."""
# ruff: noqa: E501 - messages are compared whole

from __future__ import annotations

import pytest

from tests.unit.config.checks.small_configs import find_problems

CASES = [
    (
        "callbacks: {early_stoping: {_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: val_loss, "
        "patience: 3}}",
        """
'callbacks.early_stoping' is a second pytorch_lightning.callbacks.EarlyStopping
  where: command line: callbacks.early_stoping
  why:   the option callbacks=early_stopping builds this class; an entry with another name is another object
  fix:   callbacks=[default,early_stopping] callbacks.early_stopping.monitor=val_loss \
callbacks.early_stopping.patience=3
""",
    ),
    (
        "callbacks: {early_stopping: {_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: a}, "
        "early_stoping: {_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: my_loss, _convert_: all}}",
        """
'callbacks.early_stoping' is a second pytorch_lightning.callbacks.EarlyStopping
  where: command line: callbacks.early_stoping
  why:   the option callbacks=early_stopping builds this class; an entry with another name is another object
  fix:   callbacks.early_stopping.monitor=my_loss
""",
    ),
    (
        "callbacks: {early_stoping: {_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: accuracy, mode: max}}",
        """
'callbacks.early_stoping' is a second lightning.pytorch.callbacks.EarlyStopping
  where: command line: callbacks.early_stoping
  why:   the option callbacks=early_stopping builds this class; an entry with another name is another object
  fix:   callbacks=[default,early_stopping] callbacks.early_stopping.monitor=accuracy callbacks.early_stopping.mode=max
""",
    ),
    (
        "callbacks: {early_stopping: {_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: a}, "
        "early_stoping: {_target_: pytorch_lightning.callbacks.EarlyStopping, _convert_: all}}",
        """
'callbacks.early_stoping' is a second pytorch_lightning.callbacks.EarlyStopping
  where: command line: callbacks.early_stoping
  why:   the option callbacks=early_stopping builds this class; an entry with another name is another object
  fix:   leave callbacks.early_stoping out
'callbacks.early_stoping.monitor' is missing
  where: command line: callbacks.early_stoping._target_
  why:   pytorch_lightning.callbacks.EarlyStopping requires 'monitor'
  fix:   callbacks.early_stoping.monitor=<str>
""",
    ),
    (
        "callbacks: {early: {_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: a}, "
        "early_stoping: {_target_: pytorch_lightning.callbacks.Timer, duration: null}}",
        "",
    ),
]

IN_FILE = [
    (
        "callbacks: {early_stoping: {_target_: pytorch_lightning.callbacks.EarlyStopping, monitor: val_loss}}",
        ("callbacks",),
        "",
    ),
]


@pytest.mark.parametrize(("config", "messages"), CASES, ids=[case[0] for case in CASES])
def test_messages_for_what_was_typed(config: str, messages: str) -> None:
    assert find_problems(config) == messages.strip("\n")


@pytest.mark.parametrize(("config", "in_file", "messages"), IN_FILE, ids=[case[0] for case in IN_FILE])
def test_messages_for_keys_of_a_file(config: str, in_file: tuple[str, ...], messages: str) -> None:
    assert find_problems(config, in_file) == messages.strip("\n")
