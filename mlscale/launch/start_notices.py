"""Lines that a run prints before its first step. On stderr, so that stdout holds results only."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from mlscale.config.derive import count_epoch_steps
from mlscale.config.metric_choice import describe_classes
from mlscale.config.schema.roots import find_roots
from mlscale.data.data_facts import describe_facts
from mlscale.report.terminal import wrap_text
from mlscale.suggested_commands import add_typed_folder

if TYPE_CHECKING:
    from omegaconf import DictConfig


class SecretMasker(Protocol):
    """An object that masks secrets in text."""

    def mask_text(self, text: str) -> str: ...


def print_masked_lines(lines: Iterable[str], masker: SecretMasker) -> None:
    """Print lines on stderr, secrets masked."""
    for line in lines:
        print(wrap_text(masker.mask_text(add_typed_folder(line))), file=sys.stderr, flush=True)


def format_start_lines(cfg: DictConfig, facts: Mapping[str, Any] | None) -> list[str]:
    """Return lines about the run: its folder, data, global batch and device."""
    derived = cfg.derived
    lines = [f"run       {derived.run_dir}", *_describe_debug_option(derived.get("overrides") or [])]
    if facts:
        lines.append(
            f"data      {facts['train_samples']:,} to train, {facts['val_samples']:,} to validate, "
            f"{describe_facts(facts)}"
        )
    if shares := describe_classes(cfg):
        lines.append(f"classes   {shares}; judged by {cfg.metric}")
    if derived.per_device_batch:
        accumulate = cfg.trainer.get("accumulate_grad_batches", 1) or 1
        count = derived.steps_per_epoch
        steps = f"; {count:,} step{'s' * (count != 1)} per epoch{_describe_dropped_samples(cfg)}" if count else ""
        lines.append(
            f"batch     {cfg.data.batch_size} = {derived.per_device_batch} per device × {derived.world_size} "
            f"device{'s' if derived.world_size != 1 else ''} × {accumulate} accumulated{steps}"
        )
    if sampling := _describe_sampling(cfg.get("data") or {}):
        lines.append(f"sampling  {sampling}")
    lines.append(
        f"device    {derived.accelerator} × {derived.world_size}, {derived.threads} "
        f"thread{'s' if derived.threads != 1 else ''} each, precision {cfg.precision.value}, seed {cfg.seed}"
    )
    return lines


def _describe_debug_option(overrides: Iterable[str]) -> list[str]:
    """Return a line about the `debug` option in the overrides, from the first comment in its file."""
    typed = [word.lstrip("+").removeprefix("debug=") for word in overrides if word.lstrip("+").startswith("debug=")]
    # The text is in the option's own file, so that this line and the documentation can't differ.
    file = find_roots().files.get("debug", {}).get(typed[-1]) if typed else None
    if file is None or typed[-1] == "none":
        return []
    texts = (line.removeprefix("#").strip() for line in file.read_text(encoding="utf-8").splitlines())
    description = next((text for text in texts if text and not text.startswith("@package")), "")
    return [f"debug     {typed[-1]}: {description}"]


def _describe_dropped_samples(cfg: DictConfig) -> str:
    """Return the number of samples that fill no batch, as text; empty where the epoch's length is limited."""
    # With another number of steps, as by a limit, the rest is not what is left out.
    steps, rest = count_epoch_steps(cfg.data, cfg.derived.train_samples)
    if not rest or steps != cfg.derived.steps_per_epoch:
        return ""
    return f", {rest} sample{'s' * (rest != 1)} left out, others each time"


def _describe_sampling(data: Mapping[str, Any]) -> str:
    """Return the way training samples are drawn, as text; empty where each is drawn once an epoch."""
    words = []
    if data.get("sampling", "shuffle") == "balanced":
        words.append("every class equally often")
    if data.get("sampling", "shuffle") == "weighted":
        words.append(f"by the weights of {data['weights']}")
    if mix := data.get("mix"):
        words.append("mixed " + ", ".join(f"{name} {share:g}" for name, share in mix.items()))
    if data.get("epoch_samples"):
        words.append(f"{data['epoch_samples']:,} samples an epoch")
    if data.get("last", "drop") == "pad":
        words.append("the last batch filled up with weight 0")
    if data.get("on_bad_sample", "fail") == "skip":
        words.append("bad samples replaced with weight 0")
    return "; ".join(words)
