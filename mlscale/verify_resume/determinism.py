"""Name the operations of a run that have no deterministic kernel, and what deterministic ones cost."""

from __future__ import annotations

import re
from dataclasses import dataclass

# torch's own sentences, of `torch.use_deterministic_algorithms(True, warn_only=True)`; one names cuBLAS's setting.
_WARNING = re.compile(r"(\S+) does not have a deterministic implementation, but you set")
_CUBLAS = re.compile(r"Deterministic behavior was enabled .* CUBLAS_WORKSPACE_CONFIG")


@dataclass(frozen=True)
class DeterminismCost:
    """The findings of runs with deterministic kernels, next to the same run without.

    Attributes:
        operations: those that have no deterministic kernel on the device, by torch's names, sorted.
        slowdowns: how much longer a sample takes with deterministic kernels, as factors of pairs of runs; empty where
            the runs are too short to measure.
    """

    operations: tuple[str, ...]
    slowdowns: tuple[float, ...] = ()


def find_nondeterministic_operations(output: str) -> tuple[str, ...]:
    """Return the operations that torch has named in what a run printed; each once, sorted."""
    names = set(_WARNING.findall(output))
    if _CUBLAS.search(output):
        names.add("cuBLAS")
    return tuple(sorted(names))


def describe_determinism(cost: DeterminismCost) -> list[str]:
    """Return the lines about it for the report."""
    lines = ["kernels   each operation of this run has a deterministic one"]
    if cost.operations:
        lines = [
            f"kernels   without a deterministic one: {', '.join(cost.operations)}; where they add up in another order, "
            "a run does not repeat: use other operations in their place"
        ]
    if cost.slowdowns:
        changes = sorted((factor - 1) * 100 for factor in cost.slowdowns)
        span = f"{changes[0]:+.0f} to {changes[-1]:+.0f} %, {len(changes)} pairs of runs"
        # Pairs that contradict each other measure the machine, not the kernels.
        if changes[0] <= 0 <= changes[-1]:
            lines.append(f"cost      of trainer.deterministic=true: no more than the noise ({span})")
        else:
            word = "longer" if changes[0] > 0 else "less"
            lines.append(f"cost      of trainer.deterministic=true: a sample takes {word} ({span})")
    return lines
