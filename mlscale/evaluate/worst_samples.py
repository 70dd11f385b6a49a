"""Show the worst samples: images on a contact sheet, texts and rows of numbers in a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlscale.evaluate.report_wording import format_share
from mlscale.evaluate.sample_collector import CollectedSamples, WorstSample
from mlscale.report import Figure, Heading, ImageBlock, TableBlock
from mlscale.report.contact_sheet import Tile, convert_to_image, draw_contact_sheet, render_class_mask
from mlscale.report.text import format_number

_MAX_TEXT_LENGTH, _MAX_TABLE_ROWS = 160, 12


def build_worst_blocks(gathered: CollectedSamples) -> list[Figure]:
    """Return a heading, the contact sheet where samples are images, and the table of the samples."""
    # A sample of segmentation takes three pictures (image, truth, prediction): half as many of them are shown.
    worst = gathered.worst[: len(gathered.worst) // (1 + bool(gathered.worst and gathered.worst[0].masks))]
    # Without worst samples the section is left out, except where it means that no error was made.
    if not worst:
        return [Heading("Worst errors", "There are none.")] if _is_all_correct(gathered) else []
    kind = gathered.task_info.kind
    shown: list[Figure] = [
        Heading("Worst errors", f"{len(worst)} sample{'s' * (len(worst) != 1)}, largest loss first.")
    ]
    if worst[0].x.ndim == 3:
        png, width = draw_contact_sheet([_build_tile(gathered, sample) for sample in worst])
        title = "Image, truth, prediction" if kind == "segmentation" else "True class, and predicted class"
        shown.append(
            ImageBlock(
                title, png, width, "; ".join(" ".join(_describe_outcome(gathered, sample)) for sample in worst[:8])
            )
        )
    rows = [
        (sample.key, *_describe_outcome(gathered, sample), format_number(sample.loss, 3), *_decode_text(sample))
        for sample in worst[:_MAX_TABLE_ROWS]
    ]
    headings = ("truth", "prediction") if kind == "regression" else ("is", "predicted as")
    text = ("sample", *headings, "loss", *(("text",) if _decode_text(worst[0]) else ()))
    return [
        *shown,
        TableBlock("Which samples they are" + ", the worst of them" * (len(worst) > _MAX_TABLE_ROWS), text, rows),
    ]


def _is_all_correct(gathered: CollectedSamples) -> bool:
    columns = gathered.columns
    return gathered.task_info.kind == "classification" and bool((columns["truth"] == columns["predicted"]).all())


def _build_tile(gathered: CollectedSamples, sample: WorstSample) -> Tile:
    masks = [render_class_mask(mask) for mask in sample.masks]
    truth, prediction = _describe_outcome(gathered, sample)
    has_names = gathered.task_info.kind in ("classification", "multilabel", "regression")
    return Tile(
        [convert_to_image(sample.x), *masks],
        f"is {truth}" if has_names else truth,
        f"predicted {prediction}" if has_names else prediction,
    )


def _describe_outcome(gathered: CollectedSamples, sample: WorstSample) -> tuple[str, str]:
    """Return the truth and the prediction of a sample as text."""
    task_info, columns, row = gathered.task_info, gathered.columns, sample.row
    if task_info.kind == "classification":
        confidence = format_share(float(columns["confidence"][row]))
        prediction = f"{task_info.get_class_name(int(columns['predicted'][row]))} ({confidence})"
        return task_info.get_class_name(int(columns["truth"][row])), prediction
    if task_info.kind == "multilabel":
        truth, prediction = columns["truth"][row], columns["predicted"][row]
        return _join_class_names(gathered, truth), _join_class_names(gathered, prediction)
    if task_info.kind == "regression":
        return _format_numbers(columns["truth"][row]), _format_numbers(columns["predicted"][row])
    # Masks and sequences have no short text for truth and prediction: the key and the key metric are shown.
    if task_info.kind == "segmentation":
        return sample.key.rsplit("/", 1)[-1], f"IoU {format_share(float(columns['iou'][row]))}"
    return sample.key, f"{columns['loss'][row] / np.log(2):.2f} bits a token"


def _join_class_names(gathered: CollectedSamples, chosen: Sequence[int]) -> str:
    return ", ".join(gathered.task_info.get_class_name(index) for index in np.flatnonzero(chosen).tolist()) or "none"


def _format_numbers(values: Sequence[float]) -> str:
    return ", ".join(format_number(float(value), 4) for value in values)


def _decode_text(sample: WorstSample) -> tuple[str, ...]:
    """Return the text of a sample of token numbers (byte + 1, 0 is padding); nothing for other samples."""
    # Nothing marks a sample as text: token numbers are int64 in one dimension, at most 256.
    if (
        sample.x.ndim != 1
        or sample.x.dtype != np.int64
        or not len(sample.x)
        or sample.x.max() > 256
        or sample.x.min() < 0
    ):
        return ()
    # A sequence may start or end within a character: errors are replaced.
    content = bytes((sample.x[sample.x > 0] - 1).astype(np.uint8).tolist())
    return (" ".join(content.decode("utf-8", "replace").split())[:_MAX_TEXT_LENGTH],)
