"""From overrides to a config that is composed and checked: what every working verb starts from."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from mlscale.config.argv import Request, parse
from mlscale.errors import raise_all

if TYPE_CHECKING:
    from omegaconf import DictConfig

_OF_THE_COMMAND = ("resume", "trust")  # settings of the command that made a run, not of the run


def ready(verb: str, overrides: Sequence[str]) -> DictConfig:
    """Compose and check.

    Raises:
        MLScaleError: all the problems of tier 1.
    """
    request = on_its_run(parse(verb, overrides))
    return compose_checked(request)


def compose_checked(request: Request) -> DictConfig:
    """The checked config of one command."""
    from mlscale.config.compose import compose

    cfg = compose(request)
    return checked(cfg, request, list(request.overrides))


def checked(cfg: DictConfig, request: Request, overrides: Sequence[str]) -> DictConfig:
    """`cfg`, when tier 1 finds nothing wrong with it; what was typed is noted in it for run.json."""
    from mlscale.config.check import check
    from mlscale.config.local_code import local_targets
    from mlscale.config.origin import origin_of

    origin = origin_of(request.verb, list(overrides), request.roots)
    left_over: dict[str, list[str]] = {}
    groups = request.roots.groups_of(request.verb)
    problems = check(cfg, groups=groups, origin=origin, verb=request.verb, left_over=left_over)
    if problems:
        from mlscale.runs.mask import Masker

        masker = Masker.of(cfg)
        raise_all([problem.masked(masker.mask) for problem in problems])
    for path, keys in left_over.items():
        _leave_out(cfg, path, keys)
    for line in local_targets(cfg):
        _say_once(line)
    cfg.derived.overrides = list(request.typed)
    return cfg


def _leave_out(cfg: DictConfig, path: str, keys: Sequence[str]) -> None:
    """Take the settings of an option out of an object whose `_target_` was typed, where that does not take them."""
    from omegaconf import OmegaConf

    node = OmegaConf.select(cfg, path)
    for key in keys:
        del node[key]
    _say_once(f"{path}: left out, for {node['_target_']} does not take them: {', '.join(keys)}")


def on_its_run(request: Request) -> Request:
    """A verb that starts from a run gets that run's frozen config as its base."""
    ref = _run_of(request)
    if ref is None:
        return request
    from omegaconf import OmegaConf

    from mlscale.config.compose import use_frozen
    from mlscale.config.frozen import composed
    from mlscale.config.trust import distrusted
    from mlscale.runs.find import find

    run = find(ref, Path(request.values.get("runs_dir", "runs")))
    frozen = composed(run.path)
    for key in _OF_THE_COMMAND:
        frozen.pop(key, None)
    if request.values.get("trust") != "true":
        config = OmegaConf.to_container(frozen, resolve=False)
        raise_all([*distrusted(config, run.path, request.values), *distrusted(run.derived, run.path)])
    return use_frozen(frozen, request)


def _run_of(request: Request) -> str | None:
    """The run that a command names: the one to measure or export, or the one to go on with."""
    if request.verb in ("evaluate", "export"):
        return request.values.get("run")
    resume = request.values.get("resume") if request.verb == "train" else None
    return None if resume in ("auto", "null", "") else resume


@cache
def _say_once(line: str) -> None:
    print(line, file=sys.stderr)
