"""Settings of Hydra's own: those that have no effect are answered, wherever they are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlscale.config.composition.argv import parse_command_line
from mlscale.config.composition.compose import compose_config
from mlscale.errors import MLScaleError

WITHOUT_EFFECT = {
    "hydra.run.dir=out": "leave hydra.run.dir out",
    "+hydra.run.dir=out": "leave hydra.run.dir out",
    "hydra.job.name=${x}": "leave hydra.job.name out",
    "hydra/job_logging=default": "leave hydra/job_logging out",
    "hydra.job_logging.root.level=INFO": "leave hydra.job_logging.root.level out",
    "hydra.help.app_name=x": "leave hydra.help.app_name out",
    "~hydra.run": "leave hydra.run out",
    "hydra.sweep.dir=out": "",
    "hydra/launcher=basic": "",
}


@pytest.mark.parametrize("typed", WITHOUT_EFFECT)
def test_on_the_command_line(typed: str) -> None:
    with pytest.raises(MLScaleError) as caught:
        parse_command_line("train", ["recipe=resnet", typed])
    assert caught.value.what.endswith("has no effect")
    assert caught.value.fix == WITHOUT_EFFECT[typed]


def test_a_sweep_has_a_folder_a_sweeper_and_a_launcher() -> None:
    assert parse_command_line("train", ["-m", "seed=1,2", "hydra.sweep.dir=out", "hydra/launcher=basic"]).multirun


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("hydra: {run: {dir: out}}", "hydra.run.dir"),
        ("hydra: {job: {chdir: true}}", "hydra.job.chdir"),
        ("hydra: {output_subdir: .hydra}", "hydra.output_subdir"),
        ("defaults: [{override /hydra/job_logging: default}, _self_]", "hydra/job_logging"),
    ],
)
def test_in_a_file(text: str, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "recipe").mkdir(parents=True)
    (tmp_path / "conf" / "recipe" / "mine.yaml").write_text(f"# @package _global_\n{text}\n")
    with pytest.raises(MLScaleError) as caught:
        compose_config(parse_command_line("train", ["recipe=mine"]))
    assert caught.value.what == f"'{key}' has no effect"
    assert caught.value.where.startswith("conf/recipe/mine.yaml: ")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("--resolve", "--resolve belongs to --cfg"),
        ("--package trainer", "--package belongs to --cfg"),
        ("-m --cfg job", "--multirun and --cfg exclude each other"),
        ("-m --info", "--multirun and --info exclude each other"),
        ("--run -m seed=1,2", "--multirun and --run exclude each other"),
    ],
)
def test_flags_that_exclude_or_need_each_other(words: str, what: str) -> None:
    with pytest.raises(MLScaleError) as caught:
        parse_command_line("train", words.split())
    assert caught.value.what == what
    assert caught.value.fix
