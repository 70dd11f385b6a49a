"""The states of the global random generators, as tensors: a checkpoint that is loaded weights-only can hold them.

Seeds mixed from several numbers.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def collect_generator_states(device: torch.device) -> dict[str, Any]:
    """Return the states of torch's (CPU, and `device` if it is CUDA), Python's and numpy's global generators."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    states: dict[str, Any] = {
        "torch": torch.default_generator.get_state(),
        "python": {"version": version, "words": torch.tensor(words, dtype=torch.int64), "gauss": gauss},
        "numpy": {
            "name": name,
            # The words are uint32, which torch supports only in part: int64 holds them.
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_generator_states(states: Mapping[str, Any], device: torch.device) -> None:
    """Set the generators to states that `collect_generator_states` returned."""
    torch.default_generator.set_state(states["torch"])
    python, numpy = states["python"], states["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    keys = numpy["keys"].numpy().astype(np.uint32)
    np.random.set_state((numpy["name"], keys, numpy["position"], numpy["has_gauss"], numpy["cached"]))
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def seed_global_generators(*values: int) -> None:
    """Set torch's (of all devices), Python's and numpy's global generators from a hash of `values`."""
    torch.manual_seed(mix_seeds(*values))
    seed_host_generators(*values)


def seed_host_generators(*values: int) -> None:
    """Set the generators of the CPU alone, which takes a tenth of the time."""
    number = mix_seeds(*values)
    torch.default_generator.manual_seed(number)
    random.seed(number)
    # numpy takes 32 bits and no more.
    np.random.seed(number & 0xFFFF_FFFF)


_MASK = (1 << 64) - 1


def mix_seeds(*values: int) -> int:
    """Return a 63-bit number in which every bit depends on all of `values`: the finalizer of SplitMix64 (Steele et al.
    2014) over each in turn."""
    state = 0
    for value in values:
        # The increment, factors and shifts are SplitMix64's; the mask is its arithmetic modulo 2^64.
        state = (state + value + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1
