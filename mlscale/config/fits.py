"""Do data, model and task go together? What can be told of it before anything is built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig

from mlscale.config.build import target
from mlscale.errors import MLScaleError

_KINDS = {"one": "classification", "several": "multilabel", "mask": "segmentation"}
"""The kind of task for each word of `data.labels`."""


def misfits(cfg: DictConfig, facts: Mapping[str, Any] | None) -> Iterator[MLScaleError]:
    """A problem for each that does not.

    Args:
        facts: see `derive`.
    """
    yield from _channels(cfg, (facts or {}).get("channels"))
    yield from _labels(cfg)


def _channels(cfg: DictConfig, channels: int | None) -> Iterator[MLScaleError]:
    """torchvision's networks take colour alone, timm's what `in_chans` says."""
    model: Any = cfg.get("model") or {}
    name = str(model.get("_target_", ""))
    if channels is None or not name.startswith(("torchvision.models.", "timm.")):
        return
    taken = model.get("in_chans", 3) if name.startswith("timm.") else 3
    if taken not in (channels, None):
        yield MLScaleError(
            f"{name} takes images of {taken} channel{'s' * (taken != 1)}, the data has {channels}",
            where="model" if name.startswith("torchvision.") else "model.in_chans",
            fix="model=resnet, which takes any number of channels"
            if name.startswith("torchvision.")
            else "'model.in_chans=${derived.channels}'",
        )


def _labels(cfg: DictConfig) -> Iterator[MLScaleError]:
    """A class for each sample, several, or one for each pixel: what the data holds and the task is for."""
    found = str((cfg.get("data") or {}).get("labels"))
    kind = getattr(target(cfg.task), "kind", None) if cfg.get("task") else None
    wanted = next((word for word, each in _KINDS.items() if each == kind), None)
    if found in _KINDS and wanted is not None and wanted != found:
        yield MLScaleError(
            f"a {kind} task takes data.labels={wanted}, and this data has {found}",
            where="task, data.labels",
            why=f"labels={found} is for task={_KINDS[found]}",
            fix=f"task={_KINDS[found]}, or data.labels={wanted} where the samples have that",
        )
