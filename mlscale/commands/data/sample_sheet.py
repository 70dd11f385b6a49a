"""`mlscale data sample`: samples as the model gets them, after augmentation, with their labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.commands.data.opened_data import OpenedData
from mlscale.commands.data.show_facts import name_classes
from mlscale.data.data_facts import DataFacts
from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.encoder import Encoder
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.encoders.text_encoder import TextEncoder
from mlscale.data.order.batch_plan import Batch
from mlscale.report import Figure, ImageBlock, Result, TableBlock, format_number
from mlscale.report.contact_sheet import Tile, draw_contact_sheet, render_class_mask
from mlscale.report.text import format_count

_MAX_TEXT, _MAX_COLUMNS = 120, 12
_MIN_SHARE = 0.005  # of a mixed label: a smaller one is not shown


def show_samples(opened: OpenedData, split: str, count: int) -> Result:
    """Return the first samples of an epoch, as batches hold them: images on a sheet, others as a table."""
    samples = list(islice(_iterate_samples(opened, split), max(1, count)))
    facts, encoder = opened.facts, opened.backend.encoder()
    labels = [
        describe_label(y, facts, [target.name for target in opened.backend.describe_targets()]) for _, _, y in samples
    ]
    shown: list[Figure] = []
    # Channels, height, width: tables and texts have one dimension.
    if samples[0][1].ndim == 3:
        shown.append(_draw_images(samples, labels, facts))
    rows = [(key, label, *_describe_input(x, encoder)) for (key, x, _), label in zip(samples, labels, strict=True)]
    names = ("sample", "label", *_name_input(encoder))[: len(rows[0])]
    shown.append(TableBlock("Samples", names, rows, terminal=True))
    return Result(
        command="data",
        ok=True,
        sentence=f"{opened.name}: the first {format_count(len(samples), 'sample')} of {split}, as the model gets them",
        metrics={"samples": len(samples)},
        artifacts={"data_version": facts.version},
        figures=shown,
    )


def describe_label(y: NDArray[Any], facts: DataFacts, targets: list[str]) -> str:
    """Return what is predicted of a sample: classes by name with their shares where they are mixed, or numbers."""
    names = name_classes(facts)
    if y.ndim == 0 and y.dtype.kind in "iu" and facts.num_classes:
        return names[int(y)]
    if y.ndim == 1 and facts.num_classes and len(y) == facts.num_classes and y.dtype.kind == "f":
        shares = [(names[number], float(y[number])) for number in np.argsort(-y) if y[number] > _MIN_SHARE]
        # Several labels are ones, those of mixup shares.
        is_plain = all(share == 1 for _, share in shares)
        return ", ".join(name if is_plain else f"{name} ({share:.0%})" for name, share in shares) or "none"
    if y.ndim == 2 and facts.num_classes:
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


def _iterate_samples(opened: OpenedData, split: str) -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
    """Yield key, x and y of each sample of the batches of an epoch."""
    # Through a loader, and not from the source: augmentation and mixing are what is to be seen.
    backend = opened.backend
    backend.setup("fit")
    loaders: dict[str, Callable[[], Iterable[Batch]]] = {
        "train": backend.train_dataloader,
        "val": backend.val_dataloader,
        "test": backend.test_dataloader,
    }
    for batch in loaders[split]():
        for row, key in enumerate(batch["key"]):
            # Copied: a loader uses its arrays again.
            yield key, batch["x"][row].numpy().copy(), batch["y"][row].numpy().copy()


def _draw_images(samples: list[tuple[str, NDArray[Any], NDArray[Any]]], labels: list[str], facts: DataFacts) -> Figure:
    tiles = []
    for (key, x, y), label in zip(samples, labels, strict=True):
        images = [_restore_pixels(x, facts)]
        if y.ndim == 2:
            images.append(render_class_mask(y.astype(np.uint8)))
        tiles.append(Tile(images, label, key, wrong=False))
    png, width = draw_contact_sheet(tiles)
    return ImageBlock("After augmentation, before it is normalised", png, width, "; ".join(labels[:8]))


def _restore_pixels(x: NDArray[Any], facts: DataFacts) -> NDArray[np.uint8]:
    """Return normalised pixels (c, h, w) as an image."""
    values = np.asarray(x, np.float64)
    if facts.mean:
        values = values * np.array(facts.std)[:, None, None] + np.array(facts.mean)[:, None, None]
    # Arrays, and a data set of one's own, have a range of their own.
    if values.max() > 255.5 or values.max() <= 1.5:
        low, high = values.min(), values.max()
        values = (values - low) / ((high - low) or 1) * 255
    pixels: NDArray[np.uint8] = np.clip(np.rint(values), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return pixels[:, :, :3] if pixels.shape[2] >= 3 else pixels[:, :, 0]


def _name_input(encoder: Encoder) -> tuple[str, ...]:
    if isinstance(encoder, TableEncoder):
        return encoder.feature_names[:_MAX_COLUMNS]
    return ("text",) if isinstance(encoder, TextEncoder | DocumentEncoder) else ()


def _describe_input(x: NDArray[Any], encoder: Encoder) -> tuple[str, ...]:
    """Return a cell for each of `_name_input`; none for images."""
    if isinstance(encoder, TableEncoder):
        return tuple(format_number(float(value), 3) for value in x[:_MAX_COLUMNS])
    if not isinstance(encoder, TextEncoder | DocumentEncoder):
        return ()
    if isinstance(encoder, TextEncoder):
        (content,) = encoder.decode_tokens(x[None])
    else:
        content = b"\0".join(encoder.decode_tokens(encoder.split_documents(x)))
    return (" ".join(content.decode("utf-8", "replace").replace("\0", " ¶ ").split())[:_MAX_TEXT],)
