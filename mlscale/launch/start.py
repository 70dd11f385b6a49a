"""What a run says before its first step. On stderr, so that stdout holds results alone."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from omegaconf import DictConfig


class Masks(Protocol):
    """Takes secrets out of text."""

    def mask(self, text: str) -> str: ...


def say(lines: Iterable[str], masker: Masks) -> None:
    """Print lines for people, secrets masked."""
    for line in lines:
        print(masker.mask(line), file=sys.stderr, flush=True)


def start_lines(cfg: DictConfig, facts: Mapping[str, Any] | None) -> list[str]:
    """The run, its data, how the global batch is shared, and where it computes."""
    derived = cfg.derived
    lines = [f"run       {derived.run_dir}"]
    if facts:
        lines.append(
            f"data      {facts['train_samples']:,} to train, {facts['val_samples']:,} to validate, "
            f"{facts['channels']}×{facts['height']}×{facts['width']}, {facts['num_classes']} classes"
        )
    if derived.per_device_batch:
        accumulate = cfg.trainer.get("accumulate_grad_batches", 1) or 1
        count = derived.steps_per_epoch
        steps = f"; {count:,} step{'s' * (count != 1)} per epoch" if count else ""
        lines.append(
            f"batch     {cfg.data.batch_size} = {derived.per_device_batch} per device × {derived.world_size} "
            f"device{'s' if derived.world_size != 1 else ''} × {accumulate} accumulated{steps}"
        )
    lines.append(
        f"device    {derived.accelerator} × {derived.world_size}, {derived.threads} "
        f"thread{'s' if derived.threads != 1 else ''} each, precision {cfg.precision.value}, seed {cfg.seed}"
    )
    return lines
