"""Show the worst samples: images on a contact sheet, texts and rows of numbers in a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlscale.evaluate.report_wording import percent
from mlscale.evaluate.sample_collector import Gathered, Worst
from mlscale.report import Figure, Heading, Picture, Table
from mlscale.report.contact_sheet import Tile, as_image, as_mask, sheet
from mlscale.report.text import number

_TEXT, _LISTED = 160, 12


def figures(gathered: Gathered) -> list[Figure]:
    """Return a heading, the contact sheet where samples are images, and the table of the samples."""
    # A sample of segmentation takes three pictures (image, truth, prediction): half as many of them are shown.
    worst = gathered.worst[: len(gathered.worst) // (1 + bool(gathered.worst and gathered.worst[0].shown))]
    # Without worst samples the section is left out, except where it means that no error was made.
    if not worst:
        return [Heading("Worst errors", "There are none.")] if _all_right(gathered) else []
    kind = gathered.about.kind
    shown: list[Figure] = [
        Heading("Worst errors", f"{len(worst)} sample{'s' * (len(worst) != 1)}, largest loss first.")
    ]
    if worst[0].x.ndim == 3:
        png, width = sheet([_tile(gathered, each) for each in worst])
        title = "Image, truth, prediction" if kind == "segmentation" else "What it is, and what it was taken for"
        shown.append(Picture(title, png, width, "; ".join(" ".join(_said(gathered, each)) for each in worst[:8])))
    rows = [(each.key, *_said(gathered, each), number(each.loss, 3), *_text(each)) for each in worst[:_LISTED]]
    said = ("truth", "prediction") if kind == "regression" else ("is", "taken for")
    text = ("sample", *said, "loss", *(("text",) if _text(worst[0]) else ()))
    return [*shown, Table("Which samples they are" + ", the worst of them" * (len(worst) > _LISTED), text, rows)]


def _all_right(gathered: Gathered) -> bool:
    columns = gathered.columns
    return gathered.about.kind == "classification" and bool((columns["truth"] == columns["predicted"]).all())


def _tile(gathered: Gathered, each: Worst) -> Tile:
    masks = [as_mask(mask) for mask in each.shown]
    is_, told = _said(gathered, each)
    named = gathered.about.kind in ("classification", "multilabel", "regression")
    return Tile([as_image(each.x), *masks], f"is {is_}" if named else is_, f"said {told}" if named else told)


def _said(gathered: Gathered, each: Worst) -> tuple[str, str]:
    """Return the truth and the prediction of a sample as text."""
    about, columns, row = gathered.about, gathered.columns, each.row
    if about.kind == "classification":
        told = f"{about.label(int(columns['predicted'][row]))} ({percent(float(columns['confidence'][row]))})"
        return about.label(int(columns["truth"][row])), told
    if about.kind == "multilabel":
        truth, told = columns["truth"][row], columns["predicted"][row]
        return _labels(gathered, truth), _labels(gathered, told)
    if about.kind == "regression":
        return _numbers(columns["truth"][row]), _numbers(columns["predicted"][row])
    # Masks and sequences have no short text for truth and prediction: the key and the key metric are shown.
    if about.kind == "segmentation":
        return each.key.rsplit("/", 1)[-1], f"IoU {percent(float(columns['iou'][row]))}"
    return each.key, f"{columns['loss'][row] / np.log(2):.2f} bits a token"


def _labels(gathered: Gathered, chosen: Sequence[int]) -> str:
    return ", ".join(gathered.about.label(place) for place in np.flatnonzero(chosen).tolist()) or "none"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(number(float(value), 4) for value in values)


def _text(each: Worst) -> tuple[str, ...]:
    """Return the text of a sample of token numbers (byte + 1, 0 is padding); nothing for other samples."""
    # Nothing marks a sample as text: token numbers are int64 in one dimension, at most 256.
    if each.x.ndim != 1 or each.x.dtype != np.int64 or not len(each.x) or each.x.max() > 256 or each.x.min() < 0:
        return ()
    # A sequence may start or end within a character: errors are replaced.
    content = bytes((each.x[each.x > 0] - 1).astype(np.uint8).tolist())
    return (" ".join(content.decode("utf-8", "replace").split())[:_TEXT],)
