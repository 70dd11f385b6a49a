"""Several labels per sample: the loss, and metrics that agree with scikit-learn's."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score
from torch import nn
from torch.nn import functional as F

from mlscale.errors import MLScaleError
from mlscale.tasks import Multilabel
from tests.unit.fitting import Loader, fit, trainer

CLASSES = 3


def batch(size: int, seed: int, weight: list[float] | None = None) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, 4, generator=generator)
    y = (x[:, :CLASSES] + 0.5 * torch.randn(size, CLASSES, generator=generator) > 0).float()
    return {"x": x, "y": y} | ({} if weight is None else {"weight": torch.tensor(weight)})


def multilabel(**arguments: Any) -> Multilabel:
    torch.manual_seed(0)
    optimizer = partial(torch.optim.SGD, lr=1.0)
    return Multilabel(CLASSES, model=nn.Linear(4, CLASSES), optimizer=optimizer, **arguments)


def test_metrics_are_scikit_learn_s() -> None:
    task = multilabel()
    data = [batch(40, 0), batch(7, 1, [1, 1, 0, 1, 0, 1, 1]), batch(2, 2, [0, 0])]
    (metrics,) = trainer().validate(task, Loader(data), verbose=False)
    kept = [(data[0]["x"], data[0]["y"]), (data[1]["x"][[0, 1, 3, 5, 6]], data[1]["y"][[0, 1, 3, 5, 6]])]
    x, y = (torch.cat([pair[part] for pair in kept]) for part in (0, 1))
    with torch.no_grad():
        logits = task(x)
    p = logits.sigmoid().numpy()
    expected = {
        "val/loss": F.binary_cross_entropy_with_logits(logits, y).item(),
        "val/map": average_precision_score(y.numpy(), p, average="macro"),
        "val/f1_macro": f1_score(y.numpy(), p > 0.5, average="macro"),
        "val/f1_micro": f1_score(y.numpy(), p > 0.5, average="micro"),
        "val/exact_match": np.all((p > 0.5) == y.numpy(), axis=1).mean(),
    }
    assert metrics == pytest.approx(expected, rel=1e-5)


def test_a_class_that_never_occurs_has_no_precision() -> None:
    task, only = multilabel(), batch(20, 0)
    only["y"][:, 2] = 0
    (metrics,) = trainer().validate(task, Loader([only]), verbose=False)
    with torch.no_grad():
        p = task(only["x"]).sigmoid().numpy()[:, :2]
    two = average_precision_score(only["y"].numpy()[:, :2], p)
    assert metrics["val/map"] == pytest.approx((2 * two + 0) / 3, rel=1e-5)


def test_binned_curves_are_near_the_exact_ones() -> None:
    runs = [
        trainer().validate(multilabel(map_thresholds=points), Loader([batch(200, 0)]), verbose=False)[0]["val/map"]
        for points in (None, 200)
    ]
    assert runs[0] == pytest.approx(runs[1], abs=0.02)
    assert runs[0] != runs[1]


def test_it_learns_and_smooths_in_training_alone() -> None:
    data = [batch(32, seed) for seed in range(4)]
    task = multilabel()
    fit(trainer(max_epochs=8), task, data, data)
    (metrics,) = trainer().test(task, Loader(data), verbose=False)
    assert metrics["test/map"] > 0.9
    sharp, smooth = multilabel(), multilabel(label_smoothing=0.2)
    assert sharp.training_step(data[0], 0) != smooth.training_step(data[0], 0)
    assert torch.equal(
        sharp.losses(sharp(data[0]["x"]), _read(data[0])), smooth.losses(smooth(data[0]["x"]), _read(data[0]))
    )


def _read(given: dict[str, Any]) -> Any:
    from mlscale.tasks.batch import unpack_batch

    return unpack_batch(given)


def test_a_prediction_is_logits() -> None:
    task, given = multilabel(), batch(5, 0)
    assert task.predict_step(given, 0)["logits"].shape == (5, CLASSES)
    assert task.kind == "multilabel"


def test_a_class_each_is_not_several() -> None:
    task, given = multilabel(), batch(5, 0)
    given["y"] = torch.tensor([0, 1, 2, 0, 1])
    with pytest.raises(MLScaleError, match=r"the labels are \(5,\), and the logits \(5, 3\)") as caught:
        task.training_step(given, 0)
    assert "task=classification" in caught.value.fix
    with pytest.raises(MLScaleError, match="gives 3 logits and the task has 4 classes"):
        Multilabel(4, model=nn.Linear(4, 3)).training_step(given, 0)
