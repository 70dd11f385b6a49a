"""Whether two runs came to the same, to the bit: checkpoints, log entries, results."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import torch

from mlscale.train.checkpoint.weights_only_load import load_checkpoint_file

# What differs between two runs of the same thing: times, the memory of a process, and which steps were saved at, where
# that goes by the clock.
_OF_THE_MOMENT = re.compile(r"DeviceStatsMonitor|samples_per_s|tokens_per_s|memory|time_s|seconds|/periodic\b")
CHECKPOINTS = ("last.ckpt", "best.ckpt")


def differences(one: Path, other: Path) -> list[str]:
    """Where the run folder `other` differs from `one`; empty when they came to the same.

    Compared are `last.ckpt` and `best.ckpt` with all that they hold (weights, optimizers, schedulers, counters,
    averages, generators), `metrics.csv` row by row, and the metrics of `results/train.json`.
    """
    found = []
    for name in CHECKPOINTS:
        found += _differing(_checkpoint(one / "checkpoints" / name), _checkpoint(other / "checkpoints" / name), name)
    found += _differing(_rows(one), _rows(other), "metrics.csv")
    return found + _differing(_result(one), _result(other), "train.json")


def _checkpoint(path: Path) -> Any:
    state = load_checkpoint_file(path)
    return _placeless(state, str(path.parents[1]))


def _placeless(value: Any, run: str) -> Any:
    """`value` with the run's own folder taken out of names and texts."""
    if isinstance(value, str):
        return value.replace(run, "<run>")
    if isinstance(value, dict):
        return {_placeless(key, run): _placeless(part, run) for key, part in value.items()}
    return [_placeless(part, run) for part in value] if isinstance(value, list | tuple) else value


def _rows(run: Path) -> list[dict[str, str]]:
    (path,) = run.rglob("metrics.csv")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _result(run: Path) -> Any:
    return json.loads((run / "results/train.json").read_text())["metrics"]


def _differing(one: Any, other: Any, at: str) -> list[str]:
    if _OF_THE_MOMENT.search(at):
        return []
    if isinstance(one, dict) and isinstance(other, dict):
        keys = dict.fromkeys([*one, *other])
        return [d for key in keys for d in _differing(one.get(key), other.get(key), f"{at}/{key}")]
    if isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            return [f"{at}: {len(one)} and {len(other)} entries"]
        return [d for i, pair in enumerate(zip(one, other, strict=True)) for d in _differing(*pair, f"{at}/{i}")]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
        return [] if same else [f"{at}: tensors differ"]
    return [] if one == other or (one != one and other != other) else [f"{at}: {one!r} and {other!r}"]
