"""Mistakes of every job of a multirun are reported once, before there is a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlscale.assembly.sweep_check import check_sweep
from mlscale.cli import main
from mlscale.config.composition.argv import parse_command_line
from mlscale.errors import MLScaleError


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("optimizer.lrr=1 seed=1,2,3", "unknown key 'optimizer.lrr'"),
        ("trainer.max_epochs=ten seed=1,2", "'trainer.max_epochs' must be int or null, not the text 'ten'"),
        ("data=digitz seed=1,2", "unknown option 'digitz' of the group 'data'"),
        ("optimizer.lrr=1,2", "unknown key 'optimizer.lrr'"),
        ("optimizer=glob(x*)", "optimizer=glob(x*) matches nothing, so no job is started"),
        ("seed=1,2 model=glob(nope*)", "model=glob(nope*) matches nothing, so no job is started"),
    ],
)
def test_a_mistake_of_all_jobs(words: str, what: str) -> None:
    with pytest.raises(MLScaleError) as caught:
        check_sweep(parse_command_line("train", ["-m", *words.split()]))
    assert caught.value.what == what


@pytest.mark.parametrize(
    "words",
    [
        "optimizer=adamw,sgd optimizer.nesterov=true",  # wrong for the first alone
        "optimizer=sgd,adamw optimizer.nesterov=true",
        "optimizer.lr=fast,0.1",
        "seed=range(1,3) model=glob(res*)",
    ],
)
def test_a_job_that_is_right_runs(words: str) -> None:
    check_sweep(parse_command_line("train", ["-m", *words.split()]))


def test_it_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["-m", "optimizer.lrr=1", "seed=1,2"]) == 2
    assert capsys.readouterr().err.count("unknown key 'optimizer.lrr'") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["-m", "~", "seed=1,2"], ["-m", "trainer=<<: 1"], ["-m", "\x01=1", "seed=1,2"]])
def test_an_override_that_can_not_be_parsed_is_the_users(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "can't be read\n  where: command line\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "where"),
    [
        ("optimizer.lrr=0.1,0.2", ["optimizer.lrr=0.1"]),
        ("optimizer.lr=fast,0.1", ["optimizer.lr=fast"]),
        ("optimizer=sgd,adamw optimizer.nesterov=true seed=1,x", ["optimizer.nesterov=true", "seed=x"]),
    ],
)
def test_config_check_reports_the_mistakes_of_every_job_once(
    words: str, where: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "check", "-m", *words.split()]) == 2
    reported = [
        line.partition("command line: ")[2] for line in capsys.readouterr().err.splitlines() if "where:" in line
    ]
    assert sorted(reported) == sorted(where)


def test_config_check_counts_the_jobs_that_are_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "-m", "seed=1,2", "optimizer=sgd,adamw"]) == 0
    assert capsys.readouterr().out.startswith("no problems found in 4 jobs; ")


def test_config_show_prints_one_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "-m", "seed=1,2"]) == 2
    assert "config check -m checks every job" in capsys.readouterr().err


@pytest.mark.parametrize("start", [["-m"], ["config", "check", "-m"]])
@pytest.mark.parametrize(
    ("typed", "lines"),
    [
        ("hydra/sweeper=ax", ["unknown option 'ax' of the group 'hydra/sweeper'", "pip install hydra-ax-sweeper"]),
        ("hydra/launcher=submitit_slurm", ["command line: hydra/launcher=", "can't be chosen", "with launch=slurm"]),
        ("hydra/sweeper=mine", ["unknown option 'mine' of the group 'hydra/sweeper'", "see docs/configuration.md"]),
    ],
)
def test_a_plugin_is_named_by_its_package_if_a_sweep_can_have_it(
    start: list[str], typed: str, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*start, "+recipe=resnet", "seed=1,2", typed]) == 2
    message = capsys.readouterr().err
    assert [line for line in lines if line not in message] == []


def test_an_interval_without_a_sweeper_that_searches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["-m", "+recipe=resnet", "optimizer.lr=interval(0,1)"]) == 2
    message = capsys.readouterr().err
    assert "where: command line: optimizer.lr=interval(0,1)\n" in message
    assert "BasicSweeper" not in message
