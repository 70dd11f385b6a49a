"""`mlscale data sample`: samples as the model gets them, after augmentation, with their labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from mlscale.commands.data.opened_data import OpenedData
from mlscale.data.inspection.shown_samples import (
    ShownSample,
    build_mask_legend,
    build_tiles,
    describe_input,
    describe_label,
    name_inputs,
)
from mlscale.data.order.batch_plan import Batch
from mlscale.report import Figure, ImageBlock, Result, TableBlock
from mlscale.report.contact_sheet import draw_contact_sheet
from mlscale.report.text import format_count

_TITLE = "After augmentation, before it is normalised"


def show_samples(opened: OpenedData, split: str, count: int) -> Result:
    """Return the first samples of an epoch, as batches hold them: images on a sheet, others as a table."""
    samples = list(islice(_iterate_samples(opened, split), max(1, count)))
    facts, encoder = opened.facts, opened.backend.encoder()
    targets = [target.name for target in opened.backend.describe_targets()]
    labels = [describe_label(sample.y, facts, targets) for sample in samples]
    shown: list[Figure] = []
    # Channels, height, width: tables and texts have one dimension.
    if samples[0].x.ndim == 3:
        png, width = draw_contact_sheet(build_tiles(samples, labels, facts))
        shown.append(ImageBlock(_TITLE, png, width, "; ".join(labels[:8]), build_mask_legend(samples, facts)))
    rows = [
        (sample.key, label, *describe_input(sample.x, encoder)) for sample, label in zip(samples, labels, strict=True)
    ]
    names = ("sample", "label", *name_inputs(encoder))[: len(rows[0])]
    shown.append(TableBlock("Samples", names, rows, terminal=True))
    return Result(
        command="data",
        ok=True,
        sentence=f"{opened.name}: the first {format_count(len(samples), 'sample')} of {split}, as the model gets them",
        metrics={"samples": len(samples)},
        figures=shown,
        details={"data_version": facts.version},
    )


def _iterate_samples(opened: OpenedData, split: str) -> Iterator[ShownSample]:
    """Yield each sample of the batches of an epoch."""
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
            yield ShownSample(key, batch["x"][row].numpy().copy(), batch["y"][row].numpy().copy())
