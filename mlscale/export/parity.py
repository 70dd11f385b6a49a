"""Compare the exported model's outputs with the trained one's, on raw samples and at several batch sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlscale.data.encoders.encoder import EncodedSamples, Encoder
from mlscale.export.encoder_parity import EncoderDifference
from mlscale.export.validation_samples import SampleBatch
from mlscale.report.text import format_percent
from mlscale.task_types.task_type import TaskType

if TYPE_CHECKING:
    from mlscale.task_types.collected_samples import Columns

Outputs = Mapping[str, NDArray[Any]]
BATCHES = (1, 3, 32)  # other sizes than the example batch of the export


@dataclass
class Parity:
    """The outcome of a comparison.

    Attributes:
        metric: the name of the metric of the task; None where the task states no type.
        samples: validation samples compared.
        refused: samples that the servable's encoder refuses, and training takes: the reason by the sample's name.
        encoder: where the servable encodes a sample otherwise than training; None where it does not.
        largest_output: the largest absolute value of the trained model's outputs; errors are relative to it.
        max_abs_error: the largest absolute difference of an output over all samples.
        agreement: the mean share of equal predictions of a sample; None where predictions are numbers.
        torch_metric: of the trained model, as `mlscale evaluate` measures it; None without a metric.
        onnx_metric: of the exported one.
        higher_is_better: true if a higher value of the metric is better.
        batches: batch size to the largest absolute difference at that size.
    """

    metric: str | None = None
    samples: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    encoder: EncoderDifference | None = None
    largest_output: float = 0.0
    max_abs_error: float = 0.0
    agreement: float | None = None
    torch_metric: float | None = None
    onnx_metric: float | None = None
    higher_is_better: bool = True
    batches: dict[int, float] = field(default_factory=dict)

    @property
    def relative_error(self) -> float:
        """The largest difference over all samples and batch sizes, divided by the largest output (at least 1)."""
        # numpy's maximum keeps a NaN, Python's drops it.
        worst = float(np.max([self.max_abs_error, *self.batches.values()]))
        return worst / max(1.0, self.largest_output) if np.isfinite(self.largest_output) else float("nan")

    @property
    def metric_drop(self) -> float:
        """How much worse the metric of the exported model is; 0 without a metric."""
        if self.torch_metric is None or self.onnx_metric is None:
            return 0.0
        return (self.torch_metric - self.onnx_metric) * (1 if self.higher_is_better else -1)

    def find_problems(
        self, *, tolerance: float | None, min_agreement: float, max_metric_drop: float | None = None
    ) -> list[str]:
        """Return each bound that is not met, with its value; NaN meets none, and None means no bound."""
        problems = []
        if self.refused:
            key, why = next(iter(self.refused.items()))
            problems.append(f"{len(self.refused)} of the validation samples can't be encoded, such as {key}: {why}")
        if self.encoder is not None:
            problems.append(str(self.encoder))
        # `not x <= bound`, as every comparison with NaN is false: a diverged model must not pass.
        if tolerance is not None and not self.relative_error <= tolerance:
            problems.append(f"the outputs differ by {self.relative_error:.1e} of the largest, more than {tolerance:g}")
        if self.agreement is not None and not self.agreement >= min_agreement:
            problems.append(
                f"{format_percent(self.agreement, 2)} of the predictions agree, "
                f"fewer than {format_percent(min_agreement, 2)}"
            )
        if max_metric_drop is not None and not self.metric_drop <= max_metric_drop:
            problems.append(f"{self.metric} gets worse by {self.metric_drop:.4f}, more than {max_metric_drop:g}")
        return problems

    def as_dict(self) -> dict[str, Any]:
        """Return the content of parity.json."""
        return {
            "samples": self.samples,
            "encoder_difference": None if self.encoder is None else self.encoder.as_dict(),
            "largest_output": self.largest_output,
            "max_abs_error": self.max_abs_error,
            "relative_error": self.relative_error,
            "agreement": self.agreement,
            "metric": self.metric,
            "torch_metric": self.torch_metric,
            "onnx_metric": self.onnx_metric,
            "max_abs_error_by_batch": {str(size): error for size, error in self.batches.items()},
        }


def get_metric_name(task_type: TaskType) -> str | None:
    """Return the name of the metric that the mean score of samples is; None for a type without a score."""
    if task_type.exact_metric is not None:
        return task_type.exact_metric.name
    return task_type.score.name if hasattr(task_type, "score") else None


def compare_outputs(
    trained: Callable[[Mapping[str, NDArray[Any]]], Outputs],
    exported: Callable[[Mapping[str, NDArray[Any]]], Outputs],
    batches: Iterable[SampleBatch],
    *,
    task_type: TaskType,
    encoder: Encoder,
    on_encoded: Callable[[SampleBatch, EncodedSamples], None] = lambda batch, packed: None,
    on_batch: Callable[[SampleBatch, Outputs], None] = lambda batch, outputs: None,
) -> Parity:
    """Compare both models on the same raw samples: the trained one gets them as its data module encodes them, the
    exported one by its own encoder.

    Args:
        trained: maps the tensors of `encoder.inputs` to outputs by name.
        exported: maps those of `encoder.graph_inputs` to outputs by name.
        batches: the samples, at least one.
        task_type: of both.
        encoder: of the exported model.
        on_encoded: called with every batch before it is computed, and with what the exported model gets of it.
        on_batch: called with every batch and the exported model's outputs, which saves a second pass.
    """
    parity = Parity(get_metric_name(task_type))
    parity.higher_is_better = getattr(task_type, "score", None) is None or task_type.score.higher_is_better
    agreement, scores = _ShareMean(), (_ShareMean(), _ShareMean())
    first: list[tuple[Mapping[str, NDArray[Any]], ...]] = []
    for batch in batches:
        packed = batch.pack(encoder)
        batch, packed = _drop_refused(batch, packed, parity)
        if not len(batch.y):
            continue
        # Tensors before outputs: a difference there explains all that follows.
        on_encoded(batch, packed)
        given = packed.tensors
        sides = trained(batch.tensors), exported(given)
        on_batch(batch, sides[1])
        # Enough samples are kept for the batch sizes below.
        if sum(len(next(iter(parts[0].values()))) for parts in first) < max(BATCHES):
            first.append((given, sides[0]))
        parity.samples += len(batch.y)
        parity.largest_output = _compute_maximum(parity.largest_output, *map(_replace_infinite, sides[0].values()))
        parity.max_abs_error = _compute_maximum(parity.max_abs_error, *_subtract_outputs(*sides))
        if (same := task_type.compare_predictions(*sides)) is not None:
            agreement.add_values(same)
        if parity.metric is not None:
            for score, outputs in zip(scores, sides, strict=True):
                score.add_values(score_outputs(task_type, outputs, batch.y))
    parity.agreement = agreement.mean
    parity.torch_metric, parity.onnx_metric = (score.mean for score in scores)
    if not first:  # all were refused
        return parity
    given, expected = (_join_tensors([parts[part] for parts in first]) for part in range(2))
    for size in BATCHES:
        # With fewer samples than the batch has places, they are repeated.
        rows = np.arange(size) % len(next(iter(expected.values())))
        outputs = exported(_take_rows(given, rows))
        # As the trained model has answered them in other batches: its outputs do not depend on that.
        parity.batches[size] = _compute_maximum(0.0, *_subtract_outputs(_take_rows(expected, rows), outputs))
    return parity


class _ShareMean:
    """The mean of values that come in batches; None of no values."""

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add_values(self, values: NDArray[Any]) -> None:
        # A sample without a score has NaN.
        known = values[~np.isnan(values)]
        self._sum, self._count = self._sum + float(known.sum()), self._count + len(known)

    @property
    def mean(self) -> float | None:
        return self._sum / self._count if self._count else None


def _drop_refused(batch: SampleBatch, packed: EncodedSamples, parity: Parity) -> tuple[SampleBatch, EncodedSamples]:
    """Return the batch and the packed tensors of the samples that can be encoded, and note the others."""
    if not packed.bad:
        return batch, packed
    keys = batch.keys or [f"sample {parity.samples + row + 1}" for row in range(len(batch.y))]
    parity.refused |= {keys[row]: why for row, why in packed.bad.items()}
    rows = np.setdiff1d(np.arange(len(batch.y)), list(packed.bad))
    samples = [batch.samples[row] for row in rows]
    x = _take_rows(batch.x, rows) if isinstance(batch.x, Mapping) else batch.x[rows]
    tensors = _take_rows(batch.tensors, rows)
    remaining = SampleBatch(samples, tensors, x, batch.y[rows], [keys[row] for row in rows])
    facts = packed.facts and _take_rows(packed.facts, rows)
    return remaining, EncodedSamples(_take_rows(packed.tensors, rows), {}, facts=facts)


def compute_task_scores(task_type: TaskType, outputs: Outputs, y: NDArray[Any]) -> NDArray[np.float64] | None:
    """Return the score of each sample; None of a task type without one."""
    return task_type.score_samples(_compute_columns(task_type, outputs, y)) if hasattr(task_type, "score") else None


def _compute_columns(task_type: TaskType, outputs: Outputs, y: NDArray[Any]) -> Columns:
    tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in outputs.items()}
    return task_type.compute_columns(tensors, torch.from_numpy(y))


def score_outputs(task_type: TaskType, outputs: Outputs, y: NDArray[Any]) -> NDArray[np.float64]:
    """Return the score of each sample, by the same code as `evaluate`; 0 or 1 where samples are right or wrong."""
    columns = _compute_columns(task_type, outputs, y)
    if task_type.exact_metric is not None:
        return task_type.mark_correct(columns).astype(np.float64)
    return task_type.score_samples(columns)


def _join_tensors(parts: list[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _take_rows(tensors: Mapping[str, NDArray[Any]], rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    return {name: values[rows] for name, values in tensors.items()}


def _subtract_outputs(first: Outputs, second: Outputs) -> list[NDArray[Any]]:
    """Return the difference of each output; equal infinities, of classes that are excluded, differ by nothing."""
    with np.errstate(invalid="ignore"):
        return [
            np.where(value == second[name], 0, np.asarray(value, np.float64) - second[name])
            for name, value in first.items()
        ]


def _replace_infinite(values: NDArray[Any]) -> NDArray[Any]:
    return np.where(np.isinf(values), 0, values)


def _compute_maximum(value: float, *arrays: NDArray[Any]) -> float:
    # Unlike Python's max, np.maximum and .max() keep a NaN.
    return float(np.max([value, *(np.abs(array).max() for array in arrays if array.size)]))
