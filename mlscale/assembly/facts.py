"""The facts of the data, before a run."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from mlscale.config.composition.frozen import add_derived

if TYPE_CHECKING:
    from omegaconf import DictConfig


class DataDescription(NamedTuple):
    """What is known of the data before a run, as plain values: the data itself is not kept in memory.

    Args:
        facts: `DataFacts` as a mapping; None for data modules that report no facts.
        encoder: its document (contract `encoder`); None for data modules that have no encoder.
    """

    facts: dict[str, Any] | None
    encoder: dict[str, Any] | None


def describe_data(cfg: DictConfig) -> DataDescription:
    """Return facts and encoder of the data, once it is prepared.

    Raises:
        MLScaleError: data that does not exist, is empty or corrupt, all of it at once.
    """
    data = prepare_data_module(cfg)
    if data is None:
        return DataDescription(None, None)
    # Costs little: building a data module has imported torch and Lightning already.
    from mlscale.data.data_module import OrderedData

    encoder = data.encoder().to_document() if isinstance(data, OrderedData) else None
    return DataDescription(asdict(data.facts()), encoder)


def collect_data_facts(cfg: DictConfig) -> dict[str, Any] | None:
    """Return `DataFacts` as a mapping, once the data is prepared; None for data modules that report no facts.

    Raises:
        MLScaleError: data that does not exist, is empty or corrupt, all of it at once.
    """
    data = prepare_data_module(cfg)
    return None if data is None else asdict(data.facts())


def prepare_data_module(cfg: DictConfig) -> Any | None:
    """Return the data module, prepared; None for one that reports no facts.

    Raises:
        MLScaleError: the data is not available.
    """
    from mlscale.assembly.run import build_data, is_plain

    if is_plain(cfg.get("data")):
        return None
    # The batch size per device is derived later, from these facts: 1 is a placeholder.
    data = build_data(add_derived(cfg, {"per_device_batch": 1}))
    if data is None or not hasattr(data, "facts"):
        return None
    data.prepare_data()
    return data
