"""The classification task: exact metrics, weights, schedules, and errors that name the class counts."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningDataModule
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F

from mlscale.errors import MLScaleError
from mlscale.tasks import MLP, Classification
from mlscale.tasks.batch import Batch
from mlscale.tasks.label_checks import check_logits, check_smoothing
from tests.unit.fitting import SGD, Loader, batches, classifier, fit, trainer


def test_validation_metrics_are_weighted_means_over_all_samples() -> None:
    task, data = classifier(), batches(3)
    for batch in data:
        batch["weight"] = torch.tensor([1.0, 1.0, 0.0, 0.5])
    (metrics,) = trainer().validate(task, Loader(data), verbose=False)

    x, y, w = (torch.cat([batch[name] for batch in data]) for name in ("x", "y", "weight"))
    logits = task(x)
    expected = (F.cross_entropy(logits, y, reduction="none") * w).sum() / w.sum()
    assert metrics["val/loss"] == pytest.approx(expected.item(), rel=1e-6)
    assert metrics["val/accuracy"] == pytest.approx((((logits.argmax(-1) == y) * w).sum() / w.sum()).item())


def test_batches_of_different_sizes_count_by_their_samples() -> None:
    task = classifier()
    whole, parts = batches(1, size=7), batches(1, size=7)
    x, y = parts[0]["x"], parts[0]["y"]
    (one,) = trainer().test(task, Loader(whole), verbose=False)
    (two,) = trainer().test(task, Loader([(x[:5], y[:5]), (x[5:], y[5:])]), verbose=False)
    assert one == pytest.approx(two)
    assert set(one) == {"test/loss", "test/accuracy"}


def test_a_weighted_batch_is_divided_by_its_size() -> None:
    task, (batch,) = classifier(), batches(1)
    plain = task.training_step(batch, 0)
    assert task.training_step(batch | {"weight": torch.ones(4)}, 0).item() == pytest.approx(plain.item())
    assert task.training_step(batch | {"weight": torch.zeros(4)}, 0) == 0
    half = task.training_step({name: value[:2] for name, value in batch.items()}, 0)
    masked = task.training_step(batch | {"weight": torch.tensor([1.0, 1.0, 0.0, 0.0])}, 0)
    assert masked.item() == pytest.approx(half.item() / 2)


def test_labels_are_smoothed_in_training_only() -> None:
    (batch,) = batches(1)
    sharp, smooth = classifier(), classifier(label_smoothing=0.2)
    assert sharp.training_step(batch, 0) != smooth.training_step(batch, 0)
    run = [trainer().validate(task, Loader([batch]), verbose=False)[0] for task in (sharp, smooth)]
    assert run[0] == run[1]


class _Margin(Classification):
    def training_losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        return F.multi_margin_loss(outputs, batch.y, reduction="none")


def test_a_loss_of_one_s_own_is_trained_on_with_weights_and_without() -> None:
    task, (batch,) = _Margin(2, model=nn.Linear(3, 2)), batches(1)
    losses = F.multi_margin_loss(task(batch["x"]), batch["y"], reduction="none")
    assert torch.equal(task.training_step(batch, 0), losses.mean())
    batch["weight"] = torch.tensor([1.0, 0.0, 1.0, 1.0])
    assert torch.equal(task.training_step(batch, 0), (losses * batch["weight"]).mean())


def test_classes_count_in_training_as_they_weigh() -> None:
    (batch,) = batches(1)
    plain, weighted = classifier(), classifier(class_weights=[3.0, 0.5])
    x, y = batch["x"], batch["y"]
    each = F.cross_entropy(plain(x), y, reduction="none") * torch.tensor([3.0, 0.5])[y]
    assert weighted.training_step(batch, 0).item() == pytest.approx(each.mean().item(), rel=1e-6)
    shares = F.one_hot(y, 2).float()
    assert weighted.training_step(batch | {"y": shares}, 0).item() == pytest.approx(each.mean().item(), rel=1e-6)
    none = classifier(class_weights=[1.0, 1.0]).training_step(batch, 0)
    assert none.item() == pytest.approx(plain.training_step(batch, 0).item(), rel=1e-6)
    run = [trainer().validate(task, Loader([batch]), verbose=False)[0] for task in (plain, weighted)]
    assert run[0] == run[1]
    assert "class_weights" not in weighted.state_dict()


def test_balanced_classes_weigh_as_scikit_learn_has_it() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    y = np.repeat([0, 1, 2], [5, 2, 9])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=y)
    task = classifier(classes=3, class_weights="balanced", class_counts=[5, 2, 9])
    assert task.class_weights is not None
    np.testing.assert_allclose(task.class_weights.numpy(), expected, rtol=1e-6)
    assert task.class_weights[torch.from_numpy(y)].sum().item() == pytest.approx(len(y))


@pytest.mark.parametrize(
    ("weights", "counts", "reported"),
    [
        ("even", [1, 1], "'even'"),
        ("balanced", None, "needs the samples of each class"),
        ([1.0], None, "has 1 numbers"),
        ([1.0, -1.0], None, r"\[1.0, -1.0\]"),
        ([0.0, 0.0], None, "not all 0"),
    ],
)
def test_weights_of_classes_that_are_none(weights: Any, counts: Any, reported: str) -> None:
    with pytest.raises(MLScaleError, match=reported) as caught:
        classifier(class_weights=weights, class_counts=counts)
    assert caught.value.where == "task.class_weights"


def test_a_prediction_is_of_every_sample() -> None:
    task, (batch,) = classifier(), batches(1)
    batch["weight"] = torch.tensor([1.0, 0.0, 1.0, 1.0])
    assert torch.equal(task.predict_step(batch, 0)["logits"], task(batch["x"]))
    assert task.kind == "classification"


@pytest.mark.parametrize("label", [2, 9, -1])
def test_a_label_outside_the_classes_names_the_counts(label: int) -> None:
    task, (batch,) = classifier(), batches(1)
    batch["y"][1] = label
    with pytest.raises(MLScaleError, match=f"a label is {label}, and the task has 2 classes") as caught:
        task.training_step(batch, 0)
    assert "task.num_classes" in caught.value.where


def test_a_model_with_other_classes_names_both_counts() -> None:
    task, (batch,) = classifier(model=nn.Linear(3, 5)), batches(1)
    with pytest.raises(MLScaleError, match="gives 5 logits and the task has 2 classes") as caught:
        task.training_step(batch, 0)
    assert caught.value.fix == "model.num_classes=2"


def test_the_fix_where_the_data_reports_no_classes_is_the_number_of_the_model() -> None:
    with pytest.raises(MLScaleError, match="gives 5 logits and the task has no number of classes") as caught:
        check_logits(5, None)
    assert caught.value.fix == "task.num_classes=5"


def test_a_task_without_an_optimizer_says_how_to_get_one() -> None:
    with pytest.raises(MLScaleError, match="no optimizer"):
        fit(trainer(), classifier(optimizer=None), batches(1))


def test_a_scheduler_steps_once_per_optimizer_step() -> None:
    task = classifier(
        scheduler=partial(torch.optim.lr_scheduler.LinearLR, start_factor=1.0, end_factor=0.0, total_iters=4)
    )
    run = trainer(accumulate_grad_batches=2)
    fit(run, task, batches(4))
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.05)


def test_a_scheduler_that_monitors_sees_the_validation_metric() -> None:
    plateau = partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0, threshold=1e9)
    task = classifier(scheduler={"scheduler": plateau, "interval": "epoch", "monitor": "val/loss"})
    run = trainer(max_epochs=2)
    fit(run, task, batches(2))
    assert run.optimizers[0].param_groups[0]["lr"] < 0.1


def test_frozen_parameters_are_not_given_to_the_optimizer() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    model[0].requires_grad_(False)
    run = trainer()
    fit(run, classifier(model=model), batches(1))
    assert len(run.optimizers[0].param_groups[0]["params"]) == 2


class _Facts:
    sample, dtype = (1, 2, 2), "float32"


class _Data(LightningDataModule):
    def facts(self) -> _Facts:
        return _Facts()

    def train_dataloader(self) -> Any:
        return Loader(batches(2, features=4))

    val_dataloader = train_dataloader


def test_lazy_layers_get_their_shape_before_the_optimizer_sees_them() -> None:
    task = Classification(2, model=MLP(None, 2, hidden=[5]), optimizer=SGD)
    trainer().fit(task, datamodule=_Data())
    weight = task.model.get_parameter("layers.1.weight")
    assert weight.shape == (5, 4)
    assert task.model.training


def test_the_optimizer_s_own_checks_are_reported() -> None:
    task = classifier(optimizer=partial(torch.optim.SGD, lr=0.1, nesterov=True))
    with pytest.raises(MLScaleError, match="can't be built with these settings") as caught:
        task.configure_optimizers()
    assert "Nesterov momentum requires a momentum" in caught.value.why
    assert caught.value.unbuilt


def test_a_task_without_a_model_is_reported() -> None:
    with pytest.raises(MLScaleError, match="the task has no model"):
        classifier(model=None)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_rare_class_has_its_own_metrics(classes: int) -> None:
    counts = [96, 4] if classes == 2 else [90, 6, 4]
    y = torch.repeat_interleave(torch.arange(classes), torch.tensor(counts))
    x = torch.randn(100, 3, generator=torch.Generator().manual_seed(1)) + 0.7 * y[:, None]
    task = classifier(classes=classes, class_counts=counts)
    halves = [{"x": x[part], "y": y[part]} for part in (slice(0, None, 2), slice(1, None, 2))]
    # A sample of weight 0 is in no metric.
    halves.append({"x": torch.full((1, 3), 50.0), "y": torch.tensor([1]), "weight": torch.zeros(1)})
    (metrics,) = trainer().validate(task, Loader(halves), verbose=False)
    with torch.no_grad():
        shares = task(x).softmax(-1).numpy()
    expected = balanced_accuracy_score(y.numpy(), shares.argmax(-1))
    assert metrics["val/balanced_accuracy"] == pytest.approx(expected, abs=1e-6)
    if classes == 2:
        assert metrics["val/auc"] == pytest.approx(roc_auc_score(y.numpy(), shares[:, 1]), abs=1e-6)
    else:
        assert "val/auc" not in metrics


def test_classes_that_are_missing_in_validation_count_in_no_metric() -> None:
    two, three = classifier(class_counts=[96, 4]), classifier(classes=3, class_counts=[90, 6, 4])
    for task in (two, three):
        nn.init.zeros_(task.model.weight)  # type: ignore[arg-type]
        task.model.bias.data[:] = torch.arange(task.num_classes)  # type: ignore[operator]  # the last wins
    data = [{"x": torch.randn(4, 3), "y": torch.zeros(4, dtype=torch.long)}]
    (metrics,) = trainer().validate(two, Loader(data), verbose=False)
    assert np.isnan(metrics["val/auc"])
    (metrics,) = trainer().validate(three, Loader([{**data[0], "y": torch.tensor([1, 1, 1, 1])}]), verbose=False)
    assert metrics["val/balanced_accuracy"] == 0
    three.model.bias.data[:] = torch.tensor([0.0, 1.0, 0.0])  # type: ignore[operator]
    (metrics,) = trainer().validate(three, Loader([{**data[0], "y": torch.tensor([1, 1, 1, 1])}]), verbose=False)
    assert metrics["val/balanced_accuracy"] == 1


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_smoothing_is_a_share(share: float) -> None:
    with pytest.raises(ValueError, match="label_smoothing must be a share"):
        check_smoothing(share)
