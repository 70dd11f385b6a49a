"""The next token of a sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mlscale.task_types.collected_samples import CollectedSamples, Columns, WorstSample, convert_to_columns
from mlscale.task_types.event_forms import EventForms, JsonValue, SummaryColumns
from mlscale.task_types.paired_metrics import Floats, MetricDefinition, PairedStatistics
from mlscale.task_types.sample_score import SampleScore
from mlscale.task_types.task_type import AnswerNames, PredictionColumns, TaskType
from mlscale.task_types.window_sums import sum_windows

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mlscale.task_types.report_wording import EvaluationReport


class LanguageType(TaskType):
    """The next token of a sequence; `predict_step` gives `nats` and `tokens` of each sequence, (n,)."""

    name = "language"
    default_metric = "val/bits_per_byte"
    target_fact = "vocab_size"
    predicts = "the next token of a text"
    score = SampleScore("nats_per_token", higher_is_better=False, unit="nats")
    loss_name = "nats_per_token"
    needs_label = False
    # Text that is read four times teaches as much as new text, and soon after that next to nothing: Muennighoff et al.
    # (2023), Scaling Data-Constrained Language Models.
    most_passes = 4
    truth_column = "tokens"
    table_columns = ("nats", "tokens", "loss")
    output_meanings: ClassVar[Mapping[str, str]] = {
        "nats": "the loss of a document, the sum over its tokens",
        "tokens": "the number of tokens that it sums",
    }

    def compute_outputs(self, task: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return `nats` and `tokens` of each row, from windows of tokens and the positions that count in them."""
        import torch
        from torch.nn import functional as F

        tokens, scored = tensors["input"], tensors["scored"]
        logits, y = task(tokens[:, :-1]).float(), tokens[:, 1:]
        nats = F.cross_entropy(logits.transpose(1, 2), y, reduction="none")
        positions = torch.arange(y.shape[1], device=y.device)
        counts = (positions >= scored[:, :1]) & (positions < scored[:, 1:])
        # Not a product: the loss of a position that does not count may be infinite.
        return {"nats": torch.where(counts, nats, torch.zeros_like(nats)).sum(1), "tokens": counts.sum(1)}

    def merge_rows(self, outputs: Mapping[str, NDArray[Any]], counts: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Return the sums over the windows of each document."""
        return sum_windows(outputs, counts)

    def compute_columns(self, outputs: Mapping[str, Tensor], y: Tensor) -> dict[str, NDArray[Any]]:
        """Return `nats` and `tokens` of each sequence; `loss`, nats a token; `bytes` of text, where tokens are none."""
        nats, tokens = outputs["nats"].float(), outputs["tokens"]
        counted = {"bytes": outputs["bytes"].float()} if "bytes" in outputs else {}
        return convert_to_columns(nats=nats, tokens=tokens.long(), loss=nats / tokens.clamp(min=1), **counted)

    def score_samples(self, columns: Columns) -> NDArray[np.float64]:
        """Return the nats per token of each sequence."""
        return np.asarray(columns["nats"], np.float64) / np.maximum(columns["tokens"], 1)

    def build_report(self, gathered: CollectedSamples, seed: int) -> EvaluationReport:
        """Return bits per byte and perplexity."""
        from mlscale.task_types.reports.language_report import build_language_report

        return build_language_report(gathered, seed)

    def build_paired_statistics(self, first: Columns, second: Columns) -> PairedStatistics:
        """Return bits per byte."""
        sides = [
            np.stack([np.asarray(columns[name], np.float64) for name in ("nats", name_bytes(columns))], 1)
            for columns in (first, second)
        ]
        metrics = [MetricDefinition("bits_per_byte", False)]
        return PairedStatistics(np.concatenate(sides, 1), _compute_bits_per_byte, metrics)

    def describe_outcome(self, gathered: CollectedSamples, sample: WorstSample) -> tuple[str, str]:
        """Return the key, and the bits per token: sequences have no short text for truth and prediction."""
        return sample.key, f"{gathered.columns['loss'][sample.row] / np.log(2):.2f} bits a token"

    def build_predictions(self, outputs: Mapping[str, NDArray[Any]], labels: Sequence[str]) -> PredictionColumns:
        """Return `nats` and `tokens` of each sequence."""
        return {"nats": outputs["nats"].astype(np.float32), "tokens": outputs["tokens"].astype(np.int64)}

    def list_prediction_types(self, probabilities: bool = True) -> dict[str, Any]:
        """Return the columns of `build_predictions` with their types (pyarrow)."""
        import pyarrow as pa

        return {"nats": pa.float32(), "tokens": pa.int64()}

    def summarize_outputs(self, predictions: PredictionColumns, names: AnswerNames) -> SummaryColumns:
        """Return `loss`, the nats per token of each sequence."""
        nats, tokens = (np.asarray(predictions[name], np.float64) for name in ("nats", "tokens"))
        return {"loss": nats / np.maximum(tokens, 1)}

    def express_as_labels(self, predictions: PredictionColumns, names: AnswerNames) -> list[Any]:
        """Return `nats` and `tokens` of each sequence."""
        return EventForms.build_answers(self, predictions, names)

    def parse_label(self, value: object, names: AnswerNames) -> Any:
        """Refuse every label: the text itself shows how well it was predicted."""
        raise ValueError("a language model takes no labels: each text is scored by its own tokens")

    def format_labels(self, y: NDArray[Any], names: AnswerNames) -> list[Any]:
        """Return None for each sample: a text is its own truth."""
        return [None] * len(y)

    def describe_label(self, names: AnswerNames) -> dict[str, Any]:
        """Return the JSON schema of what `parse_label` takes."""
        return {"not": {}, "description": "a language model takes no labels"}

    def score_prediction(self, prediction: JsonValue, label: JsonValue, names: AnswerNames) -> float:
        """Return the nats per token."""
        return float(prediction["nats"]) / max(int(prediction["tokens"]), 1)

    def build_answers(self, predictions: PredictionColumns, names: AnswerNames) -> list[dict[str, Any]]:
        """Return `nats`, `tokens` and `nats_per_token` of each sequence."""
        rows = super().build_answers(predictions, names)
        return [{**row, "nats_per_token": row["nats"] / max(row["tokens"], 1)} for row in rows]

    def build_attributes(self, predictions: PredictionColumns, names: AnswerNames) -> dict[str, Any]:
        """Return `nats`, `tokens` and `nats_per_token`, (n,)."""
        nats, tokens = np.asarray(predictions["nats"]), np.asarray(predictions["tokens"])
        return {"nats": nats, "tokens": tokens, "nats_per_token": nats.astype(np.float64) / np.maximum(tokens, 1)}

    def describe_answer(self, names: AnswerNames) -> dict[str, Any]:
        """Return the JSON schema of an item of `build_answers`."""
        number = {"type": "number", "minimum": 0}
        return {
            "type": "object",
            "properties": {"nats": number, "tokens": {"type": "integer", "minimum": 0}, "nats_per_token": number},
            "required": ["nats", "tokens", "nats_per_token"],
        }


def name_bytes(columns: Columns) -> str:
    """Return the name of the column that has the bytes of each sequence."""
    # Absent where a token is a byte, as in tables that were written before there were tokenizers.
    return "bytes" if "bytes" in columns else "tokens"


def _compute_bits_per_byte(sums: Floats) -> Floats:
    bits: Floats = sums[:, :1] / np.maximum(sums[:, 1:2], 1) / np.log(2)
    return bits
