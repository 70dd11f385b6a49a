"""Counting what lives."""

import torch

from mlscale.estimate.live_tensors import LiveTensorMode, iterate_tensors


def test_what_is_freed_is_no_longer_counted() -> None:
    with LiveTensorMode() as live:
        first = torch.zeros(100)
        second = first + 1
        del first
        third = second * 2
        del second, third
    assert live.peak == 800
    assert live.current == 0


def test_views_share_their_storage() -> None:
    with LiveTensorMode() as live:
        x = torch.zeros(10, 10)
        views = [x.t(), x[2:], x.view(-1)]
    assert live.peak == 400
    assert len(views) == 3


def test_names_are_of_the_moment_of_the_peak() -> None:
    weights = torch.zeros(25)
    with LiveTensorMode() as live:
        live.set_purpose("parameters", {"w": weights})
        large = weights.repeat(10)
        live.set_purpose("batch", [large])
        del large
        live.set_purpose("parameters", (torch.zeros(5),))
    assert live.split_peak() == {"parameters": 100, "batch": 1000, "scratch": 0}
    assert live.current == 100


def test_scratch_counts_for_the_moment_of_its_operation() -> None:
    with LiveTensorMode(scratch=lambda func, args, result: 5000 if func is torch.ops.aten.mul.Tensor else 0) as live:
        x = torch.ones(100)
        y = x * x
        z = y + x
    assert live.peak == 400 + 400 + 5000
    assert live.split_peak()["scratch"] == 5000
    assert live.current == 1200
    assert z.sum() == 200


def test_tensors_are_found_in_any_nesting() -> None:
    batch = {"x": torch.ones(1), "more": [torch.ones(2), ("text", {"y": torch.ones(3)})], "n": 3}
    assert [len(tensor) for tensor in iterate_tensors(batch)] == [1, 2, 3]
