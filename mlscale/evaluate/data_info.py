"""The classes or targets of the data that a model is measured on, as reports need them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytorch_lightning import LightningDataModule

from mlscale.data.tables.table_rows import TabularData
from mlscale.task_types.collected_samples import TaskInfo


def describe_task_info(
    data: LightningDataModule | None, class_names: Sequence[str] | None = None, num_classes: int | None = None
) -> TaskInfo:
    """Return the names of classes or targets, and the mean and deviation of the channels.

    Args:
        data: the data module; one without facts gives none of them.
        class_names, num_classes: of the model, where they are known: the data may have others.
    """
    source: Any = data
    facts = source.facts() if hasattr(data, "facts") else None
    if facts is None:
        return TaskInfo()
    names = class_names or facts.class_names or ()
    count = num_classes or facts.num_classes or 0
    # Classes without a name are called by their number.
    labels = tuple(map(str, [*names, *range(len(names), count)]))
    targets = data.targets if isinstance(data, TabularData) else ()
    return TaskInfo(labels, tuple(facts.mean), tuple(facts.std), targets)
