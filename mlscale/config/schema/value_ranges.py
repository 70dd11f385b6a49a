"""Ranges of well-known keys that are narrower than their types: a batch has one sample or more, a part is at most 1.

They bind what is typed and what is suggested: values that mean something in other programs (-1, `auto`, lists of
devices, names of plugins) pass the annotation of Lightning's argument, and fail or mean something else when it runs.
"""

from __future__ import annotations

from collections.abc import Mapping

from mlscale.config.schema.value_types import DICT, FLOAT, INT, NONE, Type, make_list_type, make_literal, make_union


def at_least(least: int) -> Type:
    """Return the type of whole numbers that are not below `least`."""
    return Type(
        f"int ≥ {least}",
        lambda value: INT.accepts(value) and isinstance(value, int) and value >= least,
        {"type": "integer", "minimum": least},
    )


def _part(*, zero: bool) -> Type:
    """Return the type of parts of a whole, up to 1.0; a whole number is none, even if it is written as a float."""
    least = {"minimum": 0} if zero else {"exclusiveMinimum": 0}
    return Type(
        "float ≤ 1",
        lambda value: FLOAT.accepts(value) and isinstance(value, float) and (0 < value <= 1 or (zero and value == 0)),
        {"type": "number", "maximum": 1, **least},
    )


_DIGITS = Type(
    "int ≥ 1", lambda value: isinstance(value, str) and value.isdigit() and int(value) > 0, {"type": "string"}
)
_TIME = Type("time", lambda value: isinstance(value, str) and value.count(":") == 3, {"type": "string"})
_DURATION = Type(
    "time",
    lambda value: isinstance(value, str) and [part.isdigit() for part in value.split(":")] == [True] * 4,
    {"type": "string"},
)
# Lightning decides by the type: an int is a number of batches, a float a part of them.
_BATCHES = make_union(at_least(0), _part(zero=True), NONE)
_SOME_BATCHES = make_union(at_least(1), _part(zero=False), NONE)
_OBJECT = Type("object", DICT.accepts, DICT.schema)

RANGES: Mapping[str, Type] = {
    "data.batch_size": make_union(at_least(1), NONE),
    "data.workers": make_union(at_least(0), make_literal("auto")),
    "optimizer.momentum": make_union(_part(zero=True), make_literal(0)),
    "trainer.accumulate_grad_batches": at_least(1),
    "trainer.devices": make_union(at_least(1), make_literal(-1, "auto"), _DIGITS),
    "trainer.limit_train_batches": _SOME_BATCHES,
    "trainer.limit_val_batches": _BATCHES,
    "trainer.limit_test_batches": _BATCHES,
    "trainer.limit_predict_batches": _BATCHES,
    "trainer.overfit_batches": make_union(at_least(0), _part(zero=True)),
    "trainer.val_check_interval": make_union(at_least(1), _part(zero=False), _TIME, DICT, NONE),
    "trainer.check_val_every_n_epoch": make_union(at_least(1), NONE),
    "trainer.max_time": make_union(_DURATION, DICT, NONE),
    "trainer.max_steps": at_least(-1),
    "trainer.max_epochs": make_union(at_least(-1), NONE),
    "trainer.min_epochs": make_union(at_least(0), NONE),
    "trainer.reload_dataloaders_every_n_epochs": at_least(0),
    "trainer.log_every_n_steps": make_union(at_least(0), NONE),
    "trainer.profiler": make_union(make_literal("simple", "advanced", "pytorch"), _OBJECT, NONE),
    "trainer.num_sanity_val_steps": at_least(-1),
    "trainer.plugins": make_union(_OBJECT, make_list_type(_OBJECT), NONE),
}
"""The type of each such key of a built-in class, by its full path."""
