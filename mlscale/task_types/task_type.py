"""The interface of a task type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import MLScaleError
from mlscale.task_types.class_scores import ClassScores
from mlscale.task_types.collected_samples import CollectedSamples, Columns, WorstSample
from mlscale.task_types.event_forms import AnswerNames, EventForms, PredictionColumns, TargetColumn
from mlscale.task_types.paired_metrics import MetricDefinition, PairedStatistics
from mlscale.task_types.sample_score import SampleScore

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mlscale.report import Figure
    from mlscale.task_types.report_wording import EvaluationReport

__all__ = ["INPUT", "AnswerNames", "PredictionColumns", "TargetColumn", "TaskType"]
INPUT = "input"
"""The name of the tensor, where a model takes a single one (`mlscale.data.encoders.encoder`)."""
MOST_LISTED_LABELS = 10_000
"""The most class names that a schema or a server's metadata lists: documents of megabytes are read by nobody."""


def build_label_schema(labels: Sequence[str]) -> dict[str, Any]:
    """Return the JSON schema of a class name: one of them, where they are known and not too many to list."""
    # An empty enum would allow no name at all.
    return {"type": "string", **({"enum": list(labels)} if 0 < len(labels) <= MOST_LISTED_LABELS else {})}


def build_class_schema(labels: Sequence[str]) -> dict[str, Any]:
    """Return the JSON schema of a class that is given by its name or its number."""
    last = {"maximum": len(labels) - 1} if labels else {}
    return {"anyOf": [build_label_schema(labels), {"type": "integer", "minimum": 0, **last}]}


def build_shares_schema(labels: Sequence[str]) -> dict[str, Any]:
    """Return the JSON schema of a list with a probability for each class."""
    # Labels may be unknown, of a format that has none.
    size = {"minItems": len(labels), "maxItems": len(labels)} if labels else {}
    share = {"type": "number", "minimum": 0, "maximum": 1}
    return {"type": "array", "items": share, **size, "description": "of each class, in the order of the labels"}


class TaskType(EventForms):
    """A kind of work: how its predictions are measured, compared, shown and written. Stateless: one object serves all.

    A subclass sets `name`, `default_metric`, `score` and `table_columns`, and defines `compute_columns`,
    `score_samples`, `build_predictions` and `list_prediction_types`; and `compute_losses` and `convert_outputs`, where
    it has no LightningModule of its own. The rest has a default that follows from the score and the loss of each
    sample. Data arrives as arguments: numpy arrays, and tensors where the signature has them. torch, pyarrow and the
    reports are imported inside functions.

    Attributes:
        name: by which the registry finds it; `Task.kind`.
        default_metric: judges a run, unless another metric is set.
        target_fact: the fact of the data (`DataFacts`) that shows that it holds what is predicted; None for any data.
        predicts: what is predicted, as a message has it: 'classes', 'numbers'.
        label_form: the form of the labels that it takes, a word of `data.labels`; None where there is no such word.
        is_one_class: each sample has one class, with a probability for each: what `lifecycle` takes, and profiles of
            format 1 hold.
        needs_every_label: each class is measured on every sample: the data must have all of a model's.
        most_passes: the most epochs over new samples by which a model still learns what holds for others; None where
            the length of its own training decides.
        score: of a sample.
        exact_metric: the share of samples that are predicted correctly, where a prediction is right or wrong.
        fewest_compared: the samples that a comparison of two models by a number needs, such as a loss, not a share. In
            fewer, values as rare as one in twenty, and large enough to decide, are often missing.
        loss_name: what the column `loss` is called in slices.
        may_have_infinite_loss: a loss may be infinite: logits of -inf exclude a class.
        truth_column: the column of which two models must agree.
        table_columns: the columns of the table of samples, next to the keys.
        passing_columns: columns that are not kept in memory.
        outcome_headings: of `describe_outcome`, in the table of the worst samples.
        is_outcome_named: the outcome is a truth and a prediction, not the sample's key and its metric.
        sheet_title: of the contact sheet of the worst samples.
        shows_predictions: `describe_prediction` describes a sample.
        output_meanings: what each output of `predict_step` is, for clients that read tensors, by its name.
    """

    name: ClassVar[str]
    default_metric: ClassVar[str]
    score: ClassVar[SampleScore]
    table_columns: ClassVar[tuple[str, ...]]

    # Of the data and of other commands.
    target_fact: ClassVar[str | None] = None
    predicts: ClassVar[str] = ""
    label_form: ClassVar[str | None] = None
    is_one_class: ClassVar[bool] = False
    needs_every_label: ClassVar[bool] = False
    most_passes: ClassVar[int | None] = None

    # Of samples.
    exact_metric: ClassVar[MetricDefinition | None] = None
    fewest_compared: ClassVar[int] = 60
    loss_name: ClassVar[str] = "loss"
    may_have_infinite_loss: ClassVar[bool] = True
    truth_column: ClassVar[str] = "truth"
    passing_columns: ClassVar[tuple[str, ...]] = ()
    outcome_headings: ClassVar[tuple[str, str]] = ("true", "predicted")
    is_outcome_named: ClassVar[bool] = False
    sheet_title: ClassVar[str] = "True class, and predicted class"
    shows_predictions: ClassVar[bool] = False
    output_meanings: ClassVar[Mapping[str, str]] = {}

    def choose_metric(self, class_counts: Sequence[int]) -> str:
        """Return the metric that judges a run, unless another is set; `class_counts` are of training, () if unknown."""
        return self.default_metric

    # Training, by `mlscale.tasks.TypedTask`.

    def compute_losses(self, outputs: Any, y: Tensor) -> Tensor:
        """Return the loss of each sample, float (n,).

        Args:
            outputs: of the model.
            y: the truth, as the data gives it.
        """
        raise self._create_missing_error("compute_losses")

    def convert_outputs(self, outputs: Any) -> dict[str, Tensor]:
        """Return the outputs of `predict_step` by name, n first, from those of the model."""
        raise self._create_missing_error("convert_outputs")

    # Inference: what an exported graph computes.

    def compute_outputs(self, task: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the outputs of `predict_step` for encoded samples, in a form that can be traced.

        Of a module without a `predict_step` of its own they are what `forward` gives, for a type with one output.

        Args:
            task: a LightningModule with its weights, for inference.
            tensors: by the names of the encoder's `inputs`, n first.
        """
        from pytorch_lightning import LightningModule
        from torch import int64, zeros

        x = tensors[INPUT] if len(tensors) == 1 and INPUT in tensors else dict(tensors)
        # Lightning's own `predict_step` passes the whole batch to `forward`.
        has_own_step = getattr(type(task), "predict_step", None) is not LightningModule.predict_step
        if not has_own_step and len(self.output_meanings) == 1:
            given = task(**x) if isinstance(x, dict) else task(x)
            (name,) = self.output_meanings
            # A number for each sample is a column of one.
            return dict(given) if isinstance(given, Mapping) else {name: given[:, None] if given.ndim == 1 else given}
        # `predict_step` takes a batch as training has it; the truth is unknown and only fills its place.
        # Not `len`, which would be traced as the number of the example's samples.
        first = next(iter(tensors.values()))
        y = zeros(first.shape[0], dtype=int64, device=first.device)
        predict_step: Any = task.predict_step
        outputs: dict[str, Tensor] = predict_step({"x": x, "y": y}, 0)
        return outputs

    def merge_rows(self, outputs: Mapping[str, NDArray[Any]], counts: NDArray[np.int64]) -> Mapping[str, NDArray[Any]]:
        """Return the outputs of samples from those of their rows, where a sample may have several.

        Args:
            outputs: of all rows.
            counts: the rows of each sample, at least one.
        """
        raise self._create_missing_error("merge_rows")

    def compare_predictions(
        self, first: Mapping[str, NDArray[Any]], second: Mapping[str, NDArray[Any]]
    ) -> NDArray[np.float64] | None:
        """Return how far two models predict the same for each sample, a share (n,); None where predictions are numbers,
        which are compared by their difference.
        """
        return None

    # Samples: their columns, and what follows from these.

    def renumber_truth(self, y: NDArray[Any], numbers: NDArray[np.int64]) -> NDArray[Any]:
        """Return the truth as a model numbers it: by default it has no classes, and is as it was.

        Args:
            y: the truth, as the data gives it.
            numbers: the model's number of each class of the data, or of each target.
        """
        return y

    def compute_columns(self, outputs: Mapping[str, Tensor], y: Tensor) -> dict[str, NDArray[Any]]:
        """Return the columns of a batch, one row for each sample; `loss` is one of them.

        Args:
            outputs: of `predict_step`, n first.
            y: the truth, as the data gives it, on the same device.
        """
        raise self._create_missing_error("compute_columns")

    def score_samples(self, columns: Columns) -> NDArray[np.float64]:
        """Return the score of each sample, (n,); NaN where it has none."""
        raise self._create_missing_error("score_samples")

    def mark_correct(self, columns: Columns) -> NDArray[np.bool_]:
        """Return whether each sample is predicted correctly, bool (n,); only with `exact_metric`."""
        raise self._create_missing_error("mark_correct")

    def rank_errors(self, columns: Columns) -> NDArray[Any]:
        """Return the number by which the worst samples are found, the largest first, (n,); -inf for no error."""
        return columns["loss"]

    def select_slice_metric(self, columns: Columns) -> tuple[NDArray[Any], bool, str]:
        """Return the values by sample that slices are compared by, correct (bool) or the loss; true for the former; the
        metric's name."""
        # Where a prediction is right or wrong that is easier to read than a loss, and has an exact test.
        if self.exact_metric is not None:
            return self.mark_correct(columns), True, self.exact_metric.name
        return np.asarray(columns["loss"], np.float64), False, self.loss_name

    # Classes, for tests of each: by default there are none.

    def list_class_names(self, names: AnswerNames) -> tuple[str, ...]:
        """Return the names of what `iterate_class_scores` has scores of, by number."""
        return names.labels

    def iterate_class_scores(self, first: Columns, second: Columns) -> Iterator[ClassScores]:
        """Yield the scores of two models for each class, of the samples that it concerns."""
        yield from ()

    def drop_classes(self, columns: Columns, numbers: NDArray[np.int64]) -> tuple[Columns, NDArray[np.bool_]]:
        """Return the columns without some classes, and which samples are left, bool (n,).

        Args:
            columns: of n samples.
            numbers: of the classes.
        """
        raise self._create_missing_error("drop_classes")

    # Reports.

    def build_report(self, gathered: CollectedSamples, seed: int) -> EvaluationReport:
        """Return metrics with intervals, tables and plots of an evaluation pass: by default, of the score alone.

        Args:
            gathered: the samples, at least one.
            seed: of the bootstrap and of other random draws.
        """
        from mlscale.task_types.reports.score_report import build_score_report

        return build_score_report(self.score, self.score_samples(gathered.columns), seed)

    def build_training_plots(self, gathered: CollectedSamples) -> Sequence[Figure]:
        """Return what a run's page shows of its last validation: by default, the plots and tables of the report.

        Args:
            gathered: the samples, at least one.
        """
        return self.build_report(gathered, seed=0).blocks

    def build_paired_statistics(self, first: Columns, second: Columns) -> PairedStatistics:
        """Return the metrics that two models are compared by on the same samples: by default, the mean score."""
        sides = [self.score_samples(columns) for columns in (first, second)]
        # A sample without a score in either model counts in neither: they are compared on the same samples.
        known = ~np.isnan(sides[0] + sides[1])
        rows = np.concatenate([np.stack([np.where(known, values, 0), known], 1) for values in sides], 1)
        metric = MetricDefinition(self.score.name, self.score.higher_is_better, self.score.is_share)
        return PairedStatistics(rows, lambda sums: sums[:, :1] / np.maximum(sums[:, 1:], 1), [metric])

    def describe_outcome(self, gathered: CollectedSamples, sample: WorstSample) -> tuple[str, str]:
        """Return the truth and the prediction of a sample as text; where they have none, its key and its score."""
        from mlscale.report.text import format_number

        columns = {name: values[sample.row][None] for name, values in gathered.columns.items()}
        value = float(self.score_samples(columns)[0])
        return sample.key, f"{self.score.name.replace('_', ' ')} {format_number(value, 3)}"

    def describe_prediction(
        self, names: Sequence[str] | None, truth: NDArray[Any], outputs: Mapping[str, NDArray[Any]]
    ) -> tuple[str, str]:
        """Return the truth and the prediction of one sample of a batch as text; only with `shows_predictions`.

        Args:
            names: of the classes by number; None where they have none.
            truth: of the sample.
            outputs: of `predict_step`, of this sample.
        """
        raise self._create_missing_error("describe_prediction")

    def extract_masks(self, outputs: Mapping[str, Any], truth: Any) -> tuple[Any, ...]:
        """Return the masks of one sample that its image is shown with, class numbers (h, w): the truth first."""
        return ()

    # Predictions.

    def build_predictions(self, outputs: Mapping[str, NDArray[Any]], labels: Sequence[str]) -> PredictionColumns:
        """Return the columns of predictions, from a model's outputs for n samples.

        Args:
            outputs: as of `predict_step`.
            labels: names of the classes by number.
        """
        raise self._create_missing_error("build_predictions")

    def list_prediction_types(self, probabilities: bool = True) -> dict[str, Any]:
        """Return the columns of `build_predictions` with their types (pyarrow), those between `key` and `error`.

        Args:
            probabilities: with those of every class.
        """
        raise self._create_missing_error("list_prediction_types")

    def build_attributes(self, predictions: PredictionColumns, names: AnswerNames) -> dict[str, Any]:
        """Return what the predictions of n samples are in Python, by name, n first: by default, their columns.

        Args:
            predictions: as of `build_predictions`.
            names: of classes and targets.
        """
        return dict(predictions)

    def describe_answer(self, names: AnswerNames) -> dict[str, Any]:
        """Return the JSON schema of an item of `build_answers`."""
        return {"type": "object"}

    def _create_missing_error(self, method: str) -> MLScaleError:
        kind = type(self)
        return MLScaleError(
            f"the task type '{self.name}' has no {method}",
            where=f"{kind.__module__}.{kind.__qualname__}",
            why="it does not follow from the rest of the type",
            fix=f"define {method}: docs/extending.md, 'A task type', shows one",
        )
