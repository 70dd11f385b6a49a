"""Every setting that takes a path refuses an address before anything starts: found by the types of shipped keys."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mlscale.assembly.ready import raise_if_invalid
from mlscale.commands import COMMANDS
from mlscale.commands.command import Key
from mlscale.commands.events import entry as events
from mlscale.commands.options import read_options
from mlscale.config.composition.argv import parse_command_line
from mlscale.config.composition.compose import compose_config
from mlscale.config.schema.documented_fields import Field, Option, get_shipped_fields
from mlscale.config.schema.local_paths import is_address
from mlscale.config.schema.roots import COMMAND_BASES
from mlscale.data.cache_folder import get_cache_dir
from mlscale.errors import MLScaleError, Problems

ADDRESSES = ["s3://bucket/x", "gs:/bucket/x", "az:x", "http://host/x", "hdfs:///x", "file:///x/y", "S3://bucket/x"]


def _takes_path(field: Field) -> bool:
    return "path" in re.findall(r"\w+", field.word)


PATHS = [
    (option, fields)
    for option in get_shipped_fields().options
    # `checkpoint` is refused as a word before its value is read, where no run is named.
    if (fields := [field for field in option.fields if _takes_path(field) and field.path != "checkpoint"])
]
KEYS = [
    (command, name, key)
    for command, entry in COMMANDS.items()
    for name, action in entry.actions.items()
    for key in action.keys
    if key.type is Path
]


def _list_commands(option: Option) -> list[str]:
    """Return the commands whose config has the option."""
    if option.group == "command":
        return [option.name] if option.name in COMMANDS else []
    if option.group == "base":
        return [command for command, base in COMMAND_BASES.items() if base == option.name]
    return ["export" if option.group == "target" else "train"]


def _refuse(command: str, words: list[str]) -> list[str]:
    """Return what is wrong with a command line before a command looks for a run, or starts anything."""
    request = parse_command_line(command, words)
    try:
        raise_if_invalid(compose_config(request), request)
    except MLScaleError as error:
        return [problem.what for problem in (error.problems if isinstance(error, Problems) else [error])]
    return []


def _select(option: Option) -> list[str]:
    if option.group in ("command", "base"):
        return []
    several = option.group in ("logger", "callbacks", "target")
    return [f"{option.group}=[{option.name}]" if several else f"{option.group}={option.name}"]


@pytest.mark.parametrize(("option", "fields"), PATHS, ids=[f"{item.group}-{item.name}" for item, _ in PATHS])
def test_an_address_in_place_of_a_path_is_refused(option: Option, fields: list[Field]) -> None:
    commands = _list_commands(option)
    assert commands
    expected = {f"{field.path} takes a path of this machine, not an address of 's3:'" for field in fields}
    single = {field.path: "[s3://b/x]" if field.word.startswith("list") else "s3://b/x" for field in fields}
    several = {**single, **{field.path: "[here,s3://b/x]" for field in fields if "list" in field.word}}
    for command in commands:
        for values in (single, several):
            assert expected <= set(_refuse(command, [*_select(option), *(f"{k}={v}" for k, v in values.items())]))


@pytest.mark.parametrize("address", ADDRESSES)
def test_each_form_of_address_is_refused_and_an_interpolated_one(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLACE", address)
    expected = f"runs_dir takes a path of this machine, not an address of '{address.partition(':')[0]}:'"
    assert expected in _refuse("train", [f"runs_dir={address}"])
    assert expected in _refuse("train", ["runs_dir=${oc.env:PLACE}"])


def test_the_folder_of_a_sweep_is_no_address() -> None:
    with pytest.raises(MLScaleError, match=r"hydra.sweep.dir takes a path of this machine"):
        parse_command_line("train", ["-m", "hydra.sweep.dir=s3://bucket/x", "seed=1,2"])


@pytest.mark.parametrize("path", ["runs", "/a:b/c", "./s3:/x", "C:/runs", "a b/s3://x", "2026-12-01T10:00", "résumé:1"])
def test_paths_are_no_addresses(path: str) -> None:
    assert not is_address(path)


@pytest.mark.parametrize(("command", "name", "key"), KEYS, ids=[f"{a}-{b}-{c.name}" for a, b, c in KEYS])
def test_actions_refuse_addresses(command: str, name: str, key: Key) -> None:
    action = COMMANDS[command].actions[name]
    words = [word.example for word in action.words if word.required]
    with pytest.raises(MLScaleError, match=r"takes a path of this machine, not an address of 'gs:'"):
        read_options(command, COMMANDS[command].actions, [*filter(None, [name]), *words, f"{key.name}=gs://bucket/x"])


def test_the_log_of_events_is_no_address() -> None:
    with pytest.raises(MLScaleError, match=r"events takes a path of this machine, not an address of 'gs:'"):
        events.main(["check", "gs://bucket/x.jsonl", "mapping=mapping.yaml"])


def test_no_key_of_a_path_is_left_out() -> None:
    """A key whose text has a file or folder takes a path, or its text has what else it takes."""
    others = re.compile(
        r"address|://|as `?ref|a run|version|regular expression|column"
        r"|key of|price file|added to|anyhow|^names|docker|the image with|GB of memory|the mark that"
    )
    missing = [
        f"{option.group}/{option.name}: {field.path}"
        for option in get_shipped_fields().options
        for field in option.fields
        if re.search(r"\b(files?|folders?|paths?|page)\b", field.text)
        and re.search(r"\bstr\b", field.word)
        and not field.path.startswith("derived.")
        and not others.search(field.text)
    ]
    assert missing == []


def test_the_cache_is_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLSCALE_CACHE", "s3://bucket/cache")
    with pytest.raises(MLScaleError, match="MLSCALE_CACHE takes a path of this machine"):
        get_cache_dir()


def test_the_path_of_a_file_address_is_the_fix() -> None:
    request = parse_command_line("train", ["runs_dir=file:///a b/runs"])
    with pytest.raises(MLScaleError) as caught:
        raise_if_invalid(compose_config(request), request)
    assert caught.value.fix == "'runs_dir=/a b/runs'"
