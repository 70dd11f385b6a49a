"""The settings of shards on disks and in object stores: windows of the order, and the size of the cache."""

from __future__ import annotations

import re

import numpy as np

from mlscale.data.order.policy import Policy
from mlscale.data.order.windowed_order import WindowedSampler
from mlscale.data.shards.shard_index import Index
from mlscale.errors import MLScaleError

DEFAULT_WINDOW = 16
"""Shards that are mixed at a time: enough that one shard's samples are a sixteenth of a batch, on average."""
_ORDERS = ("global", "windowed")
_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([kmgt])i?b?\s*$", re.IGNORECASE)
_UNITS = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
Window = tuple[str, int]
"""'shards' or 'bytes', and how many."""


def parse_cache_size(cache_gb: float | str) -> int | None:
    """Return `data.cache_gb` in bytes; None for 'auto'.

    Raises:
        MLScaleError: it is neither a number above 0 nor 'auto'.
    """
    if cache_gb == "auto":
        return None
    # bool is a subclass of int, so `true` would count as 1.
    if isinstance(cache_gb, bool) or not isinstance(cache_gb, int | float) or not 0 < cache_gb < float("inf"):
        raise MLScaleError(
            f"data.cache_gb is {cache_gb!r}",
            where="data.cache_gb",
            why="it is a number of gigabytes above 0, or auto: half of the free disk",
            fix="data.cache_gb=auto",
        )
    return int(cache_gb * 10**9)


def parse_window(order: str, window: int | str, policy: Policy) -> Window | None:
    """Return what `data.order=windowed` mixes at a time; None for the global order.

    Raises:
        MLScaleError: an unknown order, a window that is neither a number nor a size, or another setting that draws
            samples from everywhere.
    """
    if order not in _ORDERS:
        raise MLScaleError(
            f"data.order is {order!r}",
            where="data.order",
            why=f"it is one of: {', '.join(_ORDERS)}",
            fix=f"data.order={_ORDERS[0]}",
        )
    parsed = _parse_window_size(window)
    if order == "global":
        return None
    if policy.sampling != "shuffle":
        raise MLScaleError(
            f"data.order=windowed and data.sampling={policy.sampling} contradict each other",
            where="data.order",
            why=f"{policy.sampling} sampling draws from all shards at any time",
            fix="data.sampling=shuffle data.weights=null, or data.order=global",
        )
    return parsed


def build_windowed_order(index: Index, window: Window, policy: Policy, seed: int, version: str) -> WindowedSampler:
    """Return the order of a split's samples in windows of its shards."""
    kind, size = window
    shards = len(index.shards)
    sizes = np.bincount(index.shard, minlength=shards).astype(np.int64)
    # Of what is read, and not of the files: the same for a copy that is padded in another way.
    stored = np.bincount(index.shard, index.sizes.sum(axis=1), shards).astype(np.int64)
    weights = np.ones(shards, np.int64) if kind == "shards" else stored
    length = policy.epoch_samples or len(index)
    return WindowedSampler(sizes, weights, size, length=length, seed=seed, version=version)


def _parse_window_size(window: int | str) -> Window:
    if isinstance(window, int) and not isinstance(window, bool) and window > 0:
        return "shards", window
    if isinstance(window, str) and (match := _SIZE.match(window)) and float(match[1]) > 0:
        return "bytes", int(float(match[1]) * _UNITS[match[2].lower()])
    raise MLScaleError(
        f"data.shuffle_window is {window!r}",
        where="data.shuffle_window",
        why="it is a number of shards, or their size: 500MB, 4GB",
        fix=f"data.shuffle_window={DEFAULT_WINDOW}",
    )
