"""A run whose config was edited after it had ended says so, and names the keys."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from mlscale.atomic_files import read_json, write_json
from mlscale.cli import main
from mlscale.runs import recover
from mlscale.runs.edited import describe_edits
from mlscale.runs.folder import RunFolder
from tests.unit.runs.conftest import CONFIG

Start = Callable[..., RunFolder]


def edit(run: RunFolder, edits: Mapping[str, str], name: str = "config.yaml") -> RunFolder:
    text = (run.path / name).read_text()
    for before, after in edits.items():
        assert before in text
        text = text.replace(before, after)
    (run.path / name).write_text(text)
    return RunFolder.open(run.path)


@pytest.mark.parametrize(
    ("edits", "named"),
    [
        ({"lr: 0.1": "lr: 0.3"}, "config.yaml: optimizer.lr;"),
        ({"seed: 1": "seed: 2", "lr: 0.1": "lr: 0.1\n  momentum: 0.9"}, "config.yaml: optimizer.momentum, seed;"),
        ({"seed: 1\n": ""}, "config.yaml: seed;"),
        ({"seed: 1": "\n".join(f"{letter}: 1" for letter in "abcdefghijkl")}, "h, i, j and 3 more;"),
    ],
)
def test_the_edited_keys_are_named(start: Start, edits: dict[str, str], named: str) -> None:
    run = start()
    run.seal_run("done")
    assert describe_edits(run) == ""
    reported = describe_edits(edit(run, edits))
    assert reported.startswith(f"{run.path.name} was edited after it was trained: ")
    assert named in reported


def test_what_computes_nothing_may_be_edited(start: Start) -> None:
    run = start(config_yaml=CONFIG + "name: a\nnotes: b\n")
    run.seal_run("done")
    edits = {
        "devices: 1": "devices: 2",
        "name: a": "name: c",
        "notes: b": "notes: d\n# a comment",
        "seed: 1": "seed:  1",
    }
    assert describe_edits(edit(run, edits)) == ""


def test_derived_values_and_rebuilt_runs_are_compared_with_the_seal(start: Start) -> None:
    run, other = start(derived={"num_classes": 10}), start()
    for each in (run, other):
        each.seal_run("done")
    assert ": derived.yaml; " in describe_edits(edit(run, {"num_classes: 10": "num_classes: 9"}, "derived.yaml"))
    (other.path / "run.json").write_text("")
    assert describe_edits(RunFolder.open(other.path)) == ""
    assert "config.yaml: which keys is not recorded" in describe_edits(edit(other, {"lr: 0.1": "lr: 0.3"}))


def test_a_run_of_an_earlier_version_has_no_digests_of_keys(start: Start) -> None:
    run = start()
    document = read_json(run.path / "run.json")
    del document["config_digests"]
    write_json(run.path / "run.json", document)
    assert describe_edits(RunFolder.open(run.path)) == ""
    assert "which keys is not recorded" in describe_edits(edit(run, {"lr: 0.1": "lr: 0.3"}))
    write_json(run.path / "run.json", {**document, "config_hash": "0" * 64})  # hashed otherwise, proven still
    assert describe_edits(edit(run, {"lr: 0.3": "lr: 0.1"})) == ""


def test_it_may_be_resumed_on_other_devices(start: Start) -> None:
    run = start()
    run.start_attempt()
    run.update_config(CONFIG.replace("devices: 1", "devices: 2"), {"world_size": 2})
    run.seal_run("done")
    assert describe_edits(run) == ""


@pytest.mark.parametrize("words", [["show", "last"], ["show", "last", "output=json"], ["diff", "last", "last"]])
def test_commands_that_read_it_report_it_once(
    start: Start, tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = start()
    run.seal_run("done")
    recover.warn_once.cache_clear()
    edit(run, {"lr: 0.1": "lr: 0.3"})
    assert main(["runs", *words, f"runs_dir={tmp_path / 'runs'}"]) == 0
    assert capsys.readouterr().err.count("config.yaml: optimizer.lr") == 1
