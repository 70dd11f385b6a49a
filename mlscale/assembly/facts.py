"""What the data says of itself, before a run."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mlscale.config.composition.frozen import with_derived

if TYPE_CHECKING:
    from omegaconf import DictConfig


def data_facts(cfg: DictConfig) -> dict[str, Any] | None:
    """`DataFacts` as a mapping, once the data is prepared; None for data modules that say nothing of themselves.

    Raises:
        MLScaleError: data that does not exist, is empty or damaged, all of it at once.
    """
    data = prepared_data(cfg)
    return None if data is None else asdict(data.facts())


def prepared_data(cfg: DictConfig) -> Any | None:
    """The data module, prepared; None for one that says nothing of itself.

    Raises:
        MLScaleError: data that can't be had.
    """
    from mlscale.assembly.run import build_data, is_plain

    if is_plain(cfg.get("data")):
        return None
    data = build_data(with_derived(cfg, {"per_device_batch": 1}))
    if data is None or not hasattr(data, "facts"):
        return None
    data.prepare_data()
    return data
