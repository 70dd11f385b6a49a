"""One class for each sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mlscale.task_types.class_scores import ClassScores, split_scores_by_class
from mlscale.task_types.collected_samples import CollectedSamples, Columns, WorstSample, convert_to_columns
from mlscale.task_types.event_forms import JsonValue, SummaryColumns, parse_class_name
from mlscale.task_types.paired_metrics import (
    Floats,
    MetricDefinition,
    PairedStatistics,
    assign_groups,
    compute_macro_f1,
    count_by_class,
)
from mlscale.task_types.rare_classes import is_imbalanced
from mlscale.task_types.sample_score import SampleScore
from mlscale.task_types.softmax import compute_softmax
from mlscale.task_types.task_type import (
    AnswerNames,
    PredictionColumns,
    TaskType,
    build_class_schema,
    build_label_schema,
    build_shares_schema,
)

if TYPE_CHECKING:
    from torch import Tensor

    from mlscale.report import Figure
    from mlscale.task_types.report_wording import EvaluationReport


class ClassificationType(TaskType):
    """One class for each sample; `predict_step` gives `logits` (n, k)."""

    name = "classification"
    default_metric = "val/accuracy"
    target_fact = "num_classes"
    predicts = "classes"
    label_form = "one"
    is_one_class = True
    score = SampleScore("accuracy", higher_is_better=True, is_share=True, is_binary=True)
    exact_metric = MetricDefinition("accuracy", True, True)
    table_columns = ("truth", "predicted", "confidence", "probabilities", "loss")
    output_meanings: ClassVar[Mapping[str, str]] = {
        "logits": "the scores of the classes, (n, classes), in the order of the labels; softmax gives the probabilities"
    }
    passing_columns = ("probabilities", "logits")
    is_outcome_named = True
    shows_predictions = True

    def choose_metric(self, class_counts: Sequence[int]) -> str:
        """Return balanced accuracy, or of two classes AUC, where a class is rare: accuracy hardly sees that one."""
        if not is_imbalanced(class_counts):
            return self.default_metric
        return "val/auc" if len(class_counts) == 2 else "val/balanced_accuracy"

    def compare_predictions(
        self, first: Mapping[str, NDArray[Any]], second: Mapping[str, NDArray[Any]]
    ) -> NDArray[np.float64]:
        """Return 1 for each sample of which both predict the same class, else 0."""
        same: NDArray[np.bool_] = first["logits"].argmax(-1) == second["logits"].argmax(-1)
        return same.astype(np.float64)

    def renumber_truth(self, y: NDArray[Any], numbers: NDArray[np.int64]) -> NDArray[Any]:
        """Return the class numbers of the model."""
        renumbered: NDArray[Any] = numbers[y]
        return renumbered

    def compute_columns(self, outputs: Mapping[str, Tensor], y: Tensor) -> dict[str, NDArray[Any]]:
        """Return `truth`, `predicted`, `confidence`, `probabilities` (n, k), `loss`, `brier`, and `rank` of the true
        class (0: predicted correctly); of two classes also `score`, the probability of class 1."""
        from torch.nn import functional as F

        logits = outputs["logits"].float()  # 16-bit precision would round small probabilities to 0
        probabilities = logits.softmax(-1)
        confidence, predicted = probabilities.max(-1)
        of_truth = logits.gather(-1, y[:, None])
        # The Brier score Σ(p − onehot)², expanded: it needs no one-hot matrix (n, k).
        brier = (probabilities**2).sum(-1) + 1 - 2 * probabilities.gather(-1, y[:, None])[:, 0]
        columns = convert_to_columns(
            truth=y.int(),
            predicted=predicted.int(),
            confidence=confidence,
            probabilities=probabilities,
            loss=F.cross_entropy(logits, y, reduction="none"),
            brier=brier,
            rank=(logits > of_truth).sum(-1).int(),
            logits=logits,
        )
        # Probabilities are not kept, but of two classes the score of class 1 is: ROC curves need all samples.
        if columns["probabilities"].shape[1] == 2:
            columns["score"] = columns["probabilities"][:, 1]
        return columns

    def score_samples(self, columns: Columns) -> NDArray[np.float64]:
        """Return 1 for each sample that is predicted correctly, else 0."""
        return self.mark_correct(columns).astype(np.float64)

    def mark_correct(self, columns: Columns) -> NDArray[np.bool_]:
        """Return whether the true class of each sample is predicted."""
        correct: NDArray[np.bool_] = columns["truth"] == columns["predicted"]
        return correct

    def iterate_class_scores(self, first: Columns, second: Columns) -> Iterator[ClassScores]:
        """Yield whether the samples of each true class are predicted correctly: the mean is its recall."""
        return split_scores_by_class(first["truth"], self.score_samples(first), self.score_samples(second))

    def drop_classes(self, columns: Columns, numbers: NDArray[np.int64]) -> tuple[Columns, NDArray[np.bool_]]:
        """Return the columns without the samples of some classes."""
        is_left = ~np.isin(columns["truth"], numbers)
        return {name: values[is_left] for name, values in columns.items()}, is_left

    def rank_errors(self, columns: Columns) -> NDArray[Any]:
        """Return the loss of each sample; a correct prediction is not a worst error, however large its loss."""
        return np.where(self.mark_correct(columns), -np.inf, columns["loss"])

    def build_report(self, gathered: CollectedSamples, seed: int) -> EvaluationReport:
        """Return accuracy, classes, confusion, calibration; with two classes, the threshold."""
        from mlscale.task_types.reports.classification_report import build_classification_report

        return build_classification_report(gathered, seed)

    def build_training_plots(self, gathered: CollectedSamples) -> Sequence[Figure]:
        """Return the confusion matrix and the metrics of the classes."""
        from mlscale.task_types.reports.classification_report import build_training_blocks

        return build_training_blocks(gathered)

    def build_paired_statistics(self, first: Columns, second: Columns) -> PairedStatistics:
        """Return macro F1, Brier score and loss."""
        truth = np.asarray(first["truth"], np.int64)
        # Classes of either model's predictions count, too: both sides need the same columns.
        k = int(max(truth.max(), first["predicted"].max(), second["predicted"].max())) + 1
        group, groups = assign_groups(len(truth))

        def build_side_rows(columns: Columns) -> Floats:
            losses = [np.bincount(group, columns[name], groups)[:, None] for name in ("brier", "loss")]
            size = np.bincount(group, minlength=groups)[:, None]
            counts = count_by_class(truth, np.asarray(columns["predicted"], np.int64), k)
            return np.concatenate([counts, *losses, size], 1)

        def compute_f1_and_losses(sums: Floats) -> Floats:
            f1 = compute_macro_f1(sums[:, :k], sums[:, k : 2 * k], sums[:, 2 * k : 3 * k])
            return np.stack([f1, sums[:, 3 * k] / sums[:, -1], sums[:, 3 * k + 1] / sums[:, -1]], 1)

        metrics = [
            MetricDefinition("macro_f1", True, True),
            MetricDefinition("brier", False),
            MetricDefinition("loss", False),
        ]
        rows = np.concatenate([build_side_rows(first), build_side_rows(second)], 1)
        return PairedStatistics(rows, compute_f1_and_losses, metrics)

    def describe_outcome(self, gathered: CollectedSamples, sample: WorstSample) -> tuple[str, str]:
        """Return the true class, and the predicted one with its probability."""
        from mlscale.task_types.report_wording import format_share

        columns, get_class_name = gathered.columns, gathered.task_info.get_class_name
        confidence = format_share(float(columns["confidence"][sample.row]))
        prediction = f"{get_class_name(int(columns['predicted'][sample.row]))} ({confidence})"
        return get_class_name(int(columns["truth"][sample.row])), prediction

    def describe_prediction(
        self, names: Sequence[str] | None, truth: NDArray[Any], outputs: Mapping[str, NDArray[Any]]
    ) -> tuple[str, str]:
        """Return the true class, and the predicted one with its probability."""
        from mlscale.report.text import format_percent

        shares = compute_softmax(outputs["logits"])
        index = int(shares.argmax())
        return get_label(names, int(truth)), f"{get_label(names, index)} ({format_percent(shares[index], 0)})"

    def build_predictions(self, outputs: Mapping[str, NDArray[Any]], labels: Sequence[str]) -> PredictionColumns:
        """Return `predicted` (a name), `class`, `confidence`, `probabilities`."""
        probabilities = compute_softmax(np.asarray(outputs["logits"], np.float32))
        classes = probabilities.argmax(-1)
        return {
            "predicted": [labels[number] for number in classes.tolist()],
            "class": classes.astype(np.int32),
            "confidence": probabilities.max(-1),
            "probabilities": probabilities,
        }

    def list_prediction_types(self, probabilities: bool = True) -> dict[str, Any]:
        """Return the columns of `build_predictions` with their types (pyarrow)."""
        import pyarrow as pa

        floats = {"probabilities": pa.list_(pa.float32())} if probabilities else {}
        return {"predicted": pa.string(), "class": pa.int32(), "confidence": pa.float32(), **floats}

    def summarize_outputs(self, predictions: PredictionColumns, names: AnswerNames) -> SummaryColumns:
        """Return `label`, the predicted class, and `confidence`, its probability."""
        confidence = np.asarray(predictions["confidence"], np.float64)
        return {"label": [str(name) for name in predictions["predicted"]], "confidence": confidence}

    def express_as_labels(self, predictions: PredictionColumns, names: AnswerNames) -> list[Any]:
        """Return the name of the class of each prediction."""
        return list(predictions["predicted"])

    def parse_label(self, value: object, names: AnswerNames) -> str:
        """Return the name of a class, which may be given by its number."""
        return parse_class_name(value, names.labels)

    def format_labels(self, y: NDArray[Any], names: AnswerNames) -> list[Any]:
        """Return the name of the class of each sample."""
        return [names.labels[number] for number in np.asarray(y).tolist()]

    def describe_label(self, names: AnswerNames) -> dict[str, Any]:
        """Return the JSON schema of what `parse_label` takes."""
        return build_class_schema(names.labels)

    def score_prediction(self, prediction: JsonValue, label: JsonValue, names: AnswerNames) -> float:
        """Return 1 for the right class, else 0."""
        return float(prediction == label)

    def build_answers(self, predictions: PredictionColumns, names: AnswerNames) -> list[dict[str, Any]]:
        """Return `label`, `class`, `confidence` and `probabilities` of each prediction."""
        renamed = {"label" if name == "predicted" else name: values for name, values in predictions.items()}
        return super().build_answers(renamed, names)

    def build_attributes(self, predictions: PredictionColumns, names: AnswerNames) -> dict[str, Any]:
        """Return `labels` (names), `probabilities` (n, k) and `classes` (numbers)."""
        return {
            "labels": predictions["predicted"],
            "probabilities": predictions["probabilities"],
            "classes": np.asarray(predictions["class"], np.int64),
        }

    def describe_answer(self, names: AnswerNames) -> dict[str, Any]:
        """Return the JSON schema of an item of `build_answers`."""
        # Of a table the target is a column; of images and texts it has no name.
        title = {"title": names.targets[0].name} if names.targets else {}
        last = {"maximum": len(names.labels) - 1} if names.labels else {}
        return {
            "type": "object",
            "properties": {
                "label": {**build_label_schema(names.labels), **title},
                "class": {"type": "integer", "minimum": 0, **last, "description": "the label's number"},
                "confidence": {"type": "number", "minimum": 0, "maximum": 1},
                "probabilities": build_shares_schema(names.labels),
            },
            "required": ["label", "class", "confidence"],
        }


def get_label(names: Sequence[str] | None, number: int) -> str:
    """Return the name of a class; its number where it has none."""
    return names[number] if names is not None and number < len(names) else str(number)
