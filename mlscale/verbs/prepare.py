"""Write a bundled data set into the cache as WebDataset shards."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mlscale.errors import MLScaleError
from mlscale.report import Result

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run(cfg: DictConfig) -> Result:
    """Prepare the data of `data=…`; where it was prepared before, only read what it holds.

    Raises:
        MLScaleError: there is no data, or it can't be had.
    """
    from mlscale.data.facts import described
    from mlscale.launch.facts import data_facts

    start = time.perf_counter()
    facts = data_facts(cfg)
    if facts is None:
        raise MLScaleError(
            "there is nothing to prepare", where="data", why="this data says nothing of itself", fix="data=digits"
        )
    sentence = (
        f"{facts['train_samples']:,} training and {facts['val_samples']:,} validation samples of {described(facts)}"
    )
    return Result(
        verb="prepare",
        ok=True,
        sentence=sentence,
        metrics={
            "train_samples": facts["train_samples"],
            "val_samples": facts["val_samples"],
            "time_s": time.perf_counter() - start,
        },
        artifacts={"data_version": facts["version"]},
    )
