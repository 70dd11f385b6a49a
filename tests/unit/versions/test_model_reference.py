"""Every form of a reference names one model, or is refused with what to type."""

import os
import shutil
import time
from pathlib import Path

import pytest

from mlscale.assembly.ready import resolve_base_config
from mlscale.config.composition.argv import parse_command_line
from mlscale.errors import MLScaleError
from mlscale.runs.folder import RunFolder
from mlscale.versions import LocalRegistry
from mlscale.versions.from_run import publish_run
from mlscale.versions.from_servable import publish_servable
from mlscale.versions.model_reference import resolve_reference
from mlscale.versions.trained_model import TrainedModel
from tests.unit.versions.test_from_run import trained

STORED = Path(__file__).parents[2] / "contract" / "examples" / "servable-1"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run of `resnet` in a project's folder, which is the working folder."""
    monkeypatch.chdir(tmp_path)
    return trained(tmp_path, "best", "last")


def resolve(text: str | Path, checkpoint: str | None = None) -> TrainedModel:
    return resolve_reference(text, runs_dir="runs", registry=LocalRegistry("registry"), checkpoint=checkpoint)


def refused(text: str | Path, checkpoint: str | None = None) -> MLScaleError:
    with pytest.raises(MLScaleError) as raised:
        resolve(text, checkpoint)
    assert raised.value.exit == 2
    return raised.value


def test_a_command_without_a_model_names_those_that_are_here(run: RunFolder) -> None:
    publish_run(LocalRegistry("registry"), run, name="net")
    for command, fix in (("serve", "mlscale serve net:latest"), ("export", "mlscale export last")):
        with pytest.raises(MLScaleError, match="no model is named") as caught:
            resolve_base_config(parse_command_line(command, []))
        assert caught.value.fix == fix
    LocalRegistry("registry").promote("net:v1")
    with pytest.raises(MLScaleError, match="no model is named") as caught:
        resolve_base_config(parse_command_line("evaluate", []))
    assert caught.value.fix == "mlscale evaluate last\nmlscale evaluate net@champion"


def test_a_run_by_every_name(run: RunFolder) -> None:
    relative = run.path.relative_to(Path.cwd())
    names = ("last", run.id, run.path.name, run.id[:9], "res", str(run.path), str(relative), run.path)
    for text in (*names, f"./{relative}", f"{relative}/", relative / "run.json"):
        found = resolve(text)
        assert (found.kind, found.path, found.run, found.home, found.checkpoint) == ("run", *[run.path] * 3, "best")
    assert (found.label, found.name, found.version) == (run.path.name, "resnet", run.path.name)
    assert resolve("last", "last").checkpoint == "last"
    assert resolve("last", "/elsewhere/x.ckpt").checkpoint == "/elsewhere/x.ckpt"


def test_a_run_below_the_home_folder(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(Path.cwd()))
    assert resolve(f"~/{run.path.relative_to(Path.cwd())}").path == run.path


def test_the_folder_of_a_run_from_next_to_it(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.path.parent)
    assert resolve(run.path.name).path == run.path
    monkeypatch.chdir(run.path)
    assert resolve(".").path == run.path


def test_a_checkpoint_by_its_path(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = run.path / "checkpoints" / "last.ckpt"
    for text in (file, str(file), os.path.relpath(file)):
        found = resolve(text)
        assert (found.kind, found.path, found.run, found.checkpoint) == ("checkpoint", file, run.path, str(file))
    monkeypatch.chdir(file.parent)
    assert resolve("last.ckpt").path == file
    renamed = tmp_path / "weights"
    shutil.copy(file, renamed)
    assert "neither in a run's folder nor next to a config.yaml" in refused(renamed).why


def test_a_version_by_every_name(run: RunFolder) -> None:
    registry = LocalRegistry("registry")
    version = publish_run(registry, run, name="net", aliases=("challenger",)).version
    for text in ("net", "net:v1", "net:latest", "net@challenger", str(version.path), os.path.relpath(version.path)):
        found = resolve(text)
        assert (found.kind, found.path, found.version, found.run) == ("version", version.path, "net:v1", None)
        assert (found.home, found.checkpoint) == (version.payload, str(version.payload / "model.ckpt"))
    publish_servable(registry, STORED, name="net", aliases=("champion",))
    champion = resolve("net")
    assert (champion.version, champion.servable, champion.checkpoint) == (
        "net:v2",
        registry.resolve_version("net:v2").payload,
        None,
    )


def test_the_files_of_a_version_are_compared_with_their_digests_on_demand(run: RunFolder) -> None:
    version = publish_run(LocalRegistry("registry"), run).version
    file = version.payload / "config.yaml"
    file.chmod(0o600)
    file.unlink()
    file.write_text("seed: 9\n")
    assert resolve("resnet:v1").version == "resnet:v1"
    for text in ("resnet:v1", version.path):
        with pytest.raises(MLScaleError, match="resnet:v1 is corrupt"):
            resolve_reference(text, registry=LocalRegistry("registry"), verify=True)


def test_the_folder_of_a_servable(run: RunFolder) -> None:
    shutil.copytree(STORED, "digits")
    for text in ("digits", "./digits", Path("digits"), "digits/servable.yaml", Path("digits").absolute()):
        found = resolve(text)
        assert (found.kind, found.path, found.servable) == ("servable", *[Path("digits").absolute()] * 2)


def test_one_line_reports_what_it_is(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    version = publish_run(LocalRegistry("registry"), run, name="net").version
    shutil.copytree(STORED, "digits")
    where = run.path.relative_to(Path.cwd())
    lines = {
        "last": f"the run {where}",
        f"{where}/checkpoints/last.ckpt": f"the checkpoint {where}/checkpoints/last.ckpt of the run {run.path.name}",
        "net": "the version net:v1, a checkpoint in registry/versions/net/v1",
        "digits": f"the servable digits, {resolve('digits').version}",
    }
    capsys.readouterr()
    for text, line in lines.items():
        resolve(text)
        assert capsys.readouterr() == ("", f"model     {text}: {line}\n")
    resolve(version.path)  # nothing to report of what says all itself
    resolve_reference("last", quiet=True)
    assert capsys.readouterr() == ("", "")


def test_the_beginning_of_several_runs_lists_them(run: RunFolder) -> None:
    time.sleep(0.04)
    other = trained(Path.cwd(), "best")
    error = refused("resnet")
    assert error.what == "'resnet' means 2 models"
    places = {os.path.relpath(each.path) for each in (run, other)}
    assert {line.split()[0] for line in error.fix.splitlines()} == places
    assert {resolve(place).path for place in places} == {run.path, other.path}


def test_a_registered_model_of_nearly_this_name_comes_first(run: RunFolder) -> None:
    time.sleep(0.04)
    trained(Path.cwd(), "best")
    publish_run(LocalRegistry("registry"), run, name="resnets")
    error = refused("resnet")
    assert error.fix.splitlines()[0].split() == ["resnets", "the", "registered", "model", "resnets"]
    assert resolve("resnets").version == "resnets:v1"


def test_a_whole_name_goes_before_the_beginning_of_one(run: RunFolder) -> None:
    publish_run(LocalRegistry("registry"), run, name="resnet")
    assert resolve("resnet").version == "resnet:v1"  # and the run is called resnet-…


def test_a_folder_that_is_called_as_a_model_is(run: RunFolder) -> None:
    shutil.copytree(STORED, "resnet")
    assert resolve("resnet").kind == "servable"
    registry = LocalRegistry("registry")
    publish_run(registry, run, name="resnet")
    error = refused("resnet")
    assert (error.what, error.where) == ("'resnet' means 2 models", "ref=resnet")
    folder, version = error.fix.splitlines()
    assert folder.startswith("./resnet ")
    assert folder.endswith(f"the servable resnet, {resolve('./resnet').version}")
    assert version.startswith("registry/versions/resnet/v1  the version resnet:v1, a checkpoint")
    registry.promote("resnet:v1")
    assert refused("resnet").fix.splitlines()[1].startswith("resnet@champion ")
    typed = [resolve(line.split()[0]).kind for line in refused("resnet").fix.splitlines()]
    assert typed == ["servable", "version"]


def test_a_folder_that_is_called_as_a_version_is(run: RunFolder) -> None:
    shutil.copytree(STORED, "resnet:v1")
    assert resolve("resnet:v1").kind == "servable"
    publish_run(LocalRegistry("registry"), run, name="resnet")
    typed = [line.split()[0] for line in refused("resnet:v1").fix.splitlines()]
    assert typed == ["./resnet:v1", "registry/versions/resnet/v1"]
    assert [resolve(text).kind for text in typed] == ["servable", "version"]


def test_a_model_that_is_called_last(run: RunFolder) -> None:
    publish_run(LocalRegistry("registry"), run, name="last", aliases=("champion",))
    typed = [line.split()[0] for line in refused("last").fix.splitlines()]
    assert typed == [str(run.path.relative_to(Path.cwd())), "last@champion"]


def test_a_file_or_folder_that_is_no_model_does_not_count(run: RunFolder) -> None:
    Path("last").mkdir()
    Path("res").write_text("a file")
    assert resolve("last").path == resolve("res").path == run.path


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        ("nothing", "no run or model 'nothing'", "mlscale runs ls\nmlscale versions ls"),
        ("nat", "no run or model 'nat'", "ref=net"),
        ("lats", "no run or model 'lats'", "ref=last"),
        ("", "no run or model ''", "mlscale runs ls\nmlscale versions ls"),
        ("net:v9", "net has no version v9", "mlscale versions ls net"),
        ("net:9", "'net:9' names no version", "net:v9"),
        ("net:V01", "'net:V01' names no version", "net:v1"),
        ("net:version1", "'net:version1' names no version", "net:v1"),
        ("net:champion", "'net:champion' names no version", "net@champion"),
        ("./empty", "no trained model in './empty'", "mlscale runs ls\nmlscale versions ls"),
        ("a/b.ckpt", "checkpoint not found", "mlscale runs checkpoints last"),
        ("~nobody/x", "no trained model in '~nobody/x'", "mlscale runs ls\nmlscale versions ls"),
    ],
)
def test_what_names_nothing(run: RunFolder, text: str, what: str, fix: str) -> None:
    Path("empty").mkdir()
    publish_run(LocalRegistry("registry"), run, name="net")
    error = refused(text)
    assert (error.what, error.fix) == (what, fix)


def test_an_error_names_the_setting_that_holds_the_reference(run: RunFolder) -> None:
    publish_run(LocalRegistry("registry"), run, name="net")
    for text, fix in (("nat", "against=net"), ("a/b.ckpt", "mlscale runs checkpoints last")):
        with pytest.raises(MLScaleError) as caught:
            resolve_reference(text, registry=LocalRegistry("registry"), key="against")
        assert caught.value.where.startswith(f"against={text}")
        assert caught.value.fix == fix


@pytest.mark.parametrize("text", ["last", "resnet"])
def test_nothing_here_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    error = refused(text)
    assert (error.what, error.where) == ("no runs found", "runs")


def test_the_last_run_where_only_versions_are(run: RunFolder) -> None:
    publish_run(LocalRegistry("registry"), run)
    run.discard_run()
    assert refused("last").what == "no runs found"
    assert resolve("resnet").version == "resnet:v1"


def test_a_sweep(run: RunFolder) -> None:
    sweep = Path("runs", "2026-01-01", "grid-000000000009").absolute()
    sweep.mkdir(parents=True)
    trained(Path.cwd(), sweep=sweep)
    assert refused("000000000009").what == "'000000000009' is a sweep, not a run"


@pytest.mark.parametrize("text", ["net", "digits"])
def test_a_checkpoint_is_chosen_of_a_run_alone(run: RunFolder, text: str) -> None:
    publish_run(LocalRegistry("registry"), run, name="net")
    shutil.copytree(STORED, "digits")
    assert resolve(text, "best").path == resolve(text).path
    error = refused(text, "last")
    assert error.what == f"checkpoint=last chooses among a run's checkpoints, and {text} is one model"
    assert error.fix == "leave checkpoint out, or name the run"
