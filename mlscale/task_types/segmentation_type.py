"""A class for each pixel."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mlscale.task_types.class_scores import ClassScores, drop_columns, iterate_score_columns
from mlscale.task_types.collected_samples import CollectedSamples, Columns, WorstSample, convert_to_columns
from mlscale.task_types.event_forms import JsonValue, SummaryColumns
from mlscale.task_types.paired_metrics import Floats, MetricDefinition, PairedStatistics, stack_loss
from mlscale.task_types.sample_score import SampleScore
from mlscale.task_types.task_type import AnswerNames, PredictionColumns, TaskType, build_label_schema

if TYPE_CHECKING:
    from torch import Tensor

    from mlscale.task_types.report_wording import EvaluationReport

_MAX_SHARES = 20
_MAX_MASK_PIXELS = 1 << 24
IGNORED = 255  # a pixel that belongs to no class


class SegmentationType(TaskType):
    """A class for each pixel; `predict_step` gives `logits` (n, k, h, w)."""

    name = "segmentation"
    default_metric = "val/miou"
    target_fact = "num_classes"
    predicts = "classes"
    label_form = "mask"
    score = SampleScore("iou", higher_is_better=True, is_share=True)
    truth_column = "true"
    table_columns = ("hit", "predicted", "true", "iou", "loss")
    output_meanings: ClassVar[Mapping[str, str]] = {
        "logits": "the scores of the classes for each pixel, (n, classes, height, width), in the order of the labels; "
        "the largest along axis 1 is the mask, which POST /predict answers as a PNG"
    }
    sheet_title = "Image, truth, prediction"
    shows_predictions = True

    def compare_predictions(
        self, first: Mapping[str, NDArray[Any]], second: Mapping[str, NDArray[Any]]
    ) -> NDArray[np.float64]:
        """Return the share of the pixels of each sample that have the same class."""
        same: NDArray[np.bool_] = first["logits"].argmax(1) == second["logits"].argmax(1)
        return np.asarray(same.mean((1, 2)), np.float64)

    def renumber_truth(self, y: NDArray[Any], numbers: NDArray[np.int64]) -> NDArray[Any]:
        """Return masks with the class numbers of the model; pixels that are ignored stay so."""
        table = np.arange(256, dtype=np.uint8)
        table[: len(numbers)] = numbers
        renumbered: NDArray[Any] = table[y]
        return renumbered

    def compute_columns(self, outputs: Mapping[str, Tensor], y: Tensor) -> dict[str, NDArray[Any]]:
        """Return the pixels of each class that are `hit`, `predicted` and `true`, int64 (n, k) each; `iou`, the mean
        over classes that are in the image or predicted there; `loss`, mean over pixels. Ignored pixels count nowhere.
        """
        import torch
        from torch.nn import functional as F

        logits = outputs["logits"].float()
        n, k = logits.shape[:2]
        truth, predicted = y.long(), logits.argmax(1)
        valid = truth != IGNORED
        losses = F.cross_entropy(logits, truth, ignore_index=IGNORED, reduction="none").sum((1, 2))
        # One bincount over (image, class) cells counts all images of the batch at once.
        number = torch.arange(n, device=y.device)[:, None, None] * k

        def count_class_pixels(classes: Tensor, where: Tensor) -> Tensor:
            return torch.bincount((number + classes)[where], minlength=n * k).reshape(n, k)

        hit, predicted_pixels, true = (
            count_class_pixels(predicted, valid & (predicted == truth)),
            count_class_pixels(predicted, valid),
            count_class_pixels(truth.clamp(max=k - 1), valid),
        )
        union = predicted_pixels + true - hit
        # NaN in an image that has only ignored pixels.
        iou = torch.where(union > 0, hit / union.clamp(min=1), torch.nan).nanmean(-1)
        return convert_to_columns(
            hit=hit, predicted=predicted_pixels, true=true, iou=iou, loss=losses / valid.sum((1, 2)).clamp(min=1)
        )

    def score_samples(self, columns: Columns) -> NDArray[np.float64]:
        """Return the intersection over union of each image, the mean over its classes."""
        return np.asarray(columns["iou"], np.float64)

    def iterate_class_scores(self, first: Columns, second: Columns) -> Iterator[ClassScores]:
        """Yield the intersection over union of each class, of the images that have it or are predicted to have it."""
        unions = [_count_union(columns) for columns in (first, second)]
        # A model that rightly predicts nothing of a class where the other one does has found all of it.
        scores = [
            np.where(union > 0, columns["hit"] / np.maximum(union, 1), 1.0)
            for columns, union in zip((first, second), unions, strict=True)
        ]
        return iterate_score_columns(scores[0], scores[1], (unions[0] > 0) | (unions[1] > 0))

    def drop_classes(self, columns: Columns, numbers: NDArray[np.int64]) -> tuple[Columns, NDArray[np.bool_]]:
        """Return the columns without some classes, with the IoU of the others."""
        remaining = drop_columns(dict(columns), ("hit", "predicted", "true"), numbers)
        union = _count_union(remaining)
        present = (union > 0).sum(1)
        # As in `compute_columns`: NaN in an image that has none of the classes that are left.
        total = np.where(union > 0, remaining["hit"] / np.maximum(union, 1), 0).sum(1)
        remaining["iou"] = np.where(present > 0, total / np.maximum(present, 1), np.nan)
        return remaining, np.ones(len(remaining["iou"]), np.bool_)

    def build_report(self, gathered: CollectedSamples, seed: int) -> EvaluationReport:
        """Return mean IoU and pixel accuracy, and the metrics of each class."""
        from mlscale.task_types.reports.segmentation_report import build_segmentation_report

        return build_segmentation_report(gathered, seed)

    def build_paired_statistics(self, first: Columns, second: Columns) -> PairedStatistics:
        """Return mean IoU, pixel accuracy and loss."""
        k = first["hit"].shape[1]

        def compute_iou_and_loss(sums: Floats) -> Floats:
            # The same formulas as in segmentation_report.py; classes that are nowhere in a draw do not count.
            hits, predicted, truth = sums[:, :k], sums[:, k : 2 * k], sums[:, 2 * k : 3 * k]
            union = predicted + truth - hits
            mean = np.where(union > 0, hits / np.maximum(union, 1), 0).sum(1) / np.maximum((union > 0).sum(1), 1)
            accuracy = hits.sum(1) / np.maximum(truth.sum(1), 1)
            return np.stack([mean, accuracy, sums[:, 3 * k] / sums[:, -1]], 1)

        names = ("hit", "predicted", "true")
        sides = [
            np.concatenate([*(np.asarray(columns[name], float) for name in names), stack_loss(columns)], 1)
            for columns in (first, second)
        ]
        metrics = [
            MetricDefinition("miou", True, True),
            MetricDefinition("pixel_accuracy", True, True),
            MetricDefinition("loss", False),
        ]
        return PairedStatistics(np.concatenate(sides, 1), compute_iou_and_loss, metrics)

    def describe_outcome(self, gathered: CollectedSamples, sample: WorstSample) -> tuple[str, str]:
        """Return the file name in the key, and the IoU: masks have no short text."""
        from mlscale.task_types.report_wording import format_share

        return sample.key.rsplit("/", 1)[-1], f"IoU {format_share(float(gathered.columns['iou'][sample.row]))}"

    def describe_prediction(
        self, names: Sequence[str] | None, truth: NDArray[Any], outputs: Mapping[str, NDArray[Any]]
    ) -> tuple[str, str]:
        """Return the number of classes of the true mask, and the share of pixels that are predicted correctly."""
        from mlscale.report.text import format_percent

        counted = truth != IGNORED
        right = (outputs["logits"].argmax(0) == truth)[counted].mean() if counted.any() else 1.0
        return f"{len(np.unique(truth[counted]))} classes", f"{format_percent(right, 1)} of the pixels"

    def extract_masks(self, outputs: Mapping[str, Any], truth: Any) -> tuple[Any, ...]:
        """Return the true and the predicted mask."""
        return truth, outputs["logits"].argmax(0)

    def build_predictions(self, outputs: Mapping[str, NDArray[Any]], labels: Sequence[str]) -> PredictionColumns:
        """Return `mask`, a PNG of class numbers."""
        # PNG: lossless, compressed well where neighbours are equal, read by any image library. One byte for a class,
        # as in training data.
        classes = np.asarray(outputs["logits"], np.float32).argmax(1).astype(np.uint8)
        return {"mask": [encode_mask(mask) for mask in classes]}

    def list_prediction_types(self, probabilities: bool = True) -> dict[str, Any]:
        """Return the columns of `build_predictions` with their types (pyarrow)."""
        import pyarrow as pa

        return {"mask": pa.binary()}

    def summarize_outputs(self, predictions: PredictionColumns, names: AnswerNames) -> SummaryColumns:
        """Return `share_<class>`, the share of the pixels of each class; of more than 20, `share_other` of the rest."""
        shown = min(len(names.labels), _MAX_SHARES)
        shares = np.stack([_count_shares(decode_mask(content), shown) for content in predictions["mask"]])
        columns = [f"share_{name}" for name in names.labels[:shown]]
        if len(names.labels) > shown:
            columns.append("share_other")
        return dict(zip(columns, shares.T, strict=False))

    def express_as_labels(self, predictions: PredictionColumns, names: AnswerNames) -> list[Any]:
        """Return the mask of each prediction, a PNG in base64."""
        return [base64.b64encode(content).decode() for content in predictions["mask"]]

    def parse_label(self, value: object, names: AnswerNames) -> str:
        """Return a mask of class numbers, a PNG in base64; 255 is a pixel that belongs to no class."""
        example = "a label is a PNG of class numbers in base64, 255 for pixels without a class"
        if not isinstance(value, str):
            raise ValueError(example)
        try:
            content = base64.b64decode(value, validate=True)
            classes = read_untrusted_mask(content)
        except Exception as error:  # Pillow raises what its decoders raise
            raise ValueError(f"{example}: {' '.join(str(error).split())[:200]}") from error
        wrong = np.setdiff1d(classes, [*range(len(names.labels)), IGNORED])
        if len(wrong):
            raise ValueError(f"the mask has the class {wrong[0]}, and the model has 0 to {len(names.labels) - 1}")
        return value

    def format_labels(self, y: NDArray[Any], names: AnswerNames) -> list[Any]:
        """Return the mask of each sample, a PNG in base64."""
        return [base64.b64encode(encode_mask(mask)).decode() for mask in np.asarray(y, np.uint8)]

    def describe_label(self, names: AnswerNames) -> dict[str, Any]:
        """Return the JSON schema of what `parse_label` takes."""
        about = "a PNG of class numbers, 255 for pixels without a class"
        return {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/png", "description": about}

    def score_prediction(self, prediction: JsonValue, label: JsonValue, names: AnswerNames) -> float:
        """Return the intersection over union, the mean over classes; NaN for masks of different sizes."""
        sides = [decode_mask(base64.b64decode(mask)) for mask in (prediction, label)]
        if sides[0].shape != sides[1].shape:
            return math.nan
        # As `compute_columns`: ignored pixels count nowhere, and so does a class that is in neither mask.
        is_counted = sides[1] != IGNORED
        predicted, truth = (side[is_counted] for side in sides)
        counts = [np.bincount(classes, minlength=256) for classes in (predicted[predicted == truth], predicted, truth)]
        union = counts[1] + counts[2] - counts[0]
        return float((counts[0][union > 0] / union[union > 0]).mean()) if union.any() else math.nan

    def build_answers(self, predictions: PredictionColumns, names: AnswerNames) -> list[dict[str, Any]]:
        """Return `mask`, the PNG in base64, and `shares`, the share of pixels of each class that occurs."""
        return [_build_mask_answer(content, names.labels) for content in predictions["mask"]]

    def build_attributes(self, predictions: PredictionColumns, names: AnswerNames) -> dict[str, Any]:
        """Return `masks`, class numbers, uint8 (n, h, w)."""
        masks = [decode_mask(content) for content in predictions["mask"]]
        return {"masks": np.stack(masks) if masks else np.zeros((0, 0, 0), np.uint8)}

    def describe_answer(self, names: AnswerNames) -> dict[str, Any]:
        """Return the JSON schema of an item of `build_answers`."""
        share = {"type": "number", "minimum": 0, "maximum": 1}
        mask = {
            "type": "string",
            "contentEncoding": "base64",
            "contentMediaType": "image/png",
            "description": "a grey PNG, as large as the model's input; the value of a pixel is the number of its label",
        }
        shares = {
            "type": "object",
            "additionalProperties": share,
            "propertyNames": build_label_schema(names.labels),
            "description": "the share of pixels of each label that occurs",
        }
        return {
            "type": "object",
            "properties": {"mask": mask, "shares": shares},
            "required": ["mask", "shares"],
        }


def encode_mask(classes: NDArray[np.uint8]) -> bytes:
    """Return a mask of class numbers (h, w) as a PNG."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(classes).save(file, "PNG")
    return file.getvalue()


def decode_mask(content: bytes) -> NDArray[np.uint8]:
    """Return the class numbers (h, w) of a mask's PNG."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(content)), np.uint8)


def read_untrusted_mask(content: bytes) -> NDArray[np.uint8]:
    """Return the class numbers (h, w) of a mask that a client has sent.

    Raises:
        ValueError: it is not a PNG of one byte for each pixel, or too large.
        OSError: it is cut short, or corrupt.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(content), formats=["PNG"])
    except UnidentifiedImageError:
        # Pillow's own message names an object in memory.
        raise ValueError(f"it is not a PNG, or its header is corrupt; it begins {content[:8]!r}") from None
    with image:
        if image.mode not in ("L", "P"):
            raise ValueError(f"its pixels are of the mode {image.mode}, and not of one byte")
        # By the header, before the pixels take memory.
        if image.width * image.height > _MAX_MASK_PIXELS:
            raise ValueError(f"it has {image.width}×{image.height} pixels, and {_MAX_MASK_PIXELS:,} are the most")
        return np.asarray(image, np.uint8)


def _count_union(columns: Columns) -> NDArray[np.int64]:
    """Return the pixels of each sample and class that are of the class or predicted as it."""
    union: NDArray[np.int64] = columns["predicted"] + columns["true"] - columns["hit"]
    return union


def _count_shares(classes: NDArray[np.uint8], shown: int) -> NDArray[np.float64]:
    """Return the share of the pixels of each of the first classes, and of all others."""
    counts = np.bincount(np.minimum(classes.ravel(), shown), minlength=shown + 1)
    shares: NDArray[np.float64] = counts / max(classes.size, 1)
    return shares


def _build_mask_answer(content: bytes, labels: Sequence[str]) -> dict[str, Any]:
    classes, counts = np.unique(decode_mask(content), return_counts=True)
    names = (labels[number] if number < len(labels) else str(number) for number in classes.tolist())
    shares = dict(zip(names, (counts / counts.sum()).tolist(), strict=True))
    return {"mask": base64.b64encode(content).decode(), "shares": shares}
