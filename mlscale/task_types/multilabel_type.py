"""Any number of labels for each sample."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mlscale.task_types.class_scores import ClassScores, drop_columns, iterate_score_columns
from mlscale.task_types.classification_type import get_label
from mlscale.task_types.collected_samples import CollectedSamples, Columns, WorstSample, convert_to_columns
from mlscale.task_types.event_forms import JsonValue, SummaryColumns, parse_class_name, parse_json_text
from mlscale.task_types.paired_metrics import Floats, MetricDefinition, PairedStatistics, stack_loss
from mlscale.task_types.sample_score import SampleScore
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

    from mlscale.task_types.report_wording import EvaluationReport

_MAX_SHOWN_LABELS = 5


class MultilabelType(TaskType):
    """Any number of labels for each sample; `predict_step` gives `logits` (n, k)."""

    name = "multilabel"
    default_metric = "val/map"
    target_fact = "num_classes"
    predicts = "classes"
    label_form = "several"
    needs_every_label = True
    score = SampleScore("label_accuracy", higher_is_better=True, is_share=True)
    exact_metric = MetricDefinition("exact_match", True, True)
    table_columns = ("truth", "predicted", "probabilities", "loss")
    output_meanings: ClassVar[Mapping[str, str]] = {
        "logits": "the scores of the labels, (n, labels), in their order; a label is predicted above 0"
    }
    is_outcome_named = True
    shows_predictions = True

    def compare_predictions(
        self, first: Mapping[str, NDArray[Any]], second: Mapping[str, NDArray[Any]]
    ) -> NDArray[np.float64]:
        """Return 1 for each sample of which both predict the same labels, else 0."""
        same: NDArray[np.bool_] = ((first["logits"] > 0) == (second["logits"] > 0)).all(-1)
        return same.astype(np.float64)

    def renumber_truth(self, y: NDArray[Any], numbers: NDArray[np.int64]) -> NDArray[Any]:
        """Return the labels in the order of the model, (n, labels)."""
        ordered = np.empty_like(y)
        ordered[:, numbers] = y
        return ordered

    def compute_columns(self, outputs: Mapping[str, Tensor], y: Tensor) -> dict[str, NDArray[Any]]:
        """Return `truth`, `predicted` (uint8) and `probabilities`, (n, k) each; `loss`, the mean over labels."""
        import torch
        from torch.nn import functional as F

        logits = outputs["logits"].float()
        return convert_to_columns(
            truth=y.to(torch.uint8),
            predicted=(logits > 0).to(torch.uint8),  # a probability above 0.5
            probabilities=logits.sigmoid(),
            loss=F.binary_cross_entropy_with_logits(logits, y.float(), reduction="none").mean(-1),
        )

    def score_samples(self, columns: Columns) -> NDArray[np.float64]:
        """Return the share of the labels of each sample that are predicted correctly."""
        share: NDArray[np.float64] = (columns["truth"] == columns["predicted"]).mean(1)
        return share

    def mark_correct(self, columns: Columns) -> NDArray[np.bool_]:
        """Return whether all labels of each sample are predicted correctly."""
        return np.asarray((columns["truth"] == columns["predicted"]).all(1))

    def iterate_class_scores(self, first: Columns, second: Columns) -> Iterator[ClassScores]:
        """Yield whether each label is predicted correctly, of the samples that have it or are predicted to have it."""
        truth = first["truth"]
        scores = [np.asarray(columns["truth"] == columns["predicted"], np.float64) for columns in (first, second)]
        is_concerned = (truth + first["predicted"] + second["predicted"]) > 0
        return iterate_score_columns(scores[0], scores[1], is_concerned, _compute_chance(truth, first["predicted"]))

    def drop_classes(self, columns: Columns, numbers: NDArray[np.int64]) -> tuple[Columns, NDArray[np.bool_]]:
        """Return the columns without some labels."""
        remaining = drop_columns(dict(columns), ("truth", "predicted", "probabilities"), numbers)
        return remaining, np.ones(len(remaining["truth"]), np.bool_)

    def build_report(self, gathered: CollectedSamples, seed: int) -> EvaluationReport:
        """Return exact match, F1 and average precision, and the metrics of each label."""
        from mlscale.task_types.reports.multilabel_report import build_multilabel_report

        return build_multilabel_report(gathered, seed)

    def build_paired_statistics(self, first: Columns, second: Columns) -> PairedStatistics:
        """Return macro F1 and loss."""
        k = first["truth"].shape[1]

        def compute_f1_and_loss(sums: Floats) -> Floats:
            # A label without samples and predictions counts 0, as in the multilabel report and in torchmetrics.
            f1 = (2 * sums[:, :k] / np.maximum(sums[:, k : 2 * k] + sums[:, 2 * k : 3 * k], 1)).mean(1)
            return np.stack([f1, sums[:, 3 * k] / sums[:, -1]], 1)

        sides = [np.concatenate([_stack_label_hits(columns), stack_loss(columns)], 1) for columns in (first, second)]
        metrics = [MetricDefinition("f1_macro", True, True), MetricDefinition("loss", False)]
        return PairedStatistics(np.concatenate(sides, 1), compute_f1_and_loss, metrics)

    def describe_outcome(self, gathered: CollectedSamples, sample: WorstSample) -> tuple[str, str]:
        """Return the names of the true and of the predicted labels."""
        truth, predicted = (
            ", ".join(gathered.task_info.get_class_name(index) for index in np.flatnonzero(chosen).tolist()) or "none"
            for chosen in (gathered.columns[name][sample.row] for name in ("truth", "predicted"))
        )
        return truth, predicted

    def describe_prediction(
        self, names: Sequence[str] | None, truth: NDArray[Any], outputs: Mapping[str, NDArray[Any]]
    ) -> tuple[str, str]:
        """Return the names of the first true and of the first predicted labels."""

        def format_labels(indices: NDArray[Any]) -> str:
            shown = [get_label(names, int(index)) for index in indices[:_MAX_SHOWN_LABELS]]
            return ", ".join(shown) + (", …" if len(indices) > _MAX_SHOWN_LABELS else "") or "none"

        # A logit above 0 is a probability above one half.
        return format_labels(np.flatnonzero(truth > 0.5)), format_labels(np.flatnonzero(outputs["logits"] > 0))

    def build_predictions(self, outputs: Mapping[str, NDArray[Any]], labels: Sequence[str]) -> PredictionColumns:
        """Return `predicted` (names) and `probabilities`."""
        logits = np.asarray(outputs["logits"], np.float32)
        # In float64, where the exponential overflows only beyond logits of -709; in float32 beyond -88.
        shares = 1 / (1 + np.exp(-logits.astype(np.float64)))
        names = [[labels[index] for index in np.flatnonzero(row).tolist()] for row in logits > 0]
        return {"predicted": names, "probabilities": shares.astype(np.float32)}

    def list_prediction_types(self, probabilities: bool = True) -> dict[str, Any]:
        """Return the columns of `build_predictions` with their types (pyarrow)."""
        import pyarrow as pa

        floats = {"probabilities": pa.list_(pa.float32())} if probabilities else {}
        return {"predicted": pa.list_(pa.string()), **floats}

    def summarize_outputs(self, predictions: PredictionColumns, names: AnswerNames) -> SummaryColumns:
        """Return `label_count`, and `confidence`, the mean probability of what is predicted of each label."""
        shares = np.asarray(predictions["probabilities"], np.float64)
        return {
            "label_count": np.array([len(chosen) for chosen in predictions["predicted"]], np.float64),
            "confidence": np.maximum(shares, 1 - shares).mean(-1),
        }

    def express_as_labels(self, predictions: PredictionColumns, names: AnswerNames) -> list[Any]:
        """Return the names of the labels of each prediction."""
        return [list(chosen) for chosen in predictions["predicted"]]

    def parse_label(self, value: object, names: AnswerNames) -> list[str]:
        """Return the names of labels, in the order of the model."""
        given = parse_json_text(value)
        if not isinstance(given, list):
            raise ValueError(f"a label is a list of names, such as {json.dumps(list(names.labels[:2]))}, or []")
        chosen = {parse_class_name(item, names.labels) for item in given}
        return [name for name in names.labels if name in chosen]

    def format_labels(self, y: NDArray[Any], names: AnswerNames) -> list[Any]:
        """Return the names of the labels of each sample."""
        return [[names.labels[number] for number in np.flatnonzero(row > 0.5).tolist()] for row in np.asarray(y)]

    def describe_label(self, names: AnswerNames) -> dict[str, Any]:
        """Return the JSON schema of what `parse_label` takes."""
        listed = {"type": "array", "items": build_class_schema(names.labels)}
        return {"anyOf": [listed, {"type": "string", "description": "the list as a text that holds its JSON"}]}

    def score_prediction(self, prediction: JsonValue, label: JsonValue, names: AnswerNames) -> float:
        """Return the share of the labels that are predicted correctly."""
        return 1 - len(set(prediction) ^ set(label)) / len(names.labels)

    def build_answers(self, predictions: PredictionColumns, names: AnswerNames) -> list[dict[str, Any]]:
        """Return `labels` and `probabilities` of each prediction."""
        renamed = {"labels" if name == "predicted" else name: values for name, values in predictions.items()}
        return super().build_answers(renamed, names)

    def build_attributes(self, predictions: PredictionColumns, names: AnswerNames) -> dict[str, Any]:
        """Return `labels`, a set of names for each sample, and `probabilities` (n, labels)."""
        return {"labels": list(map(set, predictions["predicted"])), "probabilities": predictions["probabilities"]}

    def describe_answer(self, names: AnswerNames) -> dict[str, Any]:
        """Return the JSON schema of an item of `build_answers`."""
        return {
            "type": "object",
            "properties": {
                "labels": {"type": "array", "items": build_label_schema(names.labels)},
                "probabilities": build_shares_schema(names.labels),
            },
            "required": ["labels"],
        }


def _compute_chance(truth: NDArray[Any], predicted: NDArray[Any]) -> Floats:
    """Return the share of right predictions of each label that would come about by chance, of the samples that have it
    or are predicted to have it, (k,): of a frequent label it is large.
    """
    has, finds = truth.mean(0), predicted.mean(0)
    both = has * finds
    chance: Floats = both / np.maximum(has + finds - both, 1e-12)
    return chance


def _stack_label_hits(columns: Columns) -> Floats:
    truth, predicted = columns["truth"].astype(bool), columns["predicted"].astype(bool)
    return np.concatenate([truth & predicted, truth, predicted], 1).astype(np.float64)
