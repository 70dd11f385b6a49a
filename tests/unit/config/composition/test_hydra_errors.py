"""What Hydra refuses, in mlscale's words, all culprits at once."""

from pathlib import Path

import pytest
from omegaconf import DictConfig

from mlscale.config.checks.check import check_config
from mlscale.config.composition.argv import parse_command_line
from mlscale.config.composition.compose import compose_config, run_by_hydra
from mlscale.config.composition.origin import create_origin_lookup
from mlscale.errors import MLScaleError
from mlscale.sweep import register_sweep_dir

ROOT = Path(__file__).resolve().parents[4]


def options(group: str) -> str:
    """The shipped options of a group, as an error lists them."""
    return ", ".join(sorted(path.stem for top in ("conf", "recipes") for path in ROOT.glob(f"{top}/{group}/*.yaml")))


CASES = {
    "unknown recipe": (
        ["recipe=resnt"],
        "unknown option 'resnt' of the group 'recipe'\n"
        "  where: command line: recipe=resnt\n"
        f"  why:   options: {options('recipe')}\n"
        "  fix:   recipe=resnet",
    ),
    "unknown option": (
        ["optimizer=adam"],
        "unknown option 'adam' of the group 'optimizer'\n"
        "  where: command line: optimizer=adam\n"
        f"  why:   options: {options('optimizer')}\n"
        "  fix:   optimizer._target_=torch.optim.Adam",
    ),
    "unknown option in a list": (
        ["callbacks=[default,early_stoping]"],
        "unknown option 'early_stoping' of the group 'callbacks'\n"
        "  where: command line: callbacks=[default,early_stoping]\n"
        f"  why:   options: {options('callbacks')}\n"
        "  fix:   callbacks=[default,early_stopping]",
    ),
    "an option that none is near": (
        ["data=svhn", "precision=fp7"],
        "unknown option 'svhn' of the group 'data'\n"
        "  where: command line: data=svhn\n"
        f"  why:   options: {options('data')}\n"
        "\n"
        "unknown option 'fp7' of the group 'precision'\n"
        "  where: command line: precision=fp7\n"
        f"  why:   options: {options('precision')}",
    ),
    "null": (
        ["logger=null"],
        "'logger=null' does not name an option of the group 'logger'\n"
        "  where: command line: logger=null\n"
        f"  why:   options: {options('logger')}\n"
        "  fix:   logger=none",
    ),
    "a switch": (
        ["debug=true"],
        "'debug=true' does not name an option of the group 'debug'\n"
        "  where: command line: debug=true\n"
        f"  why:   options: {options('debug')}\n"
        "  fix:   debug=fast",
    ),
    "a number that elsewhere is a precision": (
        ["precision=16"],
        "'precision=16' does not name an option of the group 'precision'\n"
        "  where: command line: precision=16\n"
        "  why:   options: bf16, bf16_true, fp16, fp16_true, fp32\n"
        "  fix:   precision=fp16",
    ),
    "Lightning's name of a precision": (
        ["precision=16-mixed"],
        "unknown option '16-mixed' of the group 'precision'\n"
        "  where: command line: precision=16-mixed\n"
        "  why:   options: bf16, bf16_true, fp16, fp16_true, fp32\n"
        "  fix:   precision=fp16",
    ),
    "a model that is torchvision's": (
        ["model=resnet50"],
        "unknown option 'resnet50' of the group 'model'\n"
        "  where: command line: model=resnet50\n"
        f"  why:   options: {options('model')}\n"
        "  fix:   model._target_=torchvision.models.resnet50",
    ),
    "a command as a key": (
        ["command=monitor"],
        "unknown key 'command'\n"
        "  where: command line: command=monitor\n"
        "  why:   the command is the first word\n"
        "  fix:   mlscale monitor",
    ),
    "null, beside a switch": (
        ["snapshot=false", "precision=null"],
        "'precision=null' does not name an option of the group 'precision'\n"
        "  where: command line: precision=null\n"
        "  why:   options: bf16, bf16_true, fp16, fp16_true, fp32",
    ),
    "two options without -m": (
        ["optimizer=sgd,adamw"],
        "optimizer=sgd,adamw names several options\n"
        "  where: command line: optimizer=sgd,adamw\n"
        "  fix:   -m optimizer=sgd,adamw, which runs one job for each",
    ),
    "two recipes": (
        ["recipe=[resnet,vit]"],
        "recipe=[resnet,vit] names several options\n"
        "  where: command line: recipe=[resnet,vit]\n"
        "  why:   one is built\n"
        "  fix:   -m recipe=resnet,vit, which runs one job for each",
    ),
    "a name in a list": (
        ["param_groups.backbone.lr=0.1"],
        "'param_groups' is a list, which has no 'backbone'\n"
        "  where: command line: param_groups.backbone.lr=0.1\n"
        "  why:   it is set as a whole",
    ),
    "several options of a group that holds several": (
        ["callbacks=default,ema"],
        "callbacks=default,ema names several options\n"
        "  where: command line: callbacks=default,ema\n"
        "  fix:   -m callbacks=default,ema, which runs one job for each\n"
        "         callbacks=[default,ema], to have them together",
    ),
    "nothing to delete": (
        ["~callbacks.progres"],
        "no 'callbacks.progres' to remove\n"
        "  where: command line: ~callbacks.progres\n"
        "  why:   mlscale config show prints what there is\n"
        "  fix:   ~callbacks.progress",
    ),
    "nothing near to delete": (
        ["~logger.mine"],
        "no 'logger.mine' to remove\n"
        "  where: command line: ~logger.mine\n"
        "  why:   mlscale config show prints what there is\n"
        "  fix:   leave ~logger.mine out",
    ),
    "another value than the one to delete": (
        ["~optimizer.lr=0.5"],
        "'optimizer.lr' is 0.1, not 0.5\n"
        "  where: command line: ~optimizer.lr=0.5\n"
        "  why:   ~key=value removes a key that has this value\n"
        "  fix:   ~optimizer.lr",
    ),
    "another value than the typed one to delete": (
        ["trainer.max_steps=20", "~trainer.max_steps=50"],
        "'trainer.max_steps' is 20, not 50\n"
        "  where: command line: ~trainer.max_steps=50\n"
        "  why:   ~key=value removes a key that has this value\n"
        "  fix:   ~trainer.max_steps",
    ),
    "a recipe twice": (
        ["recipe=tabular", "recipe=resnet"],
        "recipe is chosen 2 times\n"
        "  where: command line: recipe=tabular recipe=resnet\n"
        "  why:   one is built\n"
        "  fix:   leave recipe=tabular out",
    ),
    "a key that has no value": (
        ["~metric"],
        "no 'metric' to remove\n  where: command line: ~metric\n  why:   it has no value\n  fix:   leave ~metric out",
    ),
    "a group in a second place": (
        ["+optimizer@third=sgd"],
        "the config can't be composed\n"
        "  where: command line: optimizer@third=sgd\n"
        "  why:   Could not override 'optimizer@third'. Did you mean to override optimizer?",
    ),
    "a choice of options without -m": (
        ["optimizer=choice(sgd,adamw)"],
        "optimizer=choice(sgd,adamw) names several options\n"
        "  where: command line: optimizer=choice(sgd,adamw)\n"
        "  fix:   -m 'optimizer=choice(sgd,adamw)', which runs one job for each",
    ),
    "a choice of values without -m": (
        ["optimizer=adamw", "optimizer.lr=choice(0.1,0.2)"],
        "optimizer.lr=choice(0.1,0.2) is a sweep over several values\n"
        "  where: command line: optimizer.lr=choice(0.1,0.2)\n"
        "  why:   one job runs for each with -m\n"
        "  fix:   -m 'optimizer.lr=choice(0.1,0.2)', which runs one job for each",
    ),
    "an interval": (
        ["optimizer.lr=interval(0,1)"],
        "optimizer.lr=interval(0,1) is a sweep over several values\n"
        "  where: command line: optimizer.lr=interval(0,1)\n"
        "  why:   only a sweeper that searches draws from an interval: hydra/sweeper=optuna, with -m",
    ),
    "an item of a list": (
        ["model.widths[1]=8"],
        "'model.widths[1]=8' can't be read\n"
        "  where: command line\n"
        "  why:   model.widths.1=… sets one item, model.widths=[…] the whole list",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_message(name: str) -> None:
    words, message = CASES[name]
    with pytest.raises(MLScaleError) as caught:
        compose_config(parse_command_line("train", words))
    assert str(caught.value) == message


def test_a_key_that_is_filled_in_later_can_be_taken_away(capsys: pytest.CaptureFixture[str]) -> None:
    request = parse_command_line("train", ["~model.in_channels", "~trainer.devices", "optimizer=adamw"])
    cfg = compose_config(request)
    assert "in_channels" not in cfg.model
    assert "num_classes" in cfg.model
    assert "devices" not in cfg.trainer
    (problem,) = check_config(
        cfg, groups=request.roots.groups, origin=create_origin_lookup("train", request.overrides, request.roots)
    )
    assert problem.what == "'model.in_channels' is missing"
    assert problem.fix == "'model.in_channels=${derived.channels}'"
    run_by_hydra(
        parse_command_line("train", ["~model.in_channels", "--cfg", "job", "--package", "model"]),
        lambda cfg, words: None,
    )
    reported = capsys.readouterr().out
    assert "num_classes" in reported
    assert "in_channels" not in reported


@pytest.mark.parametrize(
    ("word", "unknown", "fix"),
    [
        ("optimizer=sgdd,adamw", ["sgdd"], "-m optimizer=sgd,adamw"),
        ("optimizer=choice(sgdd,adamww)", ["sgdd", "adamww"], "-m optimizer=sgd,adamw"),
        ("optimizer=adam,sgd", ["adam"], ""),  # a class of torch, not an option
        ("optimizer=sgd,xyz", ["xyz"], ""),
    ],
)
def test_every_option_of_a_sweep_exists(word: str, unknown: list[str], fix: str) -> None:
    with pytest.raises(MLScaleError) as caught:
        compose_config(parse_command_line("train", ["-m", "recipe=resnet", word]))
    problems = caught.value.list_problems()
    assert [problem.what.split("'")[1] for problem in problems] == unknown
    assert {problem.where for problem in problems} == {f"command line: {word}"}
    assert {problem.fix for problem in problems} == {fix}


def test_deletions_in_a_sweep(tmp_path: Path) -> None:
    words = ["~model.in_channels", "seed=1,2", "optimizer=sgd,adamw", f"runs_dir={tmp_path}"]
    jobs: list[list[str]] = []

    def job(cfg: DictConfig, overrides: list[str]) -> None:
        assert "in_channels" not in cfg.model
        jobs.append(overrides)

    register_sweep_dir()
    run_by_hydra(parse_command_line("train", ["-m", *words]), job)
    assert len(jobs) == 4
    assert not any("deleted" in word for overrides in jobs for word in overrides)


def test_deletions_that_are_wrong_are_reported_together() -> None:
    with pytest.raises(MLScaleError) as caught:
        compose_config(parse_command_line("train", ["~model.in_channels", "~model.filters", "~logger.mine"]))
    reported = [line for line in str(caught.value).splitlines() if not line.startswith(" ") and line]
    assert reported == ["no 'model.filters' to remove", "no 'logger.mine' to remove"]


def test_all_at_once() -> None:
    with pytest.raises(MLScaleError) as caught:
        compose_config(parse_command_line("train", ["recipe=resnt", "optimizer=adam", "logger=csvv"]))
    assert sorted(line for line in str(caught.value).splitlines() if "unknown" in line) == [
        "unknown option 'adam' of the group 'optimizer'",
        "unknown option 'csvv' of the group 'logger'",
        "unknown option 'resnt' of the group 'recipe'",
    ]


def test_broken_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf/model").mkdir(parents=True)
    (tmp_path / "conf/model/mine.yaml").write_text("a: [1\nb: 2\n")
    with pytest.raises(MLScaleError, match="not valid YAML") as caught:
        compose_config(parse_command_line("train", ["model=mine"]))
    assert "mine.yaml: line 2" in caught.value.where
