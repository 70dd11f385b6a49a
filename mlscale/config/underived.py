"""Values that are taken from the data or the length of the run, where neither provides them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mlscale.config.targets import takes_group
from mlscale.errors import MLScaleError

_OPTIONAL = frozenset({"document_end"})
"""Facts that data need not have, and without which a model is built all the same."""
_TAKEN = re.compile(r"\$\{derived\.(\w+)\}")


def check_underived(cfg: DictConfig, derived: Mapping[str, Any]) -> Iterator[MLScaleError]:
    """Yield one problem for each key of a model, optimizer or scheduler in use whose derived value is not known."""
    for group in ("model", "optimizer", "scheduler"):
        # A node that the task does not take is never built, so its unknown values do not matter.
        if not cfg.get(group) or not takes_group(cfg.get("task"), group):
            continue
        for key, value in OmegaConf.to_container(cfg[group], resolve=False).items():  # type: ignore[union-attr]
            taken = _TAKEN.fullmatch(value) if isinstance(value, str) else None
            if taken and taken[1] not in _OPTIONAL and taken[1] in derived and derived[taken[1]] is None:
                yield _create_underived_problem(f"{group}.{key!s}", taken[1])


def _create_underived_problem(path: str, name: str) -> MLScaleError:
    if name in ("total_steps", "steps_per_epoch"):
        why, fix = "the run's length is not known", "trainer.max_epochs=10, trainer.max_steps=1000, or scheduler=none"
    else:
        why, fix = "it is taken from the data, which does not report it", f"{path}=<int>"
    return MLScaleError(f"'{path}' is not known", where=path, why=why, fix=fix)
