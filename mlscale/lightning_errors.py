"""Errors that Lightning raises for what a user has configured: a module, a callback or a setting that it refuses."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from pathlib import Path

from mlscale.errors import Exit, MLScaleError

_PACKAGES = {"pytorch_lightning", "lightning_fabric", "lightning"}
_BY_TYPE = {"MisconfigurationException", "MisconfigurationError"}
_WHERE_RAISED = (ValueError, TypeError, RuntimeError)
"""Types that Python and torch raise, too: they are Lightning's own where a `raise` in one of its files raised them."""

_Known = tuple[str, str, Callable[[re.Match[str]], str]]
_KNOWN: tuple[_Known, ...] = (
    (
        r"`val_check_interval` \(\d+\) must be less than or equal to the number of the training batches \((\d+)\)",
        "trainer.val_check_interval",
        lambda match: (
            f"trainer.val_check_interval={match[1]}\ntrainer.check_val_every_n_epoch=null, which counts "
            "batches of all epochs"
        ),
    ),
    (
        r"No `(training_step|validation_step|test_step|configure_optimizers)\(\)` method defined",
        "task._target_",
        lambda match: {
            "training_step": "def training_step(self, batch, batch_idx): …, which returns the loss, in that class",
            "validation_step": "def validation_step(self, batch, batch_idx): …, which logs a metric, in that class",
            "test_step": "def test_step(self, batch, batch_idx): …, which logs a metric, in that class",
            "configure_optimizers": "def configure_optimizers(self): …, which returns the optimizer, in that class",
        }[match[1]],
    ),
    (
        r"must include a monitor when a `ReduceLROnPlateau` scheduler is used",
        "configure_optimizers of task._target_",
        lambda _: 'write "monitor": "<a value that self.log names>" next to "scheduler" there',
    ),
    (
        r"Unknown configuration for model optimizers",
        "configure_optimizers of task._target_",
        lambda _: "let it return the optimizer",
    ),
    (
        r"`training_step` must return a Tensor, a dict, or None",
        "training_step of task._target_",
        lambda _: "let it return the loss, a tensor",
    ),
)
"""Sentences of Lightning: a pattern, where the fault is, and what to do."""


def explain_lightning_error(error: BaseException, where: str = "", line: str = "") -> MLScaleError | None:
    """Return the error to report for one by which Lightning refuses what a user has configured; None for others.

    Args:
        where: the rank, for example, if known.
        line: of the user's code that called Lightning; '' for none.
    """
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or not _is_lightning(frames[-1].filename):
        return None
    is_own_type = any(kind.__name__ in _BY_TYPE for kind in type(error).__mro__)
    if not is_own_type and not (isinstance(error, _WHERE_RAISED) and (frames[-1].line or "").startswith("raise ")):
        return None
    sentence = " ".join(str(error).split())
    known_where, fix = _find_known(sentence)
    raised_at = f"{Path(frames[-1].filename).name}:{frames[-1].lineno} of Lightning"
    return MLScaleError(
        "Lightning refuses this module or setting",
        where=": ".join(filter(None, (where, known_where or line or raised_at))),
        why=sentence,
        fix=fix
        or "change what it names\nexport MLSCALE_TRACEBACK=1, and start the command again: it shows how it came there",
        exit=Exit.USER,
    )


def _find_known(sentence: str) -> tuple[str, str]:
    """Return where the fault of a known sentence is, and its fix; empty texts for others."""
    for pattern, where, suggest in _KNOWN:
        if match := re.search(pattern, sentence):
            return where, suggest(match)
    return "", ""


def _is_lightning(file: str) -> bool:
    return bool(_PACKAGES & set(Path(file).parts))
