"""A servable as a version."""

import shutil
from pathlib import Path

import pytest
import yaml

from mlscale.errors import MLScaleError
from mlscale.runs.folder import RunFolder
from mlscale.versions import LocalRegistry
from mlscale.versions.from_run import publish_run
from mlscale.versions.from_servable import publish_servable
from tests.unit.versions.test_from_run import trained

STORED = Path(__file__).parents[2] / "contract" / "examples" / "servable-1"


def servable(folder: Path, run: RunFolder | None = None) -> Path:
    """The stored servable, copied to `folder`; from that run."""
    shutil.copytree(STORED, folder)
    if run:
        document = yaml.safe_load((folder / "servable.yaml").read_text())
        document["run"]["id"] = run.id
        (folder / "servable.yaml").write_text(yaml.safe_dump(document))
    return folder


def test_a_servable_from_elsewhere(registry: LocalRegistry, tmp_path: Path) -> None:
    done = publish_servable(registry, servable(tmp_path / "s"), aliases=("champion",))
    version = registry.fetch("digits@champion")
    assert (done.new, version.kind, version.data_version) == (True, "servable", "512a900ee831b674")
    assert sorted(version.files) == [
        "model.onnx", "parity.json", "reference/profile.json", "reference/profile.npz", "servable.yaml",
    ]  # fmt: skip
    assert version.metrics["val/accuracy"] == pytest.approx(0.947, abs=1e-3)
    assert version.run is not None
    assert (version.run["id"], version.run["checkpoint"]) == ("1s2w1ygw9f2a", "best.ckpt")
    assert publish_servable(registry, tmp_path / "s").new is False


def test_a_servable_of_a_run_has_its_lineage(registry: LocalRegistry, tmp_path: Path) -> None:
    first = trained(tmp_path, "best")
    publish_run(registry, first)
    run = trained(tmp_path, "best", weight=2.0, parent=first.id)
    version = publish_servable(registry, servable(run.path / "servable", run), run=run, name="resnet").version
    assert (version.ref, version.parent, version.value) == ("resnet:v2", "resnet:v1", version.metrics["val/accuracy"])
    with pytest.raises(MLScaleError, match="not that of this run"):
        publish_servable(registry, run.path / "servable", run=first)


@pytest.mark.parametrize(
    "damage", ["altered", "gone", "added", "no document", "no yaml", "another format", "leads out"]
)
def test_what_is_damaged_is_not_published(registry: LocalRegistry, tmp_path: Path, damage: str) -> None:
    folder = servable(tmp_path / "s")
    document = folder / "servable.yaml"
    if damage == "altered":
        (folder / "model.onnx").write_bytes(b"x")
    elif damage == "gone":
        (folder / "parity.json").unlink()
    elif damage == "added":
        (folder / "more.bin").write_bytes(b"x")
    elif damage == "no document":
        document.unlink()
    elif damage == "no yaml":
        document.write_text("a: [")
    elif damage == "another format":
        document.write_text(document.read_text().replace("mlscale/servable/1", "mlscale/servable/9"))
    else:
        document.write_text(document.read_text().replace("parity.json", "../s/parity.json"))
    with pytest.raises(MLScaleError):
        publish_servable(registry, folder)
    assert not registry.root.exists()
