"""A loss that is no longer a number: exit code 3, step and samples named, and checkpoints that can be used."""

import json
from pathlib import Path

import pytest
import torch

from mlscale.cli import main
from tests.conftest import runs_in


@pytest.mark.parametrize("devices", [1, 2])
def test_the_last_good_checkpoint_is_kept(folder: Path, capfd: pytest.CaptureFixture[str], devices: int) -> None:
    # The step size explodes in the second epoch: the first one left checkpoints.
    words = ["+recipe=resnet", "model=mlp", "scheduler=none", "snapshot=false", f"trainer.devices={devices}"]
    explode = "+callbacks.explode={_target_:tests.dist.recorder.Explode,epoch:1}"
    assert main([*words, explode, "output=json"]) == 3
    out, err = capfd.readouterr()
    assert err.count("error: ") == 1
    assert "the loss is" in err
    assert "in epoch 1, batch " in err
    assert "its samples: 00" in err
    (run,) = runs_in(folder)
    assert json.loads(out)["run"] == str(run)
    assert json.loads((run / "manifest.json").read_text())["status"] == "diverged"
    files = sorted((run / "checkpoints").glob("*.ckpt"))
    assert [path.name for path in files] == ["best.ckpt", "last.ckpt"]
    for path in files:
        state = torch.load(path, weights_only=True)
        assert state["global_step"] == 22
        assert all(torch.isfinite(value).all() for value in state["state_dict"].values())


def test_a_learning_rate_far_too_large(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["+recipe=resnet", "snapshot=false", "scheduler=none", "optimizer.lr=1e30"]) == 3
    _, err = capsys.readouterr()
    assert "fix:   optimizer.lr=<a smaller one>\n" in err
    (run,) = runs_in(folder)
    assert list((run / "checkpoints").glob("*.ckpt")) == []
