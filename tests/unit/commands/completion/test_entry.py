"""Shell completion: what is offered, how fast, and that bash takes it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlscale.commands import COMMANDS
from mlscale.commands.completion.entry import SCRIPTS, complete_words, main
from mlscale.config.schema.roots import find_roots
from mlscale.errors import MLScaleError
from mlscale.versions import LocalRegistry

ROOT = Path(__file__).resolve().parents[4]
PROGRAMS = Path(sys.executable).parent


def ask(*words: str) -> list[str]:
    return complete_words(words, find_roots())


def names(*folders: str) -> list[str]:
    found = sorted(file.stem for folder in folders for file in (ROOT / folder).glob("*.yaml"))
    assert len(found) > 3
    return found


def test_the_first_word_is_a_command_or_an_override() -> None:
    assert set(COMMANDS) <= set(ask(""))
    assert {"recipe=", "optimizer=", "optimizer.", "seed="} <= set(ask(""))
    assert ask("eva") == ["evaluate"]


def test_groups_offer_their_options() -> None:
    assert ask("optimizer=") == [f"optimizer={name}" for name in names("conf/optimizer", "recipes/optimizer")]
    assert ask("train", "precision=bf") == ["precision=bf16", "precision=bf16_true"]
    assert ask("+recipe=res") == ["+recipe=resnet"]
    assert "base=" not in ask("ba")


def test_lists_offer_what_is_not_in_them_yet() -> None:
    offered = ask("logger=[csv,")
    assert "logger=[csv,wandb" in offered
    assert "logger=[csv,csv" not in offered


def test_keys_come_from_the_files() -> None:
    assert "data.batch_size=" in ask("data.b")
    assert "trainer.max_epochs=" in ask("trainer.max")
    assert "optimizer.betas=" in ask("optimizer.b")
    assert "optimizer.params=" not in ask("optimizer.p"), "the code supplies it"
    assert ask("seed=") == []


def test_other_commands_offer_actions_then_names_and_keys() -> None:
    assert ask("config", "") == ["check", "schema", "show"]
    assert ask("config", "show", "optimizer=a") == ["optimizer=adamw", "optimizer=adamw_8bit"]
    assert ask("recipes", "show", "") == sorted(["output=", *names("recipes/recipe")])
    assert ask("completion", "") == ["bash", "fish", "output=", "zsh"]


def test_keys_of_other_commands_and_their_values() -> None:
    assert ask("runs", "ls", "") == ["limit=", "output=", "runs_dir="]
    assert ask("runs", "rm", "last", "yes=") == ["yes=false", "yes=true"]
    assert ask("versions", "add", "last", "checkpoint=") == ["checkpoint=best", "checkpoint=last"]
    assert ask("env", "out") == ["output="]
    assert ask("config", "check", "command=ev") == ["command=evaluate"]
    assert ask("config", "show", "command=serve", "por") == ["port="]
    assert ask("init", "my-net", "") == ["output=", "to="]


def test_the_first_argument_is_a_run_or_a_version_that_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert ask("evaluate", "las") == ["last"]
    for name in ("resnet-1s6a9x6r5akn", "mlp-1s6b000000aa"):
        (tmp_path / "runs" / "2026-01-05" / name).mkdir(parents=True)
        (tmp_path / "runs" / "2026-01-05" / name / "run.json").touch()
    (tmp_path / "model").touch()
    LocalRegistry("registry").publish("resnet", {"m": tmp_path / "model"}, kind="servable", aliases=("champion",))
    versions = ["resnet", "resnet:latest", "resnet:v1", "resnet@champion"]
    assert ask("evaluate", "resn") == [*versions[:1], "resnet-1s6a9x6r5akn", *versions[1:]]
    assert ask("serve", "resnet@") == ["resnet@champion"]
    assert ask("export", "1s6b") == ["1s6b000000aa"]
    assert ask("evaluate", "ref=ml") == ["ref=mlp-1s6b000000aa"]
    assert ask("evaluate", "last", "against=resnet:v") == ["against=resnet:v1"]
    assert {"last", "ref=", "split="} <= set(ask("evaluate", ""))
    assert ask("evaluate", "last", "las") == []
    assert ask("loadtest", "http") == ["http://127.0.0.1:8000"]
    assert ask("train", "resnet@") == []


@pytest.mark.parametrize("command", [name for name, each in COMMANDS.items() if not each.has_config])
def test_every_action_is_offered(command: str) -> None:
    actions = COMMANDS[command].actions
    if "" not in actions:
        assert ask(command, "") == sorted(actions)
    for action in actions:
        offered = ask(command, *([action] if action else []), "")
        assert {f"{key.name}=" for key in actions[action].keys} <= set(offered)


def test_flags() -> None:
    assert ask("--conf") == ["--config-dir"]


def test_own_groups_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "conf" / "model" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("width: 3  # int\n")
    monkeypatch.chdir(tmp_path)
    assert ask("model=mi") == ["model=mine"]
    assert "model.width=" in ask("model=mine", "model.w")


def test_an_unknown_shell_is_refused() -> None:
    with pytest.raises(MLScaleError, match="no completion for the shell 'tcsh'"):
        main(["tcsh"])


def test_it_imports_nothing_heavy() -> None:
    code = (
        "import sys; from mlscale.commands.completion.entry import main; main(['query', '--', 'trainer.'])\n"
        "assert not {'torch', 'hydra', 'omegaconf', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("shell", SCRIPTS)
def test_scripts_parse(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    assert main([shell]) == 0
    script = capsys.readouterr().out
    subprocess.run([program, "-n", "/dev/stdin"], input=script, text=True, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("mlscale eva", ["evaluate"]),
        ("mlscale optimizer=a", ["adamw", "adamw_8bit"]),
        ("mlscale config ", ["check", "schema", "show"]),
        ("mlscale evaluate las", ["last"]),
        ("mlscale loadtest http:", ["//127.0.0.1:8000"]),
        ("mlscale +recipe=resnet logger=[csv,te", ["[csv,tensorboard"]),
    ],
)
def test_bash_completes(line: str, expected: list[str]) -> None:
    code = f"""{SCRIPTS["bash"]}
COMP_LINE={line!r}; COMP_POINT=${{#COMP_LINE}}
_mlscale mlscale
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    env = {**os.environ, "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"}
    run = subprocess.run(["bash", "-c", code], env=env, capture_output=True, text=True)
    assert run.stderr == ""
    assert run.stdout.split() == expected
