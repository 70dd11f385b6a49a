"""Problems of every job of a multirun: found before the first one starts, reported once, no folder made."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice, product
from typing import Any

from mlscale.assembly.ready import compose_checked
from mlscale.config.composition.request import Request
from mlscale.errors import Exit, MLScaleError, raise_all

_ASSUMED = {"total_steps": 1_000_000, "steps_per_epoch": 1000, "per_device_batch": 1, "world_size": 1, "targets": 1}
"""Derived values before the data is read: each warm-up is shorter than so many steps."""
_MAX_CHECKED_JOBS = 100  # that are looked at: with as many the mistake is not that of one job


def check_sweep(request: Request) -> None:
    """Compose and check job after job, until one lacks the mistakes of those before it; a valid one ends it at once.

    Raises:
        MLScaleError: a sweep has no values, or every job has this mistake.
    """
    from hydra.errors import HydraException

    common: list[MLScaleError] | None = None
    try:
        jobs = list(islice(_expand_jobs(request), _MAX_CHECKED_JOBS))
    except HydraException:
        return  # an override that can't be parsed, which composing reports
    for overrides in jobs:  # without imports: what a class refuses ends its own job
        problems = _collect(request, overrides, compose_checked)
        what = {problem.what for problem in problems}
        # Compared by the message alone: `where` names the job's own override.
        common = problems if common is None else [problem for problem in common if problem.what in what]
        if not common:
            return
    raise_all(common or [])


def check_every_job(request: Request) -> str:
    """Compose and check every job; return their number: `4 jobs`.

    Raises:
        MLScaleError: a sweep has no values, or a job has a mistake; a mistake of several jobs is reported once.
    """
    jobs = list(islice(_expand_jobs(request), _MAX_CHECKED_JOBS + 1))
    problems: dict[str, MLScaleError] = {}
    for overrides in jobs[:_MAX_CHECKED_JOBS]:
        for problem in _collect(request, overrides, check_job):
            problems.setdefault(problem.what, problem)
    raise_all(list(problems.values()))
    first = f"the first {_MAX_CHECKED_JOBS}" if len(jobs) > _MAX_CHECKED_JOBS else len(jobs)
    return f"{first} job{'s' if len(jobs) != 1 else ''}"


def check_job(request: Request) -> None:
    """Compose and check one config, and build what refuses its own settings: optimizer, schedule and task.

    Raises:
        MLScaleError: all problems of tier 1; where it has none, those of the classes.
    """
    cfg = compose_checked(request)
    if cfg.get("task"):  # a training's, not a service's
        from mlscale.assembly.run_parts import check_step_settings
        from mlscale.config.composition.frozen import add_derived

        weights = cfg.task.get("class_weights")
        classes = 2 if weights is None or isinstance(weights, str) else len(weights)
        try:
            check_step_settings(add_derived(cfg, _ASSUMED | {"num_classes": classes, "class_counts": [1] * classes}))
        except MLScaleError as error:  # a package that is missing here may be there where the run starts
            raise_all([problem for problem in error.list_problems() if problem.exit != Exit.ENVIRONMENT])


def _collect(request: Request, overrides: Sequence[str], check: Callable[[Request], object]) -> list[MLScaleError]:
    try:
        check(replace(request, overrides=tuple(overrides), multirun=False))
    except MLScaleError as error:
        return list(error.list_problems())
    return []


def _expand_jobs(request: Request) -> Iterator[list[str]]:
    """Yield the overrides of each job; of a range that a sweeper searches in, its start.

    Raises:
        MLScaleError: a sweep has no values.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from mlscale.config.composition.compose import prepare_hydra
    from mlscale.config.composition.hydra_errors import check_options

    choices: list[list[str]] = []
    with prepare_hydra(request.roots):
        loader: Any = GlobalHydra.instance().config_loader()
        raise_all(list(check_options(request, loader.repository.config_exists)))
        for override in OverridesParser.create(config_loader=loader).parse_overrides(list(request.overrides)):
            line = str(override.input_line)
            if not override.is_sweep_override():
                choices.append([line])
                continue
            key = override.get_key_element()
            # A continuous interval has no list of values: its start stands for all of them in the check.
            is_list, parsed = override.is_discrete_sweep(), override.value()
            values = list(map(str, override.sweep_string_iterator() if is_list else [parsed.start]))  # type: ignore[union-attr]
            if not values:
                raise _make_no_values_error(line.lstrip("+"), request)
            choices.append([f"{key}={value}" for value in values])
    for job in product(*choices):
        # Hydra's own settings (the sweeper, the launcher) are not part of a job's config.
        yield [word for word in job if not re.match(r"hydra[./]", word)]


def _make_no_values_error(typed: str, request: Request) -> MLScaleError:
    key = typed.partition("=")[0]
    options = request.roots.groups.get(key, ())
    return MLScaleError(
        f"{typed} matches nothing, so no job is started",
        where=f"command line: {typed}",
        why=f"options: {', '.join(options)}" if options else f"'{key}' is not a group, and only a group has options",
        fix=f"{key}={','.join(options[:2])}" if options else f"{key}=<value>,<value>",
    )
