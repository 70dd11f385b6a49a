"""Freezing: what stands still does to the bit, and begins to move when it should."""

from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from mlscale.errors import MLScaleError
from mlscale.tasks import Classification
from mlscale.train.callbacks import Freeze
from tests.unit.fitting import SGD, At, batches, classifier, fit, trainer


def net() -> nn.Module:
    torch.manual_seed(0)
    first = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    return nn.Sequential(first, nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))


def task() -> Classification:
    decaying = torch.optim.SGD
    return classifier(model=net(), optimizer=lambda p: decaying(p, lr=0.1, momentum=0.9, weight_decay=0.1))


class States(pl.Callback):
    """The weights and buffers after each step."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Tensor]] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._note(pl_module)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self._note(pl_module)

    def _note(self, module: nn.Module) -> None:
        self.seen.append({name: value.clone() for name, value in module.state_dict().items()})

    def moved(self, name: str) -> list[bool]:
        return [not torch.equal(one[name], other[name]) for one, other in zip(self.seen, self.seen[1:], strict=False)]


def trained(freeze: Freeze, epochs: int = 3, **arguments: Any) -> States:
    states = States()
    run = trainer(callbacks=[freeze, states], max_epochs=epochs, **arguments)
    fit(run, task(), batches(2))
    return states


def test_what_is_frozen_does_not_move_and_decays_not(capsys: pytest.CaptureFixture[str]) -> None:
    states = trained(Freeze(until_epoch=2))
    for name in ("model.0.0.weight", "model.0.1.running_mean", "model.0.1.num_batches_tracked", "model.2.bias"):
        assert states.moved(name) == [False] * 4 + [True] * 2, name
    assert all(states.moved("model.4.weight"))
    printed = capsys.readouterr().err
    assert "frozen    6 of 8 tensors, 81.5% of the values, until epoch 2" in printed
    assert "unfrozen  every parameter is trained" in printed


def test_a_run_that_goes_on_unfrozen_did_not_begin_so(capsys: pytest.CaptureFixture[str]) -> None:
    now: Any = SimpleNamespace(global_step=4, current_epoch=2, is_global_zero=True)
    for until, more in ((1, ""), (0, " from the start")):
        freeze, module = Freeze(until_epoch=until), task()
        freeze.setup(now, module, "fit")
        freeze.on_train_start(now, module)
        assert capsys.readouterr().err.strip() == f"unfrozen  every parameter is trained{more}"


def test_layer_by_layer_from_the_head_down() -> None:
    states = trained(Freeze(until_epoch=1, every=1))
    assert states.moved("model.2.weight") == [False] * 2 + [True] * 4
    assert states.moved("model.0.0.weight") == [False] * 4 + [True] * 2


def test_by_steps_and_by_patterns_and_norms_that_go_on() -> None:
    states = trained(Freeze(["MODEL.0"], until_epoch=None, until_step=3, norms=False))
    assert states.moved("model.0.0.weight") == [False] * 3 + [True] * 3
    assert all(states.moved("model.0.1.running_mean"))
    assert all(states.moved("model.2.weight"))
    assert not any(trained(Freeze(["model.0.*", "model.2"], until_epoch=None)).moved("model.2.weight"))


def test_norms_stand_still_after_validation_too() -> None:
    modes = []
    watch = At(lambda run, module, index: modes.append(module.get_submodule("model.0.1").training))
    run = trainer(callbacks=[Freeze(until_epoch=None), watch], max_epochs=2, num_sanity_val_steps=1)
    fit(run, task(), batches(2))
    assert modes == [False] * 4


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"modules": ["model.9"]}, "no parameter is called 'model.9'"),
        ({"modules": ["*"], "until_epoch": None}, "every parameter is frozen, for good"),
        ({"until_epoch": 1, "until_step": 3}, "two ends of a freeze"),
        ({"until_epoch": -1}, "a whole number, 0 or more"),
    ],
)
def test_what_is_wrong_is_reported(arguments: dict[str, Any], what: str) -> None:
    with pytest.raises(MLScaleError, match=what):
        fit(trainer(callbacks=[Freeze(**arguments)]), task(), batches(1))


def test_a_model_of_one_layer_has_nothing_to_freeze() -> None:
    with pytest.raises(MLScaleError, match="nothing is frozen"):
        fit(trainer(callbacks=[Freeze()]), classifier(optimizer=SGD), batches(1))
