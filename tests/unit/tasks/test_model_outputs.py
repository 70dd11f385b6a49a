"""Auxiliary outputs are trained on, logits are taken out of output objects, and what is not a tensor is named."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mlscale.errors import Exit, MLScaleError
from mlscale.tasks import Classification, Language, Multilabel, Regression, Segmentation, Task
from mlscale.tasks.base import split_auxiliary
from tests.unit.fitting import SGD, batches, fit, trainer


class Outputs(NamedTuple):
    logits: Tensor
    aux_logits2: Tensor | None
    aux_logits1: Tensor | None


class Auxiliary(nn.Module):
    """As GoogLeNet: three heads in training, one in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.other, self.third = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(3, 2)
        self.heads = (self.main, self.other, self.third)

    def forward(self, x: Tensor) -> Any:
        logits = [head(x) for head in self.heads]
        return Outputs(*logits) if self.training else logits[0]


@pytest.mark.parametrize("weights", [None, [1.0, 3.0]])
@pytest.mark.parametrize("aux_weight", [0.3, 0.4])
def test_auxiliary_outputs_count_by_their_weight(weights: list[float] | None, aux_weight: float) -> None:
    model, (batch,) = Auxiliary(), batches(1)
    task = Classification(2, class_weights=weights, model=model, optimizer=SGD)
    task.aux_weight = aux_weight
    scale = torch.ones(2) if weights is None else task.class_weights
    assert scale is not None
    each = [
        (F.cross_entropy(head(batch["x"]), batch["y"], reduction="none") * scale[batch["y"]]).mean()
        for head in model.heads
    ]
    expected = each[0] + aux_weight * (each[1] + each[2])
    torch.testing.assert_close(task.training_step(batch, 0), expected)


def test_they_are_trained_and_evaluated_end_to_end() -> None:
    model = Auxiliary()
    before = [head.weight.clone() for head in model.heads]
    run = trainer()
    fit(run, Classification(2, model=model, optimizer=SGD), batches(4), batches(2))
    assert all(not torch.equal(head.weight, old) for head, old in zip(model.heads, before, strict=True))
    assert 0 <= run.callback_metrics["val/accuracy"].item() <= 1


def test_only_named_auxiliary_fields_are_split() -> None:
    main, other = torch.zeros(1), torch.ones(1)
    assert split_auxiliary(Outputs(main, None, other)) == (main, (other,))
    for whole in ((main, other), {"out": main, "aux": other}, main, torch.max(torch.eye(2), 0)):
        found, auxiliary = split_auxiliary(whole)
        assert found is whole
        assert auxiliary == ()


class Gives(nn.Module):
    def __init__(self, wrap: Any) -> None:
        super().__init__()
        self.net, self.wrap = nn.Linear(3, 2), wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.net(x))


TASKS: list[Callable[..., Task]] = [Classification, Multilabel, Regression]


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize(
    ("wrap", "says", "fix"),
    [
        (lambda out: {"out": out, "aux": out}, "the model gives dict with out, aux", "task=segmentation"),
        (lambda out: {"loss": out}, "the model gives dict with loss", "model=resnet"),
        (lambda out: (out, out), "the model gives tuple", "model=resnet"),
        (lambda out: None, "the model gives NoneType", "model=resnet"),
    ],
)
def test_what_is_no_tensor_is_named(kind: Callable[..., Task], wrap: Any, says: str, fix: str) -> None:
    (batch,) = batches(1)
    task = kind(2, model=Gives(wrap), optimizer=SGD)
    for step in (task.training_step, lambda batch, index: task.losses(task(batch["x"]), task_batch(batch))):
        with pytest.raises(MLScaleError) as caught:
            step(batch, 0)
        assert caught.value.what == says
        assert fix in caught.value.fix
        assert caught.value.exit is Exit.USER


@dataclass
class OutputObject:
    """As the outputs of transformers' models before they were dictionaries, too."""

    loss: Tensor | None
    logits: Tensor
    hidden_states: tuple[Tensor, ...] = ()


def to_ordered_dict(logits: Tensor) -> Any:
    """As transformers' `ModelOutput`: an ordered dictionary whose items are attributes."""
    return type("ModelOutput", (OrderedDict,), {})(logits=logits, past=(logits,))


WRAPS: list[Callable[[Tensor], Any]] = [to_ordered_dict, lambda logits: OutputObject(None, logits)]


class Conv(nn.Module):
    """(n, length) to tokens, or (n, h, w) to pixels, n × classes first or last."""

    def __init__(self, classes: int, wrap: Callable[[Tensor], Any], *, last: bool) -> None:
        super().__init__()
        self.net, self.wrap, self.last = nn.Linear(1, classes), wrap, last

    def forward(self, x: Tensor) -> Any:
        logits = self.net(x.float().unsqueeze(-1))
        return self.wrap(logits if self.last else logits.movedim(-1, 1))


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression", "language", "segmentation"])
def test_output_objects_train_as_their_logits_alone(kind: str, wrap: Callable[[Tensor], Any]) -> None:
    rows, tokens = torch.randn(4, 3), torch.randint(5, (4, 6))
    cases: dict[str, tuple[Callable[[Callable[[Tensor], Any]], Task], Tensor, Tensor]] = {
        "classification": (lambda w: Classification(2, model=Gives(w)), rows, torch.tensor([0, 1, 1, 0])),
        "multilabel": (lambda w: Multilabel(2, model=Gives(w)), rows, torch.ones(4, 2)),
        "regression": (lambda w: Regression(2, model=Gives(w)), rows, torch.ones(4, 2)),
        "language": (lambda w: Language(model=Conv(5, w, last=True)), tokens, tokens.roll(1)),
        "segmentation": (
            lambda w: Segmentation(5, model=Conv(5, w, last=False)),
            torch.randn(4, 3, 3),
            torch.zeros(4, 3, 3, dtype=torch.long),
        ),
    }
    build, x, y = cases[kind]
    results: list[tuple[Any, ...]] = []
    wraps: list[Callable[[Tensor], Any]] = [wrap, lambda logits: logits]
    for used in wraps:
        torch.manual_seed(0)
        task = build(used)
        batch = {"x": x, "y": y}
        results.append((task.training_step(batch, 0), task.means(task(x), task_batch(batch))[0], task.state_dict()))
        results[-1] += tuple(task.predict_step(batch, 0).values())
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


def test_a_task_of_a_users_own_gets_the_whole_output() -> None:
    class Own(Task):
        kind = "classification"

    output = Own(model=Gives(to_ordered_dict))(torch.randn(4, 3))
    assert "past" in output


def task_batch(batch: Any) -> Any:
    from mlscale.tasks.batch import unpack_batch

    return unpack_batch(batch)


def test_a_language_model_without_logits_is_named() -> None:
    task = Language(model=Conv(5, lambda logits: OutputObject(None, None), last=True), optimizer=SGD)  # type: ignore[arg-type]
    with pytest.raises(MLScaleError, match="the model gives OutputObject"):
        task.training_step({"x": torch.zeros(4, 6), "y": torch.zeros(4, 6, dtype=torch.long)}, 0)
