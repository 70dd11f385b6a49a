"""Commands without a config read `key=value`, and report mistakes as working commands do, each with what to type."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from mlscale.cli import main
from mlscale.commands import COMMANDS
from mlscale.commands.command import Action, Key
from mlscale.commands.options import Options, read_options
from mlscale.errors import MLScaleError, Problems


def typed(line: str) -> Options:
    command, *words = shlex.split(line)
    return read_options(command, COMMANDS[command].actions, words)


def problems(line: str) -> list[tuple[str, str]]:
    with pytest.raises(MLScaleError) as caught:
        typed(line)
    each = caught.value.problems if isinstance(caught.value, Problems) else [caught.value]
    return [(problem.what, problem.fix) for problem in each]


def declared() -> Iterator[tuple[str, Action, Key]]:
    for name, command in COMMANDS.items():
        for about, action in command.actions.items():
            for key in action.keys:
                words = [word.example for word in action.words if word.required]
                yield " ".join([name, *filter(None, [about]), *words]), action, key


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("runs ls", {"action": "ls", "limit": None, "runs_dir": "runs", "output": "table"}),
        ("runs ls limit=20 output=json", {"limit": 20, "output": "json"}),
        ("runs rm a b yes=true", {"ref": ["a", "b"], "yes": True}),
        ("runs show ref=last verify=TRUE", {"ref": "last", "verify": True}),
        ("runs show ./a=b", {"ref": "./a=b"}),
        ("runs resume last +x=1 trainer.devices=2", {"ref": "last", "overrides": ["+x=1", "trainer.devices=2"]}),
        ("versions add last alias=a alias=[b,c]", {"alias": ("a", "b", "c"), "servable": False}),
        ("versions ls registry.root=/models", {"registry_root": "/models", "name": None}),
        ("versions sync timeout=0.5", {"timeout": 0.5, "project": None}),
        ("init my-net to=work", {"name": "my-net", "to": "work"}),
        ("config show optimizer lr=1 origin=true -cd mine", {"part": ["optimizer"], "overrides": ["lr=1"]}),
        ("config check --config-dir=mine --gpus 2", {"config_dir": ["mine"], "overrides": ["--gpus", "2"]}),
    ],
)
def test_what_is_typed_is_read(line: str, expected: dict[str, Any]) -> None:
    found = vars(typed(line))
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("line", "what", "fix"),
    [
        ("runs lst limit=20", "unknown word 'lst'", "mlscale runs ls limit=20"),
        ("runs list", "unknown word 'list'", "mlscale runs ls"),
        ("runs", "mlscale runs needs to know what to do", "mlscale runs --help"),
        ("config shwo", "unknown word 'shwo'", "mlscale config show"),
        ("recipes quux", "unknown word 'quux'", "mlscale recipes --help"),
        ("recipes cp resnet", "to is missing", "to=mine"),
        ("recipes cp to=mine", "name is missing", "name=resnet"),
        ("runs diff", "first is missing", "first=last"),
        ("runs diff last", "second is missing", "second=<run>"),
        ("recipes ls --config-dir", "--config-dir needs a folder", "mlscale recipes ls --config-dir conf"),
        ("runs ls limti=20", "unknown key 'limti'", "limit=20"),
        ("runs ls limit=many", "'limit' must be a whole number, 0 or more, not the text 'many'", "limit=20"),
        ("runs ls limit=-1", "'limit' must be a whole number, 0 or more, not the text '-1'", "limit=20"),
        ("versions sync timeout=nan", "'timeout' must be a number, 0 or more, not the text 'nan'", "timeout=3600.0"),
        ("runs ls output=jsn", "'output' must be table or json, not the text 'jsn'", "output=json"),
        ("runs rm last yes=please", "'yes' must be true or false, not the text 'please'", "yes=true"),
        ("runs ls limit 20", "unknown word 'limit'", "limit=20"),
        ("runs ls --colour", "unknown option '--colour'", "mlscale runs ls --help"),
        ("runs ls --limit 30", "unknown option '--limit'", "limit=30"),
        ("runs ls --runs-dir='my runs'", "unknown option '--runs-dir=my runs'", "runs_dir='my runs'"),
        ("runs rm 1s2de0 --yes", "unknown option '--yes'", "yes=true"),
        ("versions add last --servable --alias=champion", "unknown option '--alias=champion'", "alias=champion"),
    ],
)
def test_mistakes(line: str, what: str, fix: str) -> None:
    assert (what, fix) in problems(line)


def test_all_mistakes_are_reported_at_once() -> None:
    assert len(problems("runs show limt=1 output=x a b")) == 3
    # The value of an option is not a second one.
    assert len(problems("runs ls --limit 20 --json")) == 2


@pytest.mark.parametrize(("line", "action", "key"), list(declared()))
def test_every_key_can_be_typed_as_the_help_shows_it(line: str, action: Action, key: Key) -> None:
    assert vars(typed(f"{line} {key.setting}"))[key.name.replace(".", "_")] not in (None, "", ())
    assert key.help[0].islower() or key.help.startswith("W&B")
    assert not key.help.endswith(".")


def test_the_command_line_exits_with_2_and_the_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "ls", "--json"]) == 2
    assert "settings are typed as key=value; it takes: limit, runs_dir, output" in capsys.readouterr().err
