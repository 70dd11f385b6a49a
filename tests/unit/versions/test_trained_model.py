"""A model that was found, with its run or as a servable; what it is not is reported, with the way to it."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from mlscale.errors import MLScaleError
from mlscale.versions import LocalRegistry
from mlscale.versions.from_run import publish_run
from mlscale.versions.from_servable import publish_servable
from mlscale.versions.model_reference import resolve_reference
from mlscale.versions.trained_model import TrainedModel, require_run_checkpoint, require_servable
from tests.unit.versions.conftest import Publish
from tests.unit.versions.test_from_run import trained

STORED = Path(__file__).parents[2] / "contract" / "examples" / "servable-1"


def servable(text: str | Path, registry: LocalRegistry | None, runs_dir: Path = Path("runs")) -> TrainedModel:
    return require_servable(resolve_reference(text, registry=registry, runs_dir=runs_dir), runs_dir)


def test_a_version_by_alias_and_by_number(registry: LocalRegistry) -> None:
    version = publish_servable(registry, STORED, name="resnet", aliases=("champion",)).version
    for text in ("resnet@champion", "resnet:v1", "resnet:latest", "resnet", str(version.path)):
        found = servable(text, registry)
        assert (found.servable, found.name, found.version) == (version.payload, "resnet", "resnet:v1")
        assert found.is_registered


def test_a_folder(registry: LocalRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "models" / "digits"
    shutil.copytree(STORED, place)
    digest = hashlib.sha256((STORED / "servable.yaml").read_bytes()).hexdigest()[:12]
    for text in (str(place), place):
        found = servable(text, None)
        assert (found.servable, found.name, found.version) == (place, "digits", f"digits:{digest}")
        assert not found.is_registered
    monkeypatch.chdir(place.parent)
    assert servable("digits", registry).servable == servable("./digits", None).servable == place


def test_a_run_that_was_exported(tmp_path: Path) -> None:
    run = trained(tmp_path, "best")
    with pytest.raises(MLScaleError, match="has no servable") as raised:
        servable("last", None, tmp_path / "runs")
    assert raised.value.fix == f"mlscale export {run.path.name}"
    shutil.copytree(STORED, run.path / "servable")
    found = servable("last", None, tmp_path / "runs")
    assert (found.servable, found.name, found.kind) == (run.path / "servable", "digits", "servable")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("resnet@champion", "no version of resnet is champion"),
        ("resnet:v1", "resnet:v1 is a checkpoint"),
        ("restnet", "no run or model 'restnet'"),
        ("no/such/folder", "no trained model in 'no/such/folder'"),
        ("a b@c", "names no version"),
    ],
)
def test_what_is_not_a_servable_is_reported(registry: LocalRegistry, publish: Publish, text: str, what: str) -> None:
    publish("weights", run={"id": "1n8q4m7zk3xp"})
    with pytest.raises(MLScaleError, match=what) as raised:
        servable(text, registry)
    if "checkpoint" in what:
        assert "mlscale export 1n8q4m7zk3xp" in raised.value.fix


def test_without_a_registry_there_are_folders_only() -> None:
    with pytest.raises(MLScaleError, match="no registry is set"):
        servable("resnet@champion", None)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"format: mlscale/servable/1", b"\xff\xfe\x00", b"format: mlscale/run/1"]
)
def test_a_document_that_says_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "servable.yaml").write_bytes(content)
    with pytest.raises(MLScaleError):
        servable(tmp_path, None)


def test_a_folder_of_a_later_format(tmp_path: Path) -> None:
    (tmp_path / "servable.yaml").write_text("format: mlscale/servable/3\nname: x\n")
    with pytest.raises(MLScaleError, match="later mlscale"):
        servable(tmp_path, None)


def its_run(text: str | Path, registry: LocalRegistry, folder: Path) -> TrainedModel:
    found = resolve_reference(text, registry=registry, runs_dir=folder / "runs")
    return require_run_checkpoint(found, "export", folder / "runs")


def test_commands_that_work_in_a_run_take_what_comes_from_one(registry: LocalRegistry, tmp_path: Path) -> None:
    run = trained(tmp_path, "best", "last")
    version = publish_run(registry, run).version
    best, last = (run.path / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    expected: dict[str, Any] = {"last": "best", str(last): str(last), version.ref: str(best)}
    for text, checkpoint in expected.items():
        found = its_run(text, registry, tmp_path)
        assert (found.run, found.checkpoint, found.open_run()) == (run.path, checkpoint, run)


def test_commands_that_work_in_a_run_refuse_the_rest(registry: LocalRegistry, tmp_path: Path) -> None:
    run = trained(tmp_path, "best")
    publish_run(registry, run)
    publish_servable(registry, STORED, name="digits")
    with pytest.raises(MLScaleError, match="digits:v1 is a servable, not a run or a checkpoint") as raised:
        its_run("digits:v1", registry, tmp_path)
    assert raised.value.fix == "ref=last"
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in (run.path / "checkpoints" / "best.ckpt", run.path / "config.yaml"):
        shutil.copy(file, copy)
    with pytest.raises(MLScaleError, match="the checkpoint is not in a run's folder") as raised:
        its_run(copy / "best.ckpt", registry, tmp_path)
    assert raised.value.fix == f"mlscale export <the run that it is of> checkpoint={copy}/best.ckpt"
    run.discard_run()
    with pytest.raises(MLScaleError, match="the run that resnet:v1 comes from is not there"):
        its_run("resnet:v1", registry, tmp_path)
