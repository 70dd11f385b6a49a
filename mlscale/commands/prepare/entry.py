"""Write a bundled data set into the cache as WebDataset shards, and record digests of the content of shards."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from mlscale.errors import MLScaleError
from mlscale.report import Result

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run(cfg: DictConfig) -> Result:
    """Prepare the data of `data=…`; if it was prepared before, compare its content with its digests.

    Raises:
        MLScaleError: the data is missing, not available, or has changed since it was prepared.
    """
    from mlscale.assembly.run_data import RunData
    from mlscale.data.data_facts import describe_facts

    start = time.perf_counter()
    data = RunData().prepare_module(cfg)
    if data is None:
        raise MLScaleError(
            "nothing to prepare", where="data", why="this data reports nothing of itself", fix="data=digits"
        )
    # Only shards can be recorded: other data has no members.
    recorded = data.record_digests() if hasattr(data, "record_digests") else None
    facts = asdict(data.facts())
    sentence = (
        f"{facts['train_samples']:,} training and {facts['val_samples']:,} validation samples "
        f"of {describe_facts(facts)}"
    )
    artifacts = {"data_version": facts["version"]}
    if facts["label_digest"] is not None:
        artifacts["label_digest"] = facts["label_digest"]
    if recorded is not None:
        sentence += f"; {recorded}"
        artifacts["index"] = ", ".join(map(str, recorded.folders))
    return Result(
        command="prepare",
        ok=True,
        sentence=sentence,
        metrics={
            "train_samples": facts["train_samples"],
            "val_samples": facts["val_samples"],
            "time_s": time.perf_counter() - start,
        },
        artifacts=artifacts,
    )
