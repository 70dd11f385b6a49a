"""Strategies by which the processes of a run train together: factories behind the group `strategy`."""

from mlscale.train.strategies.ddp import SettledDDP, auto, ddp, has_stable_sum_order, settle_buckets, single
from mlscale.train.strategies.fsdp import FullySharded, fsdp

__all__ = ["FullySharded", "SettledDDP", "auto", "ddp", "fsdp", "has_stable_sum_order", "settle_buckets", "single"]
