"""The resize of servers gives the values of torch's, which training uses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from mlscale.data.decoding import resample
from mlscale.data.decoding.resample import resize_uint8


@pytest.mark.parametrize("block", [resample._BLOCK, 5000])
def test_bitwise_equal_to_torch(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resample, "_BLOCK", block)
    random = np.random.default_rng(0)
    for case in range(80):
        height, width = (int(side) for side in random.integers(1, 400, 2))
        size = (int(random.integers(1, 300)), int(random.integers(1, 300))) if case % 8 else (height, width // 2 + 1)
        pixels = random.integers(0, 256, (height, width, 1 + 2 * (case % 2)), dtype=np.uint8)
        if case % 5 == 0:
            pixels = (pixels > 127).astype(np.uint8) * 255
        expected = interpolate(torch.from_numpy(pixels).permute(2, 0, 1)[None], size, mode="bilinear", antialias=True)
        assert np.array_equal(resize_uint8(pixels, size), expected[0].permute(1, 2, 0).numpy()), (pixels.shape, size)
