"""Retrains a champion: once, or whenever a degradation fires."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlscale.assembly.build import build
from mlscale.commands.retrain.cycle_settings import check_settings
from mlscale.commands.retrain.degradation_watch import watch_champion
from mlscale.commands.retrain.guarded_cycle import retrain_once
from mlscale.export.required_extras import require_extra
from mlscale.report import Result

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.versions import LocalRegistry


def run(cfg: DictConfig) -> Result:
    """Take a window of labelled events, train a challenger from the champion's weights, compare the two, and promote it
    only if it passes every gate. Whatever happens before that, the champion stays. With `watch=true` do so whenever a
    degradation fires, until a signal comes.

    Raises:
        MLScaleError: no such champion, its run is gone, another cycle is running, the training or the export fails, or
            the extra 'retrain' is not installed.
    """
    require_extra("retrain", "pyarrow", "onnx", "onnxscript", "onnxruntime")
    check_settings(cfg)
    registry: LocalRegistry = build(cfg.registry, "registry")
    return watch_champion(cfg, registry) if cfg.watch else retrain_once(cfg, registry)
