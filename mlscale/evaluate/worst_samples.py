"""Show the worst samples: images on a contact sheet, texts and rows of numbers in a table."""

from __future__ import annotations

import math

import numpy as np

from mlscale.evaluate.sample_collector import EvaluatedSamples
from mlscale.report import Figure, Heading, TableBlock
from mlscale.report.contact_sheet import (
    Tile,
    build_contact_sheet,
    convert_to_image,
    list_mask_colours,
    render_class_mask,
)
from mlscale.report.text import format_number
from mlscale.task_types.collected_samples import WorstSample

_MAX_TEXT_LENGTH, _MAX_TABLE_ROWS = 160, 12


def build_worst_blocks(gathered: EvaluatedSamples, max_bytes: float = math.inf) -> list[Figure]:
    """Return a heading, the contact sheet where samples are images, and the table of the samples.

    Args:
        gathered: the samples of a pass.
        max_bytes: of the sheet, about.
    """
    # A sample of segmentation takes three pictures (image, truth, prediction): half as many of them are shown.
    worst = gathered.worst[: len(gathered.worst) // (1 + bool(gathered.worst and gathered.worst[0].masks))]
    # Without worst samples the section is left out, except where it means that no error was made.
    if not worst:
        return [Heading("Worst errors", "There are none.")] if _is_all_correct(gathered) else []
    task_type = gathered.task_type
    shown: list[Figure] = [
        Heading("Worst errors", f"{len(worst)} sample{'s' * (len(worst) != 1)}, largest loss first.")
    ]
    if worst[0].x.ndim == 3:
        tiles = [_build_tile(gathered, sample) for sample in worst]
        legend = list_mask_colours((mask for sample in worst for mask in sample.masks), gathered.task_info.labels)
        outcomes = "; ".join(" ".join(task_type.describe_outcome(gathered, sample)) for sample in worst[:8])
        shown.append(build_contact_sheet(task_type.sheet_title, tiles, outcomes, legend, max_bytes))
    rows = [
        (
            sample.key,
            *task_type.describe_outcome(gathered, sample),
            format_number(sample.loss, 3),
            *_decode_text(sample),
        )
        for sample in worst[:_MAX_TABLE_ROWS]
    ]
    text = ("sample", *task_type.outcome_headings, "loss", *(("text",) if _decode_text(worst[0]) else ()))
    return [
        *shown,
        TableBlock("Which samples they are" + ", the worst of them" * (len(worst) > _MAX_TABLE_ROWS), text, rows),
    ]


def _is_all_correct(gathered: EvaluatedSamples) -> bool:
    # Of a type whose correct predictions are not errors; with others, only an empty pass has no worst samples.
    return bool(np.isneginf(gathered.task_type.rank_errors(gathered.columns)).all())


def _build_tile(gathered: EvaluatedSamples, sample: WorstSample) -> Tile:
    masks = [render_class_mask(mask) for mask in sample.masks]
    task_type = gathered.task_type
    truth, prediction = task_type.describe_outcome(gathered, sample)
    return Tile(
        [convert_to_image(sample.x), *masks],
        f"is {truth}" if task_type.is_outcome_named else truth,
        f"predicted {prediction}" if task_type.is_outcome_named else prediction,
    )


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
