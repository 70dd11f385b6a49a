"""The base of all tasks: a model, its optimizer, the weighted loss, and metrics over every sample of every rank.

Outputs of models other than a tensor: auxiliary outputs in training, output objects, and what a task can't take.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from mlscale.errors import MLScaleError
from mlscale.task_types.task_type import TaskType
from mlscale.tasks.batch import Batch, unpack_batch
from mlscale.tasks.models import lazy
from mlscale.tasks.optimizers import Partial as Partial
from mlscale.tasks.optimizers import build_optimizers
from mlscale.tasks.parameter_groups import Rules


class Task(LightningModule):
    """A model, trained by the loss and measured by the metrics that a subclass names.

    A subclass sets `kind` and defines `losses`, `metrics` and `predict_step`; and `training_losses`, `means` or
    `update` where they differ. Validation and test metrics are ``val/<name>`` and ``test/<name>``. The
    training loss is only returned; a callback averages and logs it, since `self.log` in a training step costs as much
    as a small model's whole step.

    Samples of weight 0 (padding, or one that could not be read) count for nothing, in the loss and in every metric.
    Other weights count in the loss and in `means`; torchmetrics count a sample fully or not at all.

    Args:
        model: the network to train: (n, …) to the outputs that the task takes.
        optimizer: called with the parameters.
        scheduler: called with the optimizer, and stepped once per optimizer step; or Lightning's lr_scheduler
            dictionary with such a callable under "scheduler" and with "interval", "monitor" and the like.

    Attributes:
        kind: the name of the task's type: classification, multilabel, segmentation, regression, language, or that of an
            installed package. Commands check whether they support it.
        task_type: a type of the task's own, in place of the one that `kind` names.
        has_named_type: the argument `task_type` names the type.
        aux_weight: of the loss of each auxiliary output that a model has in training, as GoogLeNet (Szegedy et al.
            2015) and Inception v3.
        mean_names: the metrics that `means` returns.
        reads_logits: of an output object, as transformers' models return, the task gets the logits alone.

    Raises:
        MLScaleError: the model is None.
    """

    kind: ClassVar[str]
    task_type: TaskType | None = None
    has_named_type: ClassVar[bool] = False
    mean_names: ClassVar[tuple[str, ...]] = ("loss",)
    reads_logits: ClassVar[bool] = False
    aux_weight: float = 0.3

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: Partial | None = None,
        scheduler: Partial | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if model is None:
            raise MLScaleError("the task has no model", where="model", fix="model=resnet")
        self.model = model
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._rules: Rules = ()
        self._layer_decay = 1.0
        self._tally: EvaluationTally  # made for each evaluation: checkpoints and estimates of memory know nothing of it

    # What a subclass defines.

    def losses(self, outputs: Any, batch: Batch) -> Tensor:
        """Return the loss of each sample, float (n,), as it is reported.

        Args:
            outputs: the model's outputs for `batch.x`.
            batch: n samples.
        """
        raise NotImplementedError

    def training_losses(self, outputs: Any, batch: Batch) -> Tensor:
        """Return the loss of each sample for training, float (n,), where it is not the one that is reported."""
        return self.losses(outputs, batch)

    def means(self, outputs: Any, batch: Batch) -> tuple[Tensor, ...]:
        """Return the metrics that are weighted means, in the order of `mean_names`: the values of each sample, (n,)."""
        return (self.losses(outputs, batch),)

    def metrics(self) -> dict[str, Metric]:
        """Return new torchmetrics by name, for one pass of evaluation."""
        return {}

    def update(self, metrics: MetricCollection, outputs: Any, batch: Batch) -> None:
        """Add a batch to the metrics that `metrics` returned. Samples of weight 0 are not in it."""
        metrics.update(outputs, batch.y)

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Return the predictions for each sample, by name; the first dimension is n, whatever the weights."""
        raise NotImplementedError

    # Lightning's hooks.

    def forward(self, x: Tensor) -> Any:
        """Return the model's outputs for x (n, …)."""
        outputs = self.model(x)
        return unwrap_logits(outputs) if self.reads_logits else outputs

    def setup(self, stage: str) -> None:
        """Give lazy layers their shapes before the optimizer, DDP and checkpoints need them."""
        lazy.materialize_layers(self.model, getattr(self.trainer, "datamodule", None) or self)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss, a scalar.

        Weighted samples are divided by the size of the batch, not by the sum of its weights: then the gradient of a
        global batch is the same however it is split over ranks and accumulation, and a batch that counts for nothing
        gives zero instead of NaN.
        """
        given = unpack_batch(batch)
        return self.compute_training_loss(self(given.x), given)

    def compute_training_loss(self, outputs: Any, batch: Batch) -> Tensor:
        """Return the loss of a batch, a scalar: the main output's, and `aux_weight` times each auxiliary one's."""
        main, auxiliary = split_auxiliary(outputs)
        losses = self.training_losses(main, batch)
        for output in auxiliary:
            losses = losses + self.aux_weight * self.training_losses(output, batch)
        return losses.mean() if batch.weight is None else (losses * batch.weight).mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate(unpack_batch(batch))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self._evaluate(unpack_batch(batch))

    def on_validation_epoch_start(self) -> None:
        self._tally = self._create_tally()

    def on_test_epoch_start(self) -> None:
        self._tally = self._create_tally()

    def on_validation_epoch_end(self) -> None:
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        self._log_metrics("test")

    def configure_optimizers(self) -> Any:
        return build_optimizers(self, self._optimizer, self._scheduler, self._rules, self._layer_decay)

    def group_parameters(self, rules: Rules, layer_decay: float = 1.0) -> None:
        """Give groups of parameters settings of their own, as `parameter_groups` takes them; call before a fit."""
        self._rules, self._layer_decay = rules, layer_decay

    # Evaluation.

    def _create_tally(self) -> EvaluationTally:
        return EvaluationTally(self.mean_names, self.metrics(), self.device)

    def _evaluate(self, batch: Batch) -> None:
        outputs = self(batch.x)
        self._tally.add_means(self.means(outputs, batch), batch.weight)
        if self._tally.metrics is None:
            return
        add_batch = self._tally.update_metrics
        if batch.weight is not None and not (has_weight := batch.weight > 0).all():
            if has_weight.any():
                # torchmetrics take no weights: samples of weight 0 are removed from the batch.
                outputs, batch = select_rows(outputs, has_weight), Batch(batch.x[has_weight], batch.y[has_weight], None)
            else:
                # The rank must still take part in the collectives of torchmetrics.
                add_batch = self._tally.update_without_samples
        add_batch(lambda metrics: self.update(metrics, outputs, batch))

    def _log_metrics(self, stage: str) -> None:
        values = self._tally.compute_values(self._reduce_over_ranks)
        # Every rank holds the same value already: the largest of them is exact for any number of ranks, a mean is not.
        self.log_dict(
            {f"{stage}/{name}": value for name, value in values.items()},
            sync_dist=self.trainer.world_size > 1,
            reduce_fx="max",
        )

    def _reduce_over_ranks(self, sums: Tensor) -> Tensor:
        total = self.trainer.strategy.reduce(sums, reduce_op="sum")
        assert isinstance(total, Tensor)
        return total


def select_rows(outputs: Tensor | Mapping[str, Tensor], mask: Tensor) -> Any:
    """Return the chosen samples of a model's outputs: a tensor (n, …), or tensors by name."""
    if isinstance(outputs, Mapping):
        return {name: value[mask] for name, value in outputs.items()}
    return outputs[mask]


class EvaluationTally:
    """The sums and metrics of an evaluation so far, on the device.

    Args:
        means: names of the metrics that are weighted means.
        metrics: new torchmetrics by name.
        device: where batches are.
    """

    def __init__(self, means: Sequence[str], metrics: dict[str, Metric], device: torch.device) -> None:
        self._means = tuple(means)
        # Whole numbers are exact in float32 up to 2^24 only, fewer samples than a large evaluation set has.
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self._sums = torch.zeros(len(means) + 1, dtype=dtype, device=device)
        # No compute groups: torchmetrics finds metrics that can share their state by the first batch's values, and
        # ranks with other results would wait for each other for ever.
        self.metrics = MetricCollection({**metrics}, compute_groups=False).to(device) if metrics else None
        self._updated = False

    def add_means(self, values: Sequence[Tensor], weight: Tensor | None) -> None:
        """Add a batch to the means: the value of each for its n samples, (n,), and their weights."""
        weight = torch.ones_like(values[0]) if weight is None else weight
        # Stays on the device: nothing here waits for a result.
        self._sums += torch.stack([*((value * weight).sum() for value in values), weight.sum()])

    def update_metrics(self, add: Callable[[MetricCollection], None]) -> None:
        """Let `add` give a batch to the metrics."""
        if self.metrics is not None:
            add(self.metrics)
            self._updated = True

    def update_without_samples(self, add: Callable[[MetricCollection], None]) -> None:
        """Let `add` give a batch whose samples all have weight 0; it counts only on a rank without another batch.

        torchmetrics gathers predictions of all ranks, and a gathered state needs a type and a shape on each; an empty
        batch does not give them.
        """
        if self.metrics is None or self._updated:
            return
        self.update_metrics(add)
        for metric in self.metrics.values():
            for name, default in metric._defaults.items():
                state = getattr(metric, name)
                # The values are removed again: dtype and shape stay, and numbers return to their defaults.
                nothing: Any = [tensor[:0] for tensor in state] if isinstance(state, list) else default
                setattr(metric, name, nothing if isinstance(state, list) else nothing.clone().to(state.device))

    def compute_values(self, total: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """Return every metric, scalars by name, the same on every rank.

        Args:
            total: returns the sum of a tensor over all ranks.
        """
        sums = total(self._sums)
        values = dict(zip(self._means, (sums[:-1] / sums[-1]).float(), strict=True))
        if self.metrics is not None:
            with warnings.catch_warnings():
                # For classes without a sample, and ranks without any: each metric's definition covers these.
                warnings.simplefilter("ignore", UserWarning)
                values |= self.metrics.compute()
        return values


def split_auxiliary(outputs: object) -> tuple[Any, tuple[Any, ...]]:
    """Return the main output and the auxiliary ones: of a named tuple such as torchvision's `InceptionOutputs` and
    `GoogLeNetOutputs` give in training, the fields that begin with "aux"; any other output has none.
    """
    # By the fields' names: a named tuple of torchvision's is of another class for each model.
    names = getattr(outputs, "_fields", ())
    if not isinstance(outputs, tuple) or not any(name.startswith("aux") for name in names[1:]):
        return outputs, ()
    return outputs[0], tuple(
        value for name, value in zip(names, outputs, strict=True) if name.startswith("aux") and value is not None
    )


def unwrap_logits(outputs: object) -> Any:
    """Return the logits of an output object, as the models of transformers return; any other output as it is."""
    # torchvision's named tuples hold auxiliary outputs, too: `split_auxiliary` reads them.
    if isinstance(outputs, Tensor | tuple):
        return outputs
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    return logits if isinstance(logits, Tensor) else outputs


def check_tensor(outputs: object, kind: str) -> None:
    """Check that the output is a tensor.

    Raises:
        MLScaleError: the model returns something else, as networks for segmentation or detection do.
    """
    if isinstance(outputs, Tensor):
        return
    by_pixel = isinstance(outputs, Mapping) and isinstance(outputs.get("out"), Tensor)
    names = ", ".join(map(str, outputs)) if isinstance(outputs, Mapping) else ""
    shown = type(outputs).__name__ + (f" with {names}" if names else "")
    refused = MLScaleError(
        f"the model gives {shown}",
        where="model",
        why=f"{kind} takes a tensor (n, …)" + (", and this is a network for segmentation" if by_pixel else ""),
        fix="model=resnet18; or task=segmentation metric=val/miou with data.labels=mask"
        if by_pixel
        else "model=resnet, or a forward that returns the tensor alone",
    )
    refused.unbuilt = True  # found at the first batch
    raise refused
