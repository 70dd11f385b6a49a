"""Build the targets of a servable, read each back, and compare it with the trained model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlscale.atomic_files import PRIVATE_FOLDER
from mlscale.export.measure_export import ExportMeasurement
from mlscale.export.parity import Parity
from mlscale.export.required_extras import require_extra
from mlscale.export.servable import Servable
from mlscale.export.trained_comparison import TrainedComparison
from mlscale.stats.timing import TimesCompared
from mlscale.targets.server_check import CheckSettings, ServerCheck, check_server
from mlscale.targets.target import TARGETS, Target


@dataclass(frozen=True)
class BuiltTarget:
    """A target that was built.

    Attributes:
        target: that built it.
        parity: the comparison of what was read back with the trained model.
        times: of one sample on one thread: the trained model, then what was read back.
        check: what the target's own server answered; None where it was not asked.
        problems: each bound that is not met; empty where the target may be used.
    """

    target: Target
    parity: Parity
    times: TimesCompared
    check: ServerCheck | None
    problems: list[str]


class TargetsRefusedError(Exception):
    """A target does not hold what it must: the servable with it is not to be committed.

    Attributes:
        problems: of all targets, each with the target's name.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def require_targets(targets: Sequence[Target]) -> None:
    """Raise an error if what a target is built with is not installed.

    Raises:
        MLScaleError: it is not (exit code 5).
    """
    for target in targets:
        require_extra(target.extra, *target.packages)


def build_targets(
    servable: Servable,
    targets: Sequence[Target],
    measured: ExportMeasurement,
    find_problems: Callable[[Parity], list[str]],
    check: CheckSettings | None,
    report: Callable[[str], None],
) -> list[BuiltTarget]:
    """Build, read back, compare and measure each target in the servable's folder; ask its server where that is wanted.

    Args:
        servable: written completely but for its targets.
        targets: to build.
        measured: the servable's own measurements, and what others are compared with.
        find_problems: returns each bound that a comparison does not meet.
        check: what a target's own server must hold; None where it is not asked.
        report: prints a line of progress.

    Raises:
        MLScaleError: a target can't express the model, or its server is not installed or does not load it.
        TargetsRefusedError: a bound is not met.
    """
    built = []
    for target in targets:
        folder = servable.folder / TARGETS / target.name
        if target.is_servable:
            parity, times = measured.parity, measured.times
        else:
            report(f"export  target {target.name}")
            parity, times = _build_target(target, servable, folder, measured.comparison)
        problems = [] if target.is_servable else find_problems(parity)
        checked = None
        if check is not None and not problems:
            report(f"export  target {target.name}: its own server is started and asked")
            checked = check_server(target, servable, folder, check)
            problems += checked.problems
        built.append(BuiltTarget(target, parity, times, checked, problems))
    if refused := [f"target={one.target.name}: {problem}" for one in built for problem in one.problems]:
        raise TargetsRefusedError(refused)
    return built


def _build_target(
    target: Target, servable: Servable, folder: Path, comparison: TrainedComparison
) -> tuple[Parity, TimesCompared]:
    folder.mkdir(parents=True, mode=PRIVATE_FOLDER)
    target.build(servable, folder)
    engine = target.open_engine(servable, folder)
    return comparison.compare_engine(engine), comparison.compare_times(engine)


def describe_targets(built: Sequence[BuiltTarget]) -> dict[str, Mapping[str, Any]]:
    """Return the key `export_targets` of servable.yaml. It has no times: equal models give equal documents."""
    return {
        one.target.name: {
            "samples": one.parity.samples,
            "relative_error": one.parity.relative_error,
            "agreement": one.parity.agreement,
            "approved_by": None if one.check is None else one.check.product,
            "approved_samples": 0 if one.check is None else one.check.samples,
        }
        for one in built
    }
