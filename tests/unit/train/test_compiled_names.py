"""Weights of compiled models are saved under the names of the uncompiled one, and fit both."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import nn

from mlscale.train.checkpoint.lightning_io import VerifiedCheckpointIO
from mlscale.train.checkpoint.weights_only_load import load_checkpoint_file
from mlscale.train.torch_compile import use_uncompiled_names
from tests.unit.fitting import Loader, batches, classifier, trainer

X = torch.ones(5, 3)
PLAIN = ["model.0.weight", "model.0.bias", "model.1.weight", "model.1.bias"]


def compiled(module: nn.Module) -> Any:
    """Compiled by the backend that needs no compiler; the wrapping is the same."""
    return torch.compile(module, backend="eager")


def network(where: str = "") -> nn.Module:
    """Two layers, compiled as a whole, inside, or both."""
    torch.manual_seed(0)
    inner: nn.Module = nn.Linear(4, 2)
    layers = nn.Sequential(nn.Linear(3, 4), compiled(inner) if "inside" in where else inner)
    return compiled(layers) if "whole" in where else layers


def task(where: str = "") -> Any:
    made = classifier(model=network(where))
    use_uncompiled_names(made)
    return made


@pytest.mark.parametrize("saved", ["", "whole", "inside", "whole, inside"])
@pytest.mark.parametrize("loaded", ["", "whole", "inside", "whole, inside"])
def test_any_fits_any(saved: str, loaded: str) -> None:
    first, second = task(saved), task(loaded)
    for parameter in second.parameters():
        nn.init.zeros_(parameter)
    state = first.state_dict()
    assert [name for name in state if name.startswith("model")] == PLAIN
    assert not any("_orig_mod" in name for name in state._metadata)
    kept = dict(state)
    second.load_state_dict(state)
    assert dict(state) == kept  # what was given is as it was
    with torch.no_grad():
        assert torch.equal(first.model(X), second.model(X))


def test_names_of_another_program_are_understood() -> None:
    plain = task()
    plain.load_state_dict(
        {name.replace("model.", "model._orig_mod."): value for name, value in task().state_dict().items()}
    )


def test_what_is_missing_is_still_reported() -> None:
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"model._orig_mod.1.bias\""):
        task("whole").load_state_dict({name: value for name, value in task().state_dict().items() if name != PLAIN[3]})


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* is not empty")
@pytest.mark.parametrize("average", [False, True])
def test_a_compiled_run_goes_on_uncompiled(tmp_path: Path, average: bool) -> None:
    def run(where: str, epochs: int, path: str | None = None) -> Any:
        keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
        callbacks = [keep, *([EMAWeightAveraging(decay=0.5)] if average else [])]
        new = trainer(
            enable_checkpointing=True, plugins=[VerifiedCheckpointIO()], callbacks=callbacks, max_epochs=epochs
        )
        trained = task(where)
        new.fit(trained, Loader(batches(4)), Loader(batches(1)), ckpt_path=path)
        return trained

    run("whole", 1)
    content = load_checkpoint_file(tmp_path / "epoch=0.ckpt")
    for key in ["state_dict", *(["current_model_state"] if average else [])]:
        assert [name for name in content[key] if name.startswith("model")] == PLAIN
    resumed = run("", 2, str(tmp_path / "epoch=0.ckpt"))
    whole = run("", 2)
    assert torch.allclose(resumed.state_dict()[PLAIN[0]], whole.state_dict()[PLAIN[0]])
