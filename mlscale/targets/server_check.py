"""Approve a target by its own server: raw samples are sent to it, and its answers compared with the servable's."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.export.servable import Servable
from mlscale.export.warmup import WARMUP, read_warmup
from mlscale.report.text import format_percent
from mlscale.targets.target import Target, TargetServer

_BATCH = 8  # samples of a request; those of the warm-up are sent one by one, as they are recorded
_TIMED, _ENOUGH_S = 200, 10.0  # requests that are timed, and the seconds after which they are enough

Outputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class CheckSettings:
    """The bounds on the answers of a target's server.

    Attributes:
        samples: raw validation samples to send besides the warm-up requests.
        tolerance: largest difference of an output, as a share of the largest one; None for no bound.
        min_agreement: smallest share of equal predictions.
        most_ms: quantile (0.99) to the milliseconds that it may take, of one client; empty for no objective.
    """

    samples: Sequence[Any] = field(repr=False)
    tolerance: float | None
    min_agreement: float
    most_ms: Mapping[float, float] = field(default_factory=dict)


@dataclass
class ServerCheck:
    """The answers of a target's server, compared.

    Attributes:
        product: the server's name and version.
        samples: raw samples that it answered.
        relative_error: the largest difference of an output from the servable's, as a share of the largest one.
        agreement: share of equal predictions; None where predictions are numbers.
        latency_ms: quantile to milliseconds of a request with one sample, by the wall clock of one client.
        problems: each bound that is not met.
    """

    product: str
    samples: int = 0
    relative_error: float = 0.0
    agreement: float | None = None
    latency_ms: dict[float, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def check_server(target: Target, servable: Servable, folder: Path, settings: CheckSettings) -> ServerCheck:
    """Start a target's server, send it the recorded requests and raw samples, and return what it answered.

    Args:
        target: that was built.
        servable: whose answers are the right ones; its folder has the warm-up requests.
        folder: the target's own.
        settings: what must hold.

    Raises:
        MLScaleError: no such server is installed (exit code 5), it does not load the model, or it refuses a sample that
            the servable answers.
    """
    with target.start_server(servable, folder) as server:
        check = ServerCheck(server.product)
        singles = [[sample] for sample in _list_answered(servable)]
        batches = [*singles, *_split_batches(_drop_refused(servable, settings.samples))]
        _compare_answers(server, servable, batches, check)
        if settings.most_ms:
            _measure_latency(server, singles or [batch[:1] for batch in batches], settings.most_ms, check)
    check.problems += _list_problems(check, settings)
    return check


def _list_answered(servable: Servable) -> list[Any]:
    """Return the raw samples of the warm-up requests that were answered."""
    warmup = read_warmup(servable.folder / WARMUP)
    return [] if warmup is None else [request.sample for request in warmup.requests if request.answer is not None]


def _drop_refused(servable: Servable, samples: Sequence[Any]) -> list[Any]:
    bad = servable.pack_samples(samples).bad if samples else {}
    return [sample for number, sample in enumerate(samples) if number not in bad]


def _split_batches(samples: Sequence[Any]) -> Iterator[list[Any]]:
    for at in range(0, len(samples), _BATCH):
        yield list(samples[at : at + _BATCH])


def _compare_answers(
    server: TargetServer, servable: Servable, batches: Sequence[list[Any]], check: ServerCheck
) -> None:
    largest, difference, same = 0.0, 0.0, []
    for batch in batches:
        expected = servable.compute_samples(servable.pack_samples(batch))
        given = server.compute_samples(batch)
        if problem := _find_other_form(expected, given):
            check.problems.append(problem)
            return
        for name, values in expected.items():
            if values.dtype.kind == "f":
                finite = np.where(np.isfinite(values), values, 0)
                largest = max(largest, float(np.abs(finite).max(initial=0)))
                # numpy's maximum keeps a NaN, Python's drops it.
                difference = float(np.max([difference, *_list_differences(values, given[name])]))
        if (equal := servable.task_type.compare_predictions(expected, given)) is not None:
            same.append(equal)
        check.samples += len(batch)
    check.relative_error = difference / max(1.0, largest)
    check.agreement = float(np.concatenate(same).mean()) if same else None


def _list_differences(first: NDArray[Any], second: NDArray[Any]) -> list[float]:
    # Equal infinities, of classes that are excluded, differ by nothing.
    with np.errstate(invalid="ignore"):
        differences = np.where(first == second, 0, np.abs(np.asarray(first, np.float64) - second))
    return [float(differences.max())] if differences.size else []


def _find_other_form(expected: Outputs, given: Outputs) -> str:
    """Return in words how the server's outputs have another name, dtype or shape; '' where they have none."""
    # It may give more of them: `mlscale serve` adds the name of the class.
    if missing := expected.keys() - given:
        return f"the server gives the outputs {', '.join(given)}, and not {', '.join(sorted(missing))}"
    for name, values in expected.items():
        if given[name].shape != values.shape or given[name].dtype != values.dtype:
            got, wanted = (f"{array.dtype} {array.shape}" for array in (given[name], values))
            return f"the server gives {name} as {got}, not {wanted}"
    return ""


def _measure_latency(
    server: TargetServer, singles: Sequence[list[Any]], most_ms: Mapping[float, float], check: ServerCheck
) -> None:
    times: list[float] = []
    begin = time.perf_counter()
    while singles and len(times) < _TIMED and time.perf_counter() - begin < _ENOUGH_S:
        start = time.perf_counter()
        server.compute_samples(singles[len(times) % len(singles)])
        times.append(1000 * (time.perf_counter() - start))
    check.latency_ms = {quantile: float(np.quantile(times, quantile)) for quantile in most_ms} if times else {}


def _list_problems(check: ServerCheck, settings: CheckSettings) -> Iterator[str]:
    # `not x <= bound`, as every comparison with NaN is false.
    if settings.tolerance is not None and not check.relative_error <= settings.tolerance:
        share = f"{check.relative_error:.1e} of the largest"
        yield f"the server's outputs differ by {share}, more than {settings.tolerance:g}"
    if check.agreement is not None and not check.agreement >= settings.min_agreement:
        yield (
            f"{format_percent(check.agreement, 2)} of the server's predictions agree, "
            f"fewer than {format_percent(settings.min_agreement, 2)}"
        )
    for quantile, most in settings.most_ms.items():
        if not check.latency_ms.get(quantile, float("nan")) <= most:
            yield f"p{100 * quantile:g} is {check.latency_ms.get(quantile, float('nan')):.3g} ms, more than {most:g}"
    if not check.samples and not check.problems:
        yield "no raw sample was sent: there is none that the servable answers"
