"""Keys of a third-party command, which the files of its group document: types, typos, and what must be set."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlscale.config.checks.check import check_config
from mlscale.config.schema import roots
from tests.unit.config.checks.small_configs import get_groups, parse_config

DOCUMENTED = """
out: ???     # str: file of the card
depth: 2     # int: levels
limits:
  p99_ms: 5.0    # float: of a request
reader:      # an object
  _target_: torch.nn.Identity
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setitem(roots.COMMAND_BASES, "card", "run")
    path = tmp_path / "default.yaml"
    path.write_text(DOCUMENTED)
    return [path]


def find_messages(files: list[Path], text: str) -> list[str]:
    groups = {**get_groups(), "card": ["default"]}
    problems = check_config(parse_config(text), groups=groups, command="card", command_files=files)
    return [f"{problem}".splitlines()[0] for problem in problems]


@pytest.mark.parametrize(
    ("keys", "messages"),
    [
        ("{out: x, depth: 3, limits: {p99_ms: 1}, reader: {_target_: torch.nn.Identity}}", []),
        ("{out: '???'}", ["'card.out' is not set"]),
        ("{out: x, depth: two}", ["'card.depth' must be int, not the text 'two'"]),
        ("{out: x, dept: 1}", ["unknown key 'card.dept'"]),
        ("{out: x, limits: {p99_m: 1}}", ["unknown key 'card.limits.p99_m'"]),
        ("{out: x, limits: 3}", ["unknown key 'card.limits'"]),
        ("{out: x, other: {a: 1}}", ["unknown key 'card.other.a'"]),
        ("{out: x, reader: {_target_: torch.nn.Dropout, rate: 0.5}}", ["unknown key 'card.reader.rate'"]),
    ],
)
def test_keys_are_those_of_its_files(files: list[Path], keys: str, messages: list[str]) -> None:
    assert find_messages(files, f"card: {keys}") == messages
