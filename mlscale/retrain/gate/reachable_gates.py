"""Finds gates that no challenger can pass, before one is trained: by the champion's results and the sample count."""

from __future__ import annotations

import math

import numpy as np

from mlscale.errors import MLScaleError
from mlscale.export.servable import Servable
from mlscale.retrain.gate.gate_limits import GateLimits, find_relabelled_numbers
from mlscale.retrain.gate.paired_columns import LabelledSamples, collect_paired_columns
from mlscale.stats.bootstrap import MIN_SAMPLES
from mlscale.stats.paired import compute_score_interval
from mlscale.task_types.task_type import TaskType

_LARGEST_DROP = 0.5
"""The largest gate.max_drop that a message proposes."""


def compute_fewest_original_samples(max_drop: float, alpha: float) -> int:
    """Return the original samples from which a challenger passes that is right on the same ones as the champion; 0
    where no number is enough, without a drop that is allowed.

    Tango's lower end of no differing pair of n is -z² / (n + z²).
    """
    from scipy.stats import norm

    squared = float(norm.ppf(1 - alpha)) ** 2
    return math.ceil(squared * (1 - max_drop) / max_drop - 1e-9) if max_drop > 0 else 0


def compute_fewest_window_samples(task_type: TaskType, alpha: float) -> int:
    """Return the held-out samples with which a challenger can be shown to be better at `alpha`."""
    if task_type.exact_metric is not None:
        # So many gained, and none lost, have a mid-p value of 0.5 ** (n + 1).
        return max(1, math.ceil(-math.log2(alpha) - 1 - 1e-9))
    if not task_type.score.is_share:
        return task_type.fewest_compared
    # All of n signs alike have a one-sided p-value of 0.5 ** n.
    return max(1, math.ceil(-math.log2(alpha) - 1e-9))


class UnreachableGateError(MLScaleError):
    """No challenger can pass the gates: a setting that a user changes, not a cycle that failed."""


def check_original_gate(champion: Servable, samples: LabelledSamples, limits: GateLimits) -> None:
    """Raise an error if no challenger can pass `gate.max_drop`, not even one that is right on all original samples.

    Args:
        champion: as it is served.
        samples: the original data that a challenger would be compared on.
        limits: of the gate.

    Raises:
        UnreachableGateError: the original samples are too few.
    """
    if not limits.old:
        return
    if champion.task_type.exact_metric is None:
        count = sum(len(truth) for _, truth in samples)
        if count < MIN_SAMPLES:
            raise _build_too_few_error(count, MIN_SAMPLES, "an interval of the difference needs them", "gate.old=false")
        return
    columns = collect_paired_columns(champion, champion, samples)
    ignored = find_relabelled_numbers(champion.task_type, champion.names, limits.relabelled)
    if columns is None or not len(columns := columns.select_classes(ignored, champion)):
        return  # the gate itself reports that nothing can be compared
    count = len(columns)
    errors = int((~np.asarray(champion.task_type.mark_correct(columns.first), np.bool_)).sum())
    # The best that any challenger can be: right wherever the champion is wrong, and wrong nowhere else.
    best, _ = compute_score_interval(errors, 0, count, 1 - limits.alpha)
    if best >= -limits.max_drop:
        return
    worst, _ = compute_score_interval(0, 0, count, 1 - limits.alpha)
    # Rounded up, so that the gate can pass with what is typed.
    enough = math.ceil(-worst * 100) / 100
    fix = f"gate.max_drop={enough:g}" if enough <= _LARGEST_DROP else "gate.old=false"
    needed = compute_fewest_original_samples(limits.max_drop, limits.alpha)
    why = (
        f"a challenger that is right on all of them may still be worse by {-best:.2%}, and gate.max_drop is "
        f"{limits.max_drop:.2%}"
    )
    raise _build_too_few_error(count, needed, why, fix)


def _build_too_few_error(count: int, needed: int, why: str, fix: str) -> UnreachableGateError:
    at_least = f", at least {needed:,} are needed" if needed > count else ""
    return UnreachableGateError(
        f"{count:,} original samples are too few for a challenger to pass{at_least}",
        where="gate.max_drop",
        why=why,
        fix=f"{fix}; or a champion with more validation data (data.val_fraction, data.val)",
    )
