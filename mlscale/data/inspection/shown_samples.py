"""Samples as a model gets them, on a page: images on a contact sheet, texts and rows of tables in a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.data.data_facts import DataFacts
from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.encoder import Encoder
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.encoders.text_encoder import TextEncoder
from mlscale.report import Figure, ImageBlock, TableBlock, format_number
from mlscale.report.contact_sheet import (
    Tile,
    build_contact_sheet,
    convert_to_image,
    list_mask_colours,
    render_class_mask,
)

_MAX_TEXT, _MAX_COLUMNS = 120, 12
_MAX_ROWS = 6  # of a table
_MIN_SHARE = 0.005  # of a mixed label: a smaller one is not shown


@dataclass(frozen=True, eq=False)
class ShownSample:
    """A sample of a batch.

    Attributes:
        key: its name.
        x: as the model gets it, (…).
        y: what is predicted, (…).
    """

    key: str
    x: NDArray[Any]
    y: NDArray[Any]


def build_sample_blocks(
    samples: Sequence[ShownSample],
    facts: DataFacts | None,
    encoder: Encoder | None,
    targets: Sequence[str] = (),
    max_bytes: float = math.inf,
) -> list[Figure]:
    """Return a contact sheet of images, or a table of what else samples are; nothing where they are neither.

    Args:
        samples: at least one, all of the same form.
        facts: of the data: names of classes, and the normalisation of images; None where it reports none.
        encoder: of the data, by which texts and columns are shown; None where it has none.
        targets: names of the numbers to predict.
        max_bytes: of the contact sheet, about.
    """
    labels = [describe_label(sample.y, facts, targets) for sample in samples]
    # Channels, height, width: tables and texts have one dimension.
    if samples[0].x.ndim == 3:
        return [build_image_sheet("Images and labels", samples, labels, facts, max_bytes)]
    names = name_inputs(encoder)
    if not names:
        return []
    rows = [
        (sample.key, label, *describe_input(sample.x, encoder))
        for sample, label in zip(samples[:_MAX_ROWS], labels, strict=False)
    ]
    return [TableBlock("Samples", ("sample", "label", *names)[: len(rows[0])], rows)]


def name_classes(facts: DataFacts | None) -> Sequence[str]:
    """Return the names of the classes; their numbers where they have none."""
    if facts is None:
        return ()
    return facts.class_names or [str(number) for number in range(facts.num_classes or 0)]


def describe_label(y: NDArray[Any], facts: DataFacts | None, targets: Sequence[str]) -> str:
    """Return what is predicted of a sample: classes by name with their shares where they are mixed, or numbers."""
    names = name_classes(facts)
    if y.ndim == 0 and y.dtype.kind in "iu" and names:
        return names[int(y)]
    if y.ndim == 1 and names and len(y) == len(names) and y.dtype.kind == "f":
        shares = [(names[number], float(y[number])) for number in np.argsort(-y) if y[number] > _MIN_SHARE]
        # Several labels are ones, those of mixup shares.
        is_plain = all(share == 1 for _, share in shares)
        return ", ".join(name if is_plain else f"{name} ({share:.0%})" for name, share in shares) or "none"
    if y.ndim == 2 and names:
        # Shares of the area: where the classes are is seen in the picture.
        present, pixels = np.unique(y, return_counts=True)
        shares = [(int(number), count / y.size) for number, count in zip(present, pixels, strict=True)]
        return ", ".join(
            f"{names[number] if number < len(names) else 'ignored'} ({share:.0%})" for number, share in shares
        )
    # The tokens of a language model follow from its input.
    if y.ndim == 1 and y.dtype == np.int64:
        return "the next bytes"
    values = [format_number(float(value)) for value in np.atleast_1d(y)]
    return ", ".join(f"{name} {value}" for name, value in zip(targets, values, strict=False)) or ", ".join(values)


def build_image_sheet(
    title: str,
    samples: Sequence[ShownSample],
    labels: Sequence[str],
    facts: DataFacts | None,
    max_bytes: float = math.inf,
) -> ImageBlock:
    """Return samples that are images, normalisation reversed, with their labels and, in segmentation, their masks."""
    tiles, masks = [], []
    for sample, label in zip(samples, labels, strict=True):
        images = [_restore_pixels(sample.x, facts)]
        if sample.y.ndim == 2:
            masks.append(sample.y)
            images.append(render_class_mask(sample.y.astype(np.uint8)))
        tiles.append(Tile(images, label, sample.key, wrong=False))
    return build_contact_sheet(
        title, tiles, "; ".join(labels[:8]), list_mask_colours(masks, name_classes(facts)), max_bytes
    )


def _restore_pixels(x: NDArray[Any], facts: DataFacts | None) -> NDArray[np.uint8]:
    """Return pixels (c, h, w) as an image, normalisation reversed."""
    values = np.asarray(x, np.float64)
    if facts is not None and facts.mean:
        values = values * np.array(facts.std)[:, None, None] + np.array(facts.mean)[:, None, None]
    # Arrays, and a data set of one's own, have a range of their own, which `convert_to_image` finds.
    return convert_to_image(np.clip(values, 0, 255) if facts is not None and facts.mean else values)


def name_inputs(encoder: Encoder | None) -> tuple[str, ...]:
    if isinstance(encoder, TableEncoder):
        return encoder.feature_names[:_MAX_COLUMNS]
    return ("text",) if isinstance(encoder, TextEncoder | DocumentEncoder) else ()


def describe_input(x: NDArray[Any], encoder: Encoder | None) -> tuple[str, ...]:
    """Return a cell for each of `name_inputs`; none for images."""
    if isinstance(encoder, TableEncoder):
        return tuple(format_number(float(value), 3) for value in x[:_MAX_COLUMNS])
    if not isinstance(encoder, TextEncoder | DocumentEncoder):
        return ()
    if isinstance(encoder, TextEncoder):
        (content,) = encoder.decode_tokens(x[None])
    else:
        content = b"\0".join(encoder.decode_tokens(encoder.split_documents(x)))
    return (" ".join(content.decode("utf-8", "replace").replace("\0", " ¶ ").split())[:_MAX_TEXT],)
