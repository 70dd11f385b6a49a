"""Where a challenger starts: the champion alone, and the run and checkpoint that it was exported from."""

from dataclasses import replace
from pathlib import Path

import pytest

from mlscale.errors import MLScaleError
from mlscale.retrain.lineage import find_origin, require_champion
from mlscale.versions import LocalRegistry
from mlscale.versions.from_run import publish_run
from tests.unit.versions.test_from_run import trained


def test_only_the_champion_is_replaced(tmp_path: Path) -> None:
    registry = LocalRegistry(tmp_path / "registry")
    first = publish_run(registry, trained(tmp_path, "best")).version
    with pytest.raises(MLScaleError, match="resnet:v1 is not the champion of resnet") as caught:
        require_champion(registry, first)
    assert caught.value.why == "there is none yet"
    assert caught.value.fix == "mlscale versions promote resnet:v1"

    second = publish_run(registry, trained(tmp_path, "best", weight=2.0), aliases=("champion",)).version
    assert require_champion(registry, second) is second
    with pytest.raises(MLScaleError, match="resnet:v1 is not the champion") as caught:
        require_champion(registry, first)
    assert caught.value.why == "that is resnet:v2"
    assert caught.value.fix == "mlscale retrain resnet@champion"


def test_a_challenger_starts_from_the_checkpoint_of_the_champion(tmp_path: Path) -> None:
    run = trained(tmp_path, "best", "last")
    version = publish_run(LocalRegistry(tmp_path / "registry"), run).version
    assert version.run is not None
    for record, name in (({"checkpoint": "last.ckpt"}, "last.ckpt"), ({"checkpoint": None}, "best.ckpt")):
        folder, checkpoint = find_origin(replace(version, run={**version.run, **record}), tmp_path / "elsewhere")
        assert (folder.id, checkpoint) == (run.id, run.path / "checkpoints" / name)
    # Where the folder of the runs was moved, the run is found by its id.
    moved = {**version.run, "path": str(tmp_path / "before")}
    assert find_origin(replace(version, run=moved), tmp_path / "runs")[0].id == run.id

    (run.path / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(MLScaleError, match="the checkpoint that resnet:v1 was made of is gone") as caught:
        find_origin(version, tmp_path / "runs")
    assert caught.value.where == str(run.path / "checkpoints" / "best.ckpt")


@pytest.mark.parametrize(
    ("record", "where", "why"),
    [
        ({"id": "0123", "path": "/gone/runs/1"}, "/gone/runs/1", "has the config of run 0123"),
        ({"id": "0123"}, "runs", "has the config of run 0123"),
        ({}, "runs", "the version names no run"),
        (None, "runs", "the version names no run"),
    ],
)
def test_a_champion_whose_run_is_gone(
    tmp_path: Path, record: dict[str, str] | None, where: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    version = publish_run(LocalRegistry(tmp_path / "registry"), trained(tmp_path / "other", "best")).version
    with pytest.raises(MLScaleError, match="the run that resnet:v1 comes from is not there") as caught:
        find_origin(replace(version, run=record), "runs")
    assert caught.value.where == where
    assert why in caught.value.why
