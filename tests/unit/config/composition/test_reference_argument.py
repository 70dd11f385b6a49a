"""The first argument of commands, and what is answered to keys that named a model before."""

import shlex
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import mlscale
from mlscale.assembly.ready import resolve_base_config
from mlscale.commands import COMMANDS
from mlscale.config.composition.argv import parse_command_line, replace_reference
from mlscale.config.composition.reference_argument import create_no_reference_error, restate_command
from mlscale.config.composition.request import Request
from mlscale.config.schema.model_arguments import REFERENCES
from mlscale.errors import MLScaleError
from mlscale.runs.folder import RunFolder


def request(line: str) -> Request:
    command, *words = shlex.split(line)
    return parse_command_line(command, words)


def refused(line: str) -> MLScaleError:
    with pytest.raises(MLScaleError) as raised:
        request(line)
    return raised.value


@pytest.mark.parametrize("command", REFERENCES)
def test_the_first_word_is_the_reference(command: str) -> None:
    assert COMMANDS[command].has_config
    for line in (f"{command} a@b output=json", f"{command} ref=a@b output=json", f"{command} output=json ref=a@b"):
        found = request(line)
        assert found.values == {"ref": "a@b", "output": "json"}
        assert set(found.typed) == {"ref=a@b", "output=json"}
        assert set(found.overrides) == {"++ref=a@b", "++output=json"}


@pytest.mark.parametrize(
    ("word", "override"),
    [
        ("resnet:v7", "++ref=resnet:v7"),
        ("http://127.0.0.1:8000", "++ref=http://127.0.0.1:8000"),
        ("1234", "++ref='1234'"),  # the beginning of an id is a text, whatever it looks like
        ("12e45", "++ref='12e45'"),
        ("true", "++ref='true'"),
        ("a b/c{d}.ckpt", "++ref='a b/c{d}.ckpt'"),
        ("${oc.env:MODEL}", "++ref=${oc.env:MODEL}"),
    ],
)
def test_any_word_is_a_text(word: str, override: str) -> None:
    assert parse_command_line("evaluate", [word]).overrides == (override,)


def test_a_path_that_exists_is_one_whatever_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "lr=0.1"
    with pytest.raises(MLScaleError, match="can't be read"):
        request(f"evaluate {folder}")  # an override, as far as can be reported
    folder.mkdir()
    assert request(f"evaluate {folder}").overrides == (f"++ref='{folder}'",)


def test_flags_may_come_before_it() -> None:
    found = request("evaluate -m last split=val,test")
    assert found.multirun
    assert found.overrides == ("++ref=last", "++split=val,test")


def test_a_key_that_is_typed_twice_counts_once_as_every_key_does() -> None:
    assert request("evaluate ref=a ref=b").values == {"ref": "b"}


def test_another_reference_takes_the_place_of_the_typed_one() -> None:
    found = replace_reference(request("evaluate last split=test"), "/runs/a=b")
    assert found.overrides == ("++split=test", "++ref='/runs/a=b'")
    assert (found.values["ref"], found.typed) == ("/runs/a=b", ("ref=last", "split=test"))


@pytest.mark.parametrize(
    ("line", "what", "fix"),
    [
        ("train last", "unknown word 'last'", ""),
        ("prepare last", "unknown word 'last'", ""),
        ("evaluate split=test last", "unknown word 'last'", "mlscale evaluate last split=test"),
        ("evaluate last resnet", "unknown word 'resnet'", "mlscale evaluate last"),
        ("predict last x.csv", "unknown word 'x.csv'", "input=x.csv"),
        ("evaluate split =test", "unknown word '=test'", ""),
        ("evaluate split = test", "unknown word 'split = test'", "split=test"),
        ("evaluate last ref=resnet", "2 models are named", "mlscale evaluate last"),
    ],
)
def test_words_that_are_not_the_reference(line: str, what: str, fix: str) -> None:
    error = refused(line)
    assert (error.what, error.fix) == (what, fix)


@pytest.mark.parametrize(
    ("line", "key", "fix"),
    [
        ("evaluate run=last", "run", "mlscale evaluate last"),
        ("evaluate split=test run=last", "run", "mlscale evaluate last split=test"),
        ("evaluate run=last checkpoint=last", "run", "mlscale evaluate last checkpoint=last"),
        ("evaluate version=resnet@champion", "version", "mlscale evaluate resnet@champion"),
        ("evaluate servable=models/digits", "servable", "mlscale evaluate models/digits"),
        ("evaluate checkpoint=runs/a/b.ckpt", "checkpoint", "mlscale evaluate runs/a/b.ckpt"),
        ("predict run=last input=photos to=preds", "run", "mlscale predict last input=photos to=preds"),
        ("predict version=resnet:v7 input=a to=b", "version", "mlscale predict resnet:v7 input=a to=b"),
        ("predict servable=models/digits input=a to=b", "servable", "mlscale predict models/digits input=a to=b"),
        ("predict checkpoint=best.ckpt input=a to=b", "checkpoint", "mlscale predict best.ckpt input=a to=b"),
        ("export run=last to=models/digits", "run", "mlscale export last to=models/digits"),
        ("export checkpoint=a/b.ckpt", "checkpoint", "mlscale export a/b.ckpt"),
        ("compress run=last compress=int8", "run", "mlscale compress last compress=int8"),
        ("compress 'run=a b'", "run", "mlscale compress 'a b'"),
        ("profile run=last", "run", "mlscale profile last"),
        ("estimate resume=last seed=1", "resume", "mlscale estimate last seed=1"),
        ("drill like=last launch=slurm", "like", "mlscale drill last launch=slurm"),
        ("verify-resume run=last", "run", "mlscale verify-resume last"),
        ("serve servable=resnet@champion port=0", "servable", "mlscale serve resnet@champion port=0"),
        ("monitor servable=resnet@champion", "servable", "mlscale monitor resnet@champion"),
        ("retrain servable=resnet events=events", "servable", "mlscale retrain resnet events=events"),
        ("retrain +servable=resnet", "servable", "mlscale retrain resnet"),
        # A key of one command is typed at another one, too: all of them are answered.
        ("monitor version=resnet@champion", "version", "mlscale monitor resnet@champion"),
        ("retrain version=resnet events=events", "version", "mlscale retrain resnet events=events"),
        ("serve run=last", "run", "mlscale serve last"),
        ("export version=resnet:v7", "version", "mlscale export resnet:v7"),
        ("loadtest url=http://127.0.0.1:8000", "url", "mlscale loadtest http://127.0.0.1:8000"),
        ("loadtest http://127.0.0.1:1 url=x users=2", "url", "mlscale loadtest http://127.0.0.1:1 users=2"),
        ("loadtest url=", "url", "mlscale loadtest http://127.0.0.1:8000"),
    ],
)
def test_an_old_key_is_answered_with_the_new_form(line: str, key: str, fix: str) -> None:
    error = refused(line)
    command = line.partition(" ")[0]
    assert (error.what, error.fix, error.exit) == (f"`mlscale {command}` takes no '{key}='", fix, 2)
    assert error.where.startswith("command line: ")
    assert error.why == "what a command works on is its first argument, or ref="
    request(fix.removeprefix("mlscale "))


@pytest.mark.parametrize(
    ("line", "fix"),
    [
        ("export last compress=int8", "mlscale compress last compress=int8"),
        ("evaluate runs/a compress=int8", "mlscale compress runs/a compress=int8"),
        ("predict ref=last compress=int8", "mlscale compress last compress=int8"),
        ("export last compress=none", "leave compress=none out"),
    ],
)
def test_what_compresses_nothing_takes_no_compression(line: str, fix: str) -> None:
    error = refused(line)
    assert (error.what, error.fix) == (f"`mlscale {line.partition(' ')[0]}` compresses nothing", fix)


def test_commands_that_never_had_an_old_key_do_not_know_it() -> None:
    assert request("train run=last").overrides == ("++run=last",)
    assert request("evaluate last checkpoint=/some/where.ckpt").values["checkpoint"] == "/some/where.ckpt"
    assert request("evaluate last checkpoint=step=4000").values["checkpoint"] == "step=4000"


@pytest.mark.parametrize("command", [name for name, takes in REFERENCES.items() if not takes.is_optional])
def test_a_command_without_what_it_works_on(command: str) -> None:
    for line in (command, f"{command} ref=", f"{command} ref=null"):
        with pytest.raises(MLScaleError, match=r"no (model|server) is named") as raised:
            resolve_base_config(request(line))
        assert raised.value.fix.startswith(f"mlscale {command} ")
    assert resolve_base_config(request(f"{command} --cfg job")).flags == ("--cfg", "job")


@pytest.mark.parametrize("command", [name for name, takes in REFERENCES.items() if takes.is_optional])
def test_a_command_that_trains_needs_no_run(command: str) -> None:
    assert resolve_base_config(request(f"{command} +recipe=resnet")).values == {"recipe": "resnet"}
    assert resolve_base_config(request(f"{command} +recipe=resnet ref=null")).values["ref"] == "null"


@pytest.mark.parametrize("command", [name for name, takes in REFERENCES.items() if not takes.needs_weights])
def test_a_command_that_trains_anew_takes_the_config_of_a_run_that_has_saved_nothing(
    command: str, folder: Path
) -> None:
    cfg = mlscale.compose(["+recipe=resnet", "model=mlp", "seed=7", "runs_dir=elsewhere", "init_from=null"])
    cfg.derived = dict.fromkeys(cfg.derived)
    run = RunFolder.create("runs", "mine", command="train", config_yaml=OmegaConf.to_yaml(cfg))
    for typed in ("last", run.id, str(run.path)):
        anew = mlscale.compose([typed, "trainer.max_epochs=2"], command=command)
        assert (anew.seed, anew.trainer.max_epochs, anew.runs_dir) == (7, 2, "runs")
        assert anew.model == cfg.model
        assert anew.trust is False
    with pytest.raises(MLScaleError, match="no run 'resnet'") as raised:
        mlscale.compose(["resnet"], command=command)
    assert raised.value.fix == f"mlscale {command} recipe=resnet"


def test_a_near_model_is_suggested_in_place_of_the_typed_one() -> None:
    error = MLScaleError("no run or model 'resent'", fix="ref=resnet")
    restate_command(error, "serve", ["ref=resent", "port=0"])
    assert error.fix == "mlscale serve resnet port=0"
    place = MLScaleError("no registry is set", fix="ref=<a run>")
    restate_command(place, "serve", ["ref=resent"])
    assert place.fix == "ref=<a run>"


def test_the_fix_of_a_missing_model_has_what_was_typed_and_what_else_is_needed() -> None:
    fix = create_no_reference_error("predict", ["last"], ["input=day.csv"]).fix
    assert fix == "mlscale predict last input=day.csv to=<a folder>"
    assert create_no_reference_error("compress", ["last"]).fix == "mlscale compress last compress=int8"
