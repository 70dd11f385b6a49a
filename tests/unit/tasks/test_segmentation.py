"""A class for each pixel: ignored pixels count nowhere, and metrics are those of all pixels."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, jaccard_score
from torch import Tensor, nn
from torch.nn import functional as F

from mlscale.errors import MLScaleError
from mlscale.tasks import Segmentation, UNet
from tests.unit.fitting import Loader, fit, trainer

CLASSES = 3


def batch(size: int, seed: int, weight: list[float] | None = None) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, 2, 6, 5, generator=generator)
    y = torch.randint(CLASSES, (size, 6, 5), generator=generator).to(torch.uint8)
    y[:, 0] = 255
    return {"x": x, "y": y} | ({} if weight is None else {"weight": torch.tensor(weight)})


def segmentation(model: nn.Module | None = None, **arguments: Any) -> Segmentation:
    torch.manual_seed(0)
    optimizer = partial(torch.optim.SGD, lr=0.1)
    return Segmentation(CLASSES, model=model or nn.Conv2d(2, CLASSES, 1), optimizer=optimizer, **arguments)


def test_metrics_are_scikit_learn_s_over_labelled_pixels() -> None:
    task = segmentation()
    data = [batch(4, 0), batch(3, 1, [1, 0, 1]), batch(1, 2, [0])]
    (metrics,) = trainer().validate(task, Loader(data), verbose=False)
    x = torch.cat([data[0]["x"], data[1]["x"][[0, 2]]])
    y = torch.cat([data[0]["y"], data[1]["y"][[0, 2]]])
    with torch.no_grad():
        logits = task(x)
    labelled = (y != 255).numpy()
    true, predicted = y.numpy()[labelled], logits.argmax(1).numpy()[labelled]
    each = [F.cross_entropy(a[None, :, 1:], b[None, 1:].long()).item() for a, b in zip(logits, y, strict=True)]
    expected = {
        "val/loss": np.mean(each),
        "val/miou": jaccard_score(true, predicted, average="macro"),
        "val/dice": f1_score(true, predicted, average="macro"),
        "val/pixel_accuracy": accuracy_score(true, predicted),
    }
    assert metrics == pytest.approx(expected, rel=1e-5)


def test_a_class_that_is_nowhere_is_left_out_of_the_mean() -> None:
    torch.manual_seed(0)
    model = nn.Conv2d(2, 9, 1)
    task, given = Segmentation(9, model=model), batch(4, 0)
    assert model.bias is not None
    with torch.no_grad():
        model.bias[CLASSES:] = -1e4
        predicted = task(given["x"]).argmax(1)
    labelled = given["y"] != 255
    (metrics,) = trainer().validate(task, Loader([given]), verbose=False)
    expected = jaccard_score(given["y"][labelled].numpy(), predicted[labelled].numpy(), average="macro")
    assert metrics["val/miou"] == pytest.approx(expected, rel=1e-5)


def test_ignored_pixels_are_not_learned_from() -> None:
    task, given = segmentation(), batch(2, 0)
    loss = task.training_step(given, 0)
    given["x"][:, :, 0] += 100
    assert task.training_step(given, 0).item() == pytest.approx(loss.item())
    given["y"][:] = 255
    assert task.training_step(given, 0) == 0
    assert task.training_step(batch(3, 1, [0, 0, 0]), 0) == 0


def test_classes_count_as_they_weigh() -> None:
    plain, given = segmentation(), batch(2, 0)
    weighted = segmentation(class_weights=[0.0, 1.0, 2.0])
    losses = F.cross_entropy(plain(given["x"]), given["y"].long(), ignore_index=255, reduction="none")
    by = torch.tensor([0.0, 1.0, 2.0])[given["y"].long().clamp(max=2)] * (given["y"] != 255)
    expected = ((losses * by).sum((1, 2)) / 25).mean()
    assert weighted.training_step(given, 0).item() == pytest.approx(expected.item(), rel=1e-5)
    balanced = segmentation(class_weights="balanced", class_counts=[30, 60, 10])
    assert balanced.class_weights is not None
    assert (balanced.class_weights * torch.tensor([30, 60, 10])).tolist() == pytest.approx([100 / 3] * 3)


class Heads(nn.Module):
    """Outputs by name, as torchvision's networks for segmentation give them."""

    def __init__(self) -> None:
        super().__init__()
        self.out, self.aux = nn.Conv2d(2, CLASSES, 1), nn.Conv2d(2, CLASSES, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.out(x), "aux": self.aux(x)}


def test_outputs_by_name() -> None:
    torch.manual_seed(0)
    model = Heads()
    task, given = segmentation(model), batch(2, 0)
    main, aux = (Segmentation(CLASSES, model=part).training_step(given, 0) for part in (model.out, model.aux))
    assert task.training_step(given, 0).item() == pytest.approx((main + 0.5 * aux).item(), rel=1e-5)
    (metrics,) = trainer().validate(task, Loader([batch(2, 0, [1, 0])]), verbose=False)
    alone = Segmentation(CLASSES, model=model.out)
    assert metrics == trainer().validate(alone, Loader([batch(2, 0, [1, 0])]), verbose=False)[0]
    assert task.predict_step(given, 0)["logits"].shape == (2, CLASSES, 6, 5)


def test_torchvision_s_networks_are_taken() -> None:
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    model = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=CLASSES)
    x, y = torch.randn(2, 3, 32, 32), torch.randint(CLASSES, (2, 32, 32), dtype=torch.uint8)
    assert torch.isfinite(segmentation(model).training_step({"x": x, "y": y}, 0))


@pytest.mark.parametrize(
    ("model", "reported"),
    [
        (nn.Conv2d(2, 7, 1), "gives 7 logits and the task has 3 classes"),
        (nn.Conv2d(2, CLASSES, 1, stride=2), r"masks are \(2, 6, 5\), and the logits \(2, 3, 3, 3\)"),
        (nn.Sequential(nn.Flatten(), nn.Linear(60, CLASSES)), r"the model gives \(2, 3\)"),
    ],
)
def test_a_model_that_does_not_fit(model: nn.Module, reported: str) -> None:
    with pytest.raises(MLScaleError, match=reported) as caught:
        segmentation(model).training_step(batch(2, 0), 0)
    assert caught.value.fix


def test_a_class_beyond_the_task_s() -> None:
    given = batch(2, 0)
    given["y"][1, 2, 2] = 7
    with pytest.raises(MLScaleError, match="a label is 7, and the task has 3 classes"):
        segmentation().training_step(given, 0)


def test_a_unet_learns_what_a_pixel_alone_does_not_tell() -> None:
    """Which half of the image a pixel lies in."""
    generator = torch.Generator().manual_seed(0)
    data = []
    for _ in range(4):
        x = torch.rand(8, 1, 12, 10, generator=generator)
        x[:, :, :, :5] += 1
        x[:, :, 4:8] = 0.5
        y = torch.zeros(8, 12, 10, dtype=torch.uint8)
        y[:, :, 5:] = 1
        data.append({"x": x, "y": y})
    torch.manual_seed(0)
    model = UNet(1, 2, [8, 16])
    task = Segmentation(2, model=model, optimizer=partial(torch.optim.Adam, lr=0.02))
    fit(trainer(max_epochs=12), task, data, data)
    (metrics,) = trainer().validate(task, Loader(data), verbose=False)
    assert metrics["val/miou"] > 0.95
