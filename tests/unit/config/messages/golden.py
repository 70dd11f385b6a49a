"""Compare the messages for a command line with the whole text that is expected."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from mlscale.config.checks.check import check_config
from mlscale.config.composition.argv import parse_command_line
from mlscale.config.composition.compose import compose_config
from mlscale.config.composition.origin import create_origin_lookup


def check_message(folder: Path, monkeypatch: pytest.MonkeyPatch, typed: str, message: str) -> None:
    """Check the config that was typed in `folder`, and compare all its problems with `message`."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delenv("NO_SUCH_VARIABLE", raising=False)
    monkeypatch.setenv("TEXT", "ten")
    monkeypatch.setenv("NUMBER", "5")
    monkeypatch.setenv("LONG", "hunter2-hunter2")
    request = parse_command_line("train", shlex.split(typed))
    origin = create_origin_lookup("train", request.overrides, request.roots)
    problems = check_config(compose_config(request), groups=request.roots.groups, origin=origin)
    assert "\n\n".join(map(str, problems)) == message.strip("\n")
