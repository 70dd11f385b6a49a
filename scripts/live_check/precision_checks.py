"""Live checks of mixed precision next to fp32: accuracy on the same samples, and memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.live_check.finding import Finding
from scripts.live_check.run_mlscale import CheckError, run_mlscale

RECIPES, PRECISIONS = ("resnet", "vit", "gpt"), ("bf16", "fp16")


@dataclass(frozen=True)
class PrecisionDevice:
    """A device that trains.

    Attributes:
        name: of the device and what it runs with.
        place: what the rows of this device have after the recipe's name.
        words: overrides of every run.
        by_precision, by_recipe: more overrides of some.
    """

    name: str
    place: str = ""
    words: Sequence[str] = ()
    by_precision: Mapping[str, Sequence[str]] = field(default_factory=dict)
    by_recipe: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def list_words(self, recipe: str, precision: str) -> list[str]:
        """Return the overrides of a run."""
        given = (self.words, self.by_recipe.get(recipe, ()), self.by_precision.get(precision, ()))
        return [f"+recipe={recipe}", f"precision={precision}", *(word for words in given for word in words)]


# Runs of seconds: a CPU has no units for float16, and computes convolutions in it many times slower.
_SHORT = {
    "resnet": ("model.widths=[8,16]", "trainer.max_epochs=2"),
    "vit": ("trainer.max_epochs=2",),
    "gpt": ("trainer.max_steps=20", "trainer.max_epochs=1"),
    "tabular": ("trainer.max_epochs=3",),
}


def name_rows(place: str = "") -> list[str]:
    """Return what is tried on a device, the keys of the rows."""
    return [f"{precision}, {recipe}{place}" for recipe in RECIPES for precision in PRECISIONS]


def check_cpu_precision(folder: Path, samples: int, recipes: Sequence[str] = RECIPES) -> list[Finding]:
    """Train each recipe for a short while on a CPU in each precision."""
    import torch

    device = PrecisionDevice(
        f"torch {torch.__version__}, CPU",
        " on a CPU",
        ("trainer.accelerator=cpu", "trainer.devices=1"),
        {"fp16": ("precision.on_cpu=true",)},
        _SHORT,
    )
    return compare_with_fp32(folder, device, recipes)


def compare_with_fp32(folder: Path, device: PrecisionDevice, recipes: Sequence[str] = RECIPES) -> list[Finding]:
    """Train each recipe in fp32 and in each precision from the same seed, and compare them on the same samples."""
    findings = []
    for recipe in recipes:
        names = {precision: f"{precision}, {recipe}{device.place}" for precision in PRECISIONS}
        try:
            full = _train(folder, device, recipe, "fp32")
        except CheckError as error:
            findings += [Finding(what, "failed", device.name, f"fp32: {error}") for what in names.values()]
            continue
        findings += [_compare_run(folder, device, recipe, precision, full, what) for precision, what in names.items()]
    return findings


def _compare_run(
    folder: Path, device: PrecisionDevice, recipe: str, precision: str, full: dict[str, Any], what: str
) -> Finding:
    try:
        mixed = _train(folder, device, recipe, precision)
        # Both are computed in fp32, as a servable is. The last checkpoints: which one is best depends on the samples.
        words = [f"against={_find_last(full)}", "precision=fp32", f"to={folder}/{recipe}-{precision}-against"]
        compared = run_mlscale(folder, "evaluate", _find_last(mixed), *words)
    except CheckError as error:
        return Finding(what, "failed", device.name, str(error))
    against = compared["details"]["against"]
    outcome = {None: "no difference is shown", against["name"]: "worse than fp32"}.get(against["better"], "better")
    # Without the names of the runs, which say nothing on another machine.
    seen = [f"{outcome}: {against['verdict'].rpartition(': ')[2]}"]
    memory = [run["metrics"].get("peak_memory_bytes") for run in (mixed, full)]
    if device.place == "" and all(memory):
        # On a CPU it is that of the process, most of which is libraries.
        seen.append(f"peak memory {memory[0] / memory[1]:.2f}× of fp32's")
    is_worse = against["better"] == against["name"]
    return Finding(what, "failed" if is_worse else "proven", device.name, "; ".join(seen))


def _train(folder: Path, device: PrecisionDevice, recipe: str, precision: str) -> dict[str, Any]:
    words = device.list_words(recipe, precision)
    runs = f"runs_dir={folder}/{recipe}-{precision}"
    return run_mlscale(folder, *words, "seed=1", "snapshot=false", "logger=none", runs)


def _find_last(run: dict[str, Any]) -> str:
    return str(Path(run["artifacts"]["run"], "checkpoints/last.ckpt"))
