"""The run and the checkpoint that a version was made of."""

from dataclasses import replace
from pathlib import Path

import pytest

from mlscale.errors import MLScaleError
from mlscale.versions import LocalRegistry
from mlscale.versions.from_run import publish_run
from mlscale.versions.trained_model import find_origin
from tests.unit.versions.test_from_run import trained


def test_a_version_comes_from_the_checkpoint_of_its_run(tmp_path: Path) -> None:
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
        ({"id": "0123", "path": "/gone/runs/1"}, "/gone/runs/1", "are those of run 0123"),
        ({"id": "0123"}, "runs", "are those of run 0123"),
        ({}, "runs", "the version names no run"),
        (None, "runs", "the version names no run"),
    ],
)
def test_a_version_whose_run_is_gone(
    tmp_path: Path, record: dict[str, str] | None, where: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    version = publish_run(LocalRegistry(tmp_path / "registry"), trained(tmp_path / "other", "best")).version
    with pytest.raises(MLScaleError, match="the run that resnet:v1 comes from is not there") as caught:
        find_origin(replace(version, run=record), "runs")
    assert caught.value.where == where
    assert why in caught.value.why
