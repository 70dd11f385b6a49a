"""What a command names is a version or a folder; what is no servable is told, with the way to one."""

import hashlib
import shutil
from pathlib import Path

import pytest

from mlscale.errors import MLScaleError
from mlscale.versions import LocalRegistry
from mlscale.versions.from_servable import publish_servable
from mlscale.versions.servable_path import locate
from tests.unit.versions.conftest import Publish

STORED = Path(__file__).parents[2] / "contract" / "examples" / "servable-1"


def test_a_version_by_alias_and_by_number(registry: LocalRegistry) -> None:
    version = publish_servable(registry, STORED, name="resnet", aliases=("champion",)).version
    for text in ("resnet@champion", "resnet:v1", "resnet:latest", "resnet"):
        found = locate(text, registry)
        assert (found.folder, found.name, found.ref, found.version) == (version.payload, "resnet", *["resnet:v1"] * 2)


def test_a_folder(registry: LocalRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "models" / "digits"
    shutil.copytree(STORED, place)
    digest = hashlib.sha256((STORED / "servable.yaml").read_bytes()).hexdigest()[:12]
    for text in (str(place), place):
        found = locate(text, None)
        assert (found.folder, found.name, found.ref, found.version) == (place, "digits", None, f"digits:{digest}")
    monkeypatch.chdir(place.parent)
    assert locate("digits", registry).folder == locate("./digits", None).folder == place


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("resnet@champion", "no version of resnet is champion"),
        ("resnet:v1", "resnet:v1 is a checkpoint"),
        ("restnet", "no model 'restnet'"),
        ("no/such/folder", "this is no servable: it has no servable.yaml"),
        ("a b@c", "names no version"),
    ],
)
def test_what_is_no_servable_is_told(registry: LocalRegistry, publish: Publish, text: str, what: str) -> None:
    publish("weights", run={"id": "1n8q4m7zk3xp"})
    with pytest.raises(MLScaleError, match=what) as raised:
        locate(text, registry)
    if "checkpoint" in what:
        assert "mlscale export run=1n8q4m7zk3xp" in raised.value.fix


def test_without_a_registry_there_are_folders_only() -> None:
    with pytest.raises(MLScaleError, match="there is no registry"):
        locate("resnet@champion", None)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"format: mlscale/servable/1", b"\xff\xfe\x00", b"format: mlscale/run/1"]
)
def test_a_document_that_says_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "servable.yaml").write_bytes(content)
    with pytest.raises(MLScaleError):
        locate(tmp_path, None)


def test_a_folder_of_a_later_format(tmp_path: Path) -> None:
    (tmp_path / "servable.yaml").write_text("format: mlscale/servable/2\nname: x\n")
    with pytest.raises(MLScaleError, match="later mlscale"):
        locate(tmp_path, None)
