"""The command line: what each command prints where, its exit code, and what it leaves behind."""

import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from mlscale.cli import main
from mlscale.commands import COMMANDS
from tests.conftest import runs_in

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "hydra", "omegaconf", "pytorch_lightning", "numpy", "wandb")
HELP = [
    ["--help"],
    ["-h"],
    *([verb, "--help"] for verb in COMMANDS),
    *([name, action, "--help"] for name, command in COMMANDS.items() for action in command.actions if action),
]


def imported_by(commands: list[list[str]], cwd: Path) -> list[tuple[int, str, list[str]]]:
    """Run commands in one fresh process, in turn: exit code, what it said, the heavy modules loaded by then."""
    code = dedent(f"""
        import contextlib, io, json, sys
        from mlscale.cli import main
        for words in json.loads(sys.argv[1]):
            said = io.StringIO()
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                try:
                    code = main(words)
                except SystemExit as stop:
                    code = stop.code or 0
            print(json.dumps([code, said.getvalue(), [name for name in {HEAVY} if name in sys.modules]]))
        """)
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(commands)], cwd=cwd, capture_output=True, text=True, check=True
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(commands)
    return [(code, printed, modules) for code, printed, modules in results]


def test_help_at_every_level_is_light_and_has_examples(folder: Path) -> None:
    results = imported_by(HELP, folder)
    for words, (code, printed, modules) in zip(HELP, results, strict=True):
        assert code == 0, (words, printed)
        assert modules == [], words
        assert "mlscale" in printed
        assert len(printed.splitlines()) > 4, words
    listed = re.findall(r"^  (\S+) +\S.*$", results[0][1].partition("\ntrain: ")[2], flags=re.MULTILINE)
    assert listed == list(COMMANDS)
    for command, (_, printed, _) in zip(COMMANDS, results[2:], strict=False):
        assert COMMANDS[command].examples[0][0] in printed, command
    assert list(folder.iterdir()) == []


def test_a_typo_needs_no_torch_and_leaves_nothing(folder: Path) -> None:
    wrong = [
        ["+recipe=resnet", "trainer.devcies=8"],
        ["+recipe=resnet", "+optimizer.lrr=8"],
        ["+recipe=resnett"],
        ["+recipe=resnet", "optimizer=adam"],
        ["+recipe=resnet", "trainer.max_epochs=many"],
        ["+recipe=resnet", "gpus=8"],
        ["trian"],
        ["--colour"],
        ["-m", "+recipe=resnet", "optimizer=adam,sgd"],
    ]
    for words, (code, printed, modules) in zip(wrong, imported_by(wrong, folder), strict=True):
        assert code == 2, (words, printed)
        assert printed.count("error: ") == 1, printed
        assert "Traceback" not in printed
        assert not {"torch", "pytorch_lightning", "numpy", "wandb"} & set(modules), words
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "code", "printed"),
    [
        (["trian"], 2, "fix:   mlscale train"),
        (["evalute", "last", "split=test"], 2, "fix:   mlscale evaluate last split=test\n"),
        (["fit", "--trainer.max_epochs=1"], 2, "fix:   mlscale train trainer.max_epochs=1\n"),
        (["finetune", "last"], 2, "fix:   mlscale --help\n"),
        (["+recipe=resnet", "activation_checkpointing=selective"], 2, "third more time; see docs/configuration.md\n"),
        (["+recipe=resnet", "trainer.accelerator=cuda:1"], 2, "CUDA_VISIBLE_DEVICES picks them; see"),
        (["resume", "1s2de0"], 2, "fix:   mlscale runs resume 1s2de0\n"),
        (["evaluate", "ref=last", "last", "worst=3"], 2, "fix:   mlscale evaluate last worst=3\n"),
        (["recipes", "cp", "resnt", "mine"], 2, "fix:   mlscale recipes cp resnet mine\n"),
        (["evaluate"], 2, "fix:   mlscale evaluate last\n         mlscale evaluate resnet@champion\n"),
        (
            ["debug", "fast"],
            2,
            "'debug' is a setting, not a command\n  where: command line\n  fix:   mlscale +recipe=<recipe> debug=fast",
        ),
        (["precision", "half"], 2, "fix:   mlscale +recipe=<recipe> precision=<bf16|"),
        (["recipe", "resnet"], 2, "fix:   mlscale recipe=resnet"),
        (["data=webdataset", "data.val=b.tar"], 2, "data.train"),
        (["+recipe=resnet", "data.batch_size=60", "trainer.devices=8"], 2, "does not divide by 8"),
        (["+recipe=resnet", "optimizer.lr=0.1,0.01"], 2, "-m optimizer.lr=0.1,0.01"),
        (["evaluate", "nowhere"], 2, "no runs found"),
        (["+recipe=resnet", "trainer.accelerator=mps"], 2, "this machine has no mps device"),
    ],
)
def test_exit_code_and_remedy(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, printed: str
) -> None:
    assert main(words) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert printed in err
    assert "Traceback" not in err
    assert list(folder.iterdir()) == []


def test_a_folder_that_cant_be_written_to_is_reported_first(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "keys.py").write_text("API_KEY = 'sk-proj-abcdefghijklmnopqrstuvwx'\n")  # the snapshot would speak of it
    assert main(["+recipe=resnet", "debug=fast", "runs_dir=keys.py/runs"]) == 5
    printed = capsys.readouterr().err
    assert printed.startswith("error: can't write runs\n")
    assert "why:   Not a directory\n  fix:   runs_dir=<a folder" in printed
    assert [path.name for path in folder.iterdir()] == ["keys.py"]


def test_a_count_of_classes_that_disagrees_leaves_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["+recipe=resnet", "model=mlp", "model.num_classes=7", "snapshot=false"]) == 2
    assert "the model gives 7 logits and the task has 10 classes" in capsys.readouterr().err
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("devices", [1, 2])
def test_a_model_that_does_not_build_leaves_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], devices: int
) -> None:
    model = ["model=none", "model._target_=torch.nn.Conv2d", "model.in_channels=5", "model.out_channels=3"]
    wrong = [*model, "model.kernel_size=3", "model.groups=2"]  # only the constructor says that 2 does not divide 5
    assert main(["+recipe=resnet", *wrong, "debug=fast", f"trainer.devices={devices}"]) == 2
    assert "in_channels must be divisible by groups" in capsys.readouterr().err
    assert list(folder.iterdir()) == []


def test_a_secret_of_the_wrong_type_is_not_shown(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXT", "ten")
    monkeypatch.setenv("API_TOKEN", "q7w8e9")
    assert main(["+recipe=resnet", "trainer.max_epochs=${oc.env:TEXT}", "data.batch_size=${oc.env:API_TOKEN}"]) == 2
    printed = capsys.readouterr().err
    assert "'trainer.max_epochs' must be int or null, ${oc.env:TEXT} is the text 'ten'" in printed
    assert "'data.batch_size' must be int" in printed
    assert "q7w8e9" not in printed
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["a{b}", "a?b", "a&b", "a#b", "a,b", "a b", "it's", "{a,b}", "a[1]", "a=b", "a:b", "ä"]
)
def test_any_path_reaches_the_data(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    path = folder / name / "train"
    assert main(["+recipe=resnet", "data=imagefolder", f"data.root={path}"]) == 2
    assert str(path) in capsys.readouterr().err
    assert list(folder.iterdir()) == []


def test_json_alone_on_stdout(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["+recipe=resnet", "model=mlp", "debug=fast", "snapshot=false", "output=json"]) == 0
    out, err = capfd.readouterr()
    document = json.loads(out)
    assert (document["verb"], document["ok"], document["metrics"]["steps"]) == ("train", True, 1)
    (run,) = runs_in(folder)
    assert document["artifacts"]["run"] == str(run)
    assert f"run       {run}" in err
    assert document["overrides"][-1] == "output=json"
    assert main(["evaluate", "last"]) == 0
    assert not capfd.readouterr().out.startswith("{")  # how the training printed is not how another command does
    assert main(["evaluate", "last", "output=json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["metrics"]["val/accuracy"] >= 0
    saved = json.loads((run / "results/evaluate.json").read_text())
    assert document["overrides"] == saved["overrides"] == ["ref=last", "output=json"]
    assert {path.name for path in folder.iterdir()} == {"runs"}


FLAGS = {
    "--cfg job": ["_target_: mlscale.tasks.ResNet", "lr: ${optimizer.lr}"],
    "--cfg job --resolve --package optimizer": ["lr: 0.1"],
    "--info searchpath": ["mlscale-recipes"],
    "--info defaults": ["recipe/resnet"],
    "--info defaults-tree": ["recipe: resnet:"],
    "--hydra-help": ["--multirun"],
    "--cfg job --config-dir mine model=tiny": ["width: 3"],
}


@pytest.fixture
def logging_restored() -> Iterator[None]:
    """Hydra sets up the root logger for its flags; a command's process ends then, a test's does not."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("logging_restored")
@pytest.mark.parametrize("flags", FLAGS)
def test_hydras_own_flags(folder: Path, capsys: pytest.CaptureFixture[str], flags: str) -> None:
    mine = folder / "mine/model"
    mine.mkdir(parents=True)
    (mine / "tiny.yaml").write_text("_target_: mlscale.tasks.MLP\nwidth: 3\n")
    assert main(["+recipe=resnet", *flags.split()]) == 0
    out = capsys.readouterr().out
    for text in FLAGS[flags]:
        assert text in out
    assert {path.name for path in folder.iterdir()} == {"mine"}


def test_help_in_front_of_a_command_is_the_commands(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["help", "evaluate"], ["help"], ["-V"]):
        assert main(words) == 0
    out = capsys.readouterr().out
    assert out.startswith("mlscale evaluate: ")
    assert "\ntrain: start a project" in out
    assert out.splitlines()[-1].startswith("mlscale 0.")


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ("help rums", "mlscale runs"),
        ("help last", "mlscale --help"),
        ("prepare out=shards", "to=shards"),
        ("serve last trainer.devices=2", "leave trainer.devices out"),
    ],
)
def test_a_fix_that_the_next_command_takes(
    folder: Path, capsys: pytest.CaptureFixture[str], words: str, fix: str
) -> None:
    assert main(words.split()) == 2
    assert f"\n  fix:   {fix}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "printed"),
    [
        ("mode=maximum", "'mode' must be max or min, not the text 'maximum'\n"),
        ("output=yaml", "'output' must be table or json, not the text 'yaml'\n"),
        ("data.sampling=blanced", "'data.sampling' must be shuffle or balanced or weighted, not the text 'blanced'\n"),
        ("data.on_bad_sample=ignore", "'data.on_bad_sample' must be fail or skip, not the text 'ignore'\n"),
    ],
)
def test_a_value_that_is_none_of_the_few(
    folder: Path, capsys: pytest.CaptureFixture[str], word: str, printed: str
) -> None:
    assert main(["+recipe=resnet", word]) == 2
    assert printed in capsys.readouterr().err
    assert list(folder.iterdir()) == []


def test_console_script_and_module_are_the_same(folder: Path) -> None:
    script = Path(sys.executable).with_name("mlscale")
    for words in (["--version"], ["+recipe=resnet", "--cfg", "job"], ["+recipe=resnet", "trainer.devcies=8"]):
        printed = [
            subprocess.run([*start, *words], cwd=folder, capture_output=True, text=True)
            for start in ([script], [sys.executable, "-m", "mlscale"])
        ]
        assert printed[0].returncode == printed[1].returncode
        assert (printed[0].stdout, printed[0].stderr) == (printed[1].stdout, printed[1].stderr)
    assert list(folder.iterdir()) == []


def test_a_word_that_is_no_text_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--config-dir", "name=\udcff"]) == 2
    assert "--config-dir does not exist: name=\\udcff" in capsys.readouterr().err


def test_a_misspelt_key_of_config_show_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """A config with unknown keys is shown, so `orign=true` would be printed as one of them."""
    assert main(["config", "show", "+recipe=tabular", "orign=true"]) == 2
    assert "fix:   origin=true" in capsys.readouterr().err
    assert main(["config", "show", "+recipe=tabular", "resume=last", "seed"]) == 0  # no `resolve`: a key of the config
    assert capsys.readouterr().out == "seed: 0\n"


@pytest.mark.parametrize("words", [["config", "check"], ["runs", "ls"], ["env"], ["+recipe=resnet", "debug=fast"]])
def test_an_address_as_the_cache_is_refused_by_every_command(
    words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLSCALE_CACHE", "s3://bucket/cache")
    assert main(words) == 2
    printed = capsys.readouterr()
    assert "MLSCALE_CACHE takes a path of this machine" in printed.err
    assert printed.out == ""
    assert main([*words[:1], "--help"]) == 0
    assert list(folder.iterdir()) == []
