"""Lightning's partial averages: the sums of `self.log` and torchmetrics in an epoch that is not over.

Lightning saves none of it, so an epoch's average would be that of the batches since the resume alone. Private parts of
Lightning are read here; a contract test fails when they move.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.trainer.connectors.logger_connector.result import _Metadata, _ResultMetric, _Sync
from torch import Tensor
from torchmetrics import Metric

_FLAGS = ("fx", "name", "prog_bar", "logger", "on_step", "on_epoch", "enable_graph", "add_dataloader_idx")
_META = (*_FLAGS, "dataloader_idx", "metric_attribute")
_TENSORS = ("value", "cumulated_batch_size", "_forward_cache")


def collect_partial_results(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    """Return this rank's partial sums, as plain containers and tensors on the CPU."""
    connector = trainer._logger_connector
    return {
        "logged": {key: _encode_result(metric) for key, metric in trainer.fit_loop.epoch_loop._results.items()},
        # A metric without an update holds its defaults.
        "metrics": {name: _encode_metric(metric) for name, metric in _find_metrics(module) if metric._update_count},
        "seen": {
            name: _copy_to_cpu(getattr(connector, name))
            for name in ("_callback_metrics", "_logged_metrics", "_progress_bar_metrics")
        },
        "first_loop_iter": connector._first_loop_iter,
        "current_fx": connector._current_fx,
    }


def restore_partial_results(state: Mapping[str, Any], trainer: Trainer, module: LightningModule) -> None:
    """Restore the partial sums that `state` returned."""
    connector, device = trainer._logger_connector, trainer.strategy.root_device
    metrics = dict(_find_metrics(module))
    for name, saved in state["metrics"].items():
        if name in metrics:
            _restore_metric(metrics[name], saved, device)
    results = trainer.fit_loop.epoch_loop._results
    for key, entry in state["logged"].items():
        results[key] = _decode_result(entry, trainer, module)
    for name, values in state["seen"].items():
        getattr(connector, name).update(_copy_to_device(values, device))
    connector._first_loop_iter, connector._current_fx = state["first_loop_iter"], state["current_fx"]


def get_training_metric_names(trainer: Trainer) -> set[str]:
    """Return the names that this epoch's training steps have logged, those of averages not computed yet included."""
    return {entry.meta.name for entry in trainer.fit_loop.epoch_loop._results.values()}


def _encode_result(metric: _ResultMetric) -> dict[str, Any]:
    meta = metric.meta
    return {
        "is_tensor": metric.is_tensor,
        "meta": {name: getattr(meta, name) for name in _META},
        # By name: a checkpoint that is loaded weights-only can't hold a function.
        "reduce": meta.reduce_fx.__name__,
        "sync": {"should": meta.sync.should, "rank_zero_only": meta.sync.rank_zero_only},
        "has_reset": metric.has_reset,
        "updates": metric._update_count,
        "tensors": {
            name: _copy_to_cpu(value)
            for name in _TENSORS
            if metric.is_tensor and isinstance(value := getattr(metric, name, None), Tensor)
        },
    }


def _decode_result(entry: Mapping[str, Any], trainer: Trainer, module: LightningModule) -> _ResultMetric:
    meta = _Metadata(**entry["meta"], reduce_fx=getattr(torch, entry["reduce"]))
    meta.sync = _Sync(
        fn=trainer.strategy.reduce, _should=entry["sync"]["should"], rank_zero_only=entry["sync"]["rank_zero_only"]
    )
    metric = _ResultMetric(meta, entry["is_tensor"])
    for name, value in entry["tensors"].items():
        setattr(metric, name, value.to(trainer.strategy.root_device))
    if not entry["is_tensor"]:  # the module's own metric, which is restored by its name
        metric.value = attrgetter(str(meta.metric_attribute))(module)
        metric._forward_cache = metric.value._forward_cache
    metric._update_count, metric.has_reset = entry["updates"], entry["has_reset"]
    return metric


def _find_metrics(module: LightningModule) -> list[tuple[str, Metric]]:
    return [(name, part) for name, part in module.named_modules() if isinstance(part, Metric)]


def _encode_metric(metric: Metric) -> dict[str, Any]:
    return {
        "updates": metric._update_count,
        "values": {name: _copy_to_cpu(getattr(metric, name)) for name in metric._defaults},
    }


def _restore_metric(metric: Metric, saved: Mapping[str, Any], device: torch.device) -> None:
    for name, value in saved["values"].items():
        setattr(metric, name, _copy_to_device(value, device))
    # torchmetrics caches the computed value: without it, the restored sums count.
    metric._update_count, metric._computed = saved["updates"], None


def _copy_to_cpu(value: object) -> Any:
    return _copy_to_device(value, torch.device("cpu"))


def _copy_to_device(value: object, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        # Copied, also on the same device: the sums are updated in place as training continues.
        return value.detach().to(device, copy=True)
    if isinstance(value, Mapping):
        return {key: _copy_to_device(part, device) for key, part in value.items()}
    return [_copy_to_device(part, device) for part in value] if isinstance(value, list) else value
