"""A user's own ModelCheckpoint, from their folder's configuration: committed, verified, in the run's folder."""

import json
import zipfile
from pathlib import Path

import jsonschema
import pytest

from mlscale import cli, contracts
from mlscale.runs.checkpoint_files.checkpoint_digest import verify_checkpoint

OWN = """\
# @package callbacks.mine
_target_: pytorch_lightning.callbacks.ModelCheckpoint
filename: "{step}"
every_n_train_steps: 2
save_top_k: -1
"""
RUN = ("+recipe=resnet", "model.widths=[8]", "debug=limit", "trainer.max_epochs=1", "trainer.limit_train_batches=5")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder, stood in."""
    (tmp_path / "conf/callbacks").mkdir(parents=True)
    (tmp_path / "conf/callbacks/mine.yaml").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("callbacks", ["mine", "default,mine"])
def test_own_callback(folder: Path, capsys: pytest.CaptureFixture[str], callbacks: str) -> None:
    assert cli.main([*RUN, "snapshot=false", "scheduler=none", f"callbacks=[{callbacks}]"]) == 0
    kept = {path.name: verify_checkpoint(path) for path in folder.rglob("*.ckpt")}
    ours = {"best.ckpt", "last.ckpt"} if "default" in callbacks else set()
    assert set(kept) == {"step=2.ckpt", "step=4.ckpt", *ours}
    assert {found.state for found in kept.values()} == {"ok"}
    assert {found.path.parent.name for found in kept.values()} == {"checkpoints"}
    assert {path.parts[0] for path in (path.relative_to(folder) for path in folder.glob("*"))} == {"conf", "runs"}
    capsys.readouterr()
    assert cli.main(["runs", "checkpoints", "last"]) == 0
    assert "the run is done: there is nothing to resume" in capsys.readouterr().out


def test_what_is_written_validates(folder: Path) -> None:
    assert cli.main([*RUN, "snapshot=false", "scheduler=none", "callbacks=[checkpoint]"]) == 0
    schema = contracts.load_schema("checkpoint")
    for path in folder.rglob("*.ckpt"):
        with zipfile.ZipFile(path) as archive:
            document = json.loads(archive.comment.rpartition(b" ")[0])
        jsonschema.Draft202012Validator(schema).validate(document)
        assert document["metric"] == ("val/accuracy" if path.stem == "best" else None)
