"""Ranges of well-known keys that are narrower than their types: a batch has one sample or more, a part is at most 1.

They bind what is typed and what is suggested: values that mean something in other programs (-1, `auto`, lists of
devices, names of plugins) pass the annotation of Lightning's argument, and fail or mean something else when it runs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from mlscale.config.schema.value_types import (
    DICT,
    FLOAT,
    LIST,
    NONE,
    Type,
    at_least,
    bound,
    make_list_type,
    make_literal,
    make_union,
)


def _part(*, zero: bool) -> Type:
    """Return the type of parts of a whole, up to 1.0; a whole number is none, even if it is written as a float."""
    least = {"minimum": 0} if zero else {"exclusiveMinimum": 0}
    schema: dict[str, object] = {"type": "number", "maximum": 1, **least}
    return Type("float ≤ 1", lambda value: isinstance(value, float) and 0 <= value <= 1 and (zero or value > 0), schema)


def _text(name: str, pattern: str) -> Type:
    return Type(name, lambda value: isinstance(value, str) and bool(re.fullmatch(pattern, value)), {"type": "string"})


_TIME = _text("time", r"\d+:\d+:\d+:\d+")
# Lightning decides by the type: an int is a number of batches, a float a part of them.
_BATCHES = make_union(at_least(0), _part(zero=True), NONE)
_AMOUNT, _SHARE = bound(FLOAT, " ≥ 0"), bound(FLOAT, " from 0 to 1")
_SHARES = ("optimizer.momentum", "model.dropout", "callbacks.ema.decay", "task.threshold")
_RATES = ("scheduler.max_lr", "scheduler.base_lr", "scheduler.eta_min", "scheduler.min_lr")
_OBJECT = Type("object", DICT.accepts, DICT.schema)

RANGES: Mapping[str, Type] = {
    "model.widths": Type(
        "list of at least one", lambda value: isinstance(value, list) and value != [], LIST.schema | {"minItems": 1}
    ),
    "callbacks.early_stopping.mode": make_literal("min", "max"),
    "data.batch_size": make_union(at_least(1), NONE),
    "data.workers": make_union(at_least(0), make_literal("auto")),
    "optimizer.lr": _AMOUNT,
    **dict.fromkeys(_SHARES, _SHARE),
    **dict.fromkeys(_RATES, make_union(_AMOUNT, make_list_type(_AMOUNT))),
    "trainer.gradient_clip_val": make_union(_AMOUNT, NONE),
    "trainer.accumulate_grad_batches": at_least(1),
    "trainer.devices": make_union(at_least(1), make_literal(-1, "auto"), _text("int ≥ 1", "0*[1-9][0-9]*")),
    "trainer.limit_train_batches": make_union(at_least(1), _part(zero=False), NONE),
    **dict.fromkeys([f"trainer.limit_{split}_batches" for split in ("val", "test", "predict")], _BATCHES),
    "trainer.overfit_batches": make_union(at_least(0), _part(zero=True)),
    "trainer.val_check_interval": make_union(at_least(1), _part(zero=False), _TIME, DICT, NONE),
    "trainer.check_val_every_n_epoch": make_union(at_least(1), NONE),
    "trainer.max_time": make_union(_TIME, DICT, NONE),
    **dict.fromkeys(("trainer.max_steps", "trainer.num_sanity_val_steps"), at_least(-1)),
    "trainer.max_epochs": make_union(at_least(-1), NONE),
    **dict.fromkeys(("trainer.min_epochs", "trainer.log_every_n_steps"), make_union(at_least(0), NONE)),
    "trainer.reload_dataloaders_every_n_epochs": at_least(0),
    "trainer.profiler": make_union(make_literal("simple", "advanced", "pytorch"), _OBJECT, NONE),
    "trainer.plugins": make_union(_OBJECT, make_list_type(_OBJECT), NONE),
}
"""The type of each such key of a built-in class, by its full path."""
