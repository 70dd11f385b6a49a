"""The measurements of `mlscale profile`: short fits of the run, some with a loader that costs nothing, in turns."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from omegaconf import DictConfig, open_dict

from mlscale.assembly import short_fits as short_fit
from mlscale.assembly.run_data import RunData
from mlscale.config.targets import has_argument
from mlscale.culprit import summarize_error
from mlscale.errors import MLScaleError
from mlscale.estimate.time_probe import compute_run_length, count_validation_batches
from mlscale.profile import step_parts
from mlscale.profile import step_timers as timers
from mlscale.profile.bound_verdict import ROUNDS, Factor
from mlscale.profile.remedies import Remedy, RemedyTrial, RunSetup
from mlscale.profile.step_timers import StepTimes
from mlscale.runs.host.machine import count_usable_cores

_MANY_EPOCHS = 1000  # of which the validations of one are the mean
_FIRST_STEPS = 6  # steps of the fit that shows how many fit into the time
_MIN_STEPS, _MAX_STEPS = 12, 2000  # steps of a measured fit
_WARM_UP_STEPS = 16  # steps at most: loaders begin with full hands
_VALIDATION_BATCHES = 8  # batches of a validation, at most, where parts are timed
_PARTS_CALLBACK = {"profile_parts": {"_target_": "mlscale.profile.step_parts.NamedParts"}}
_REPLAY_CALLBACK = {"profile_replay": {"_target_": "mlscale.profile.replay_loader.Replay"}}


@dataclass(frozen=True)
class ProfileProbe:
    """Short fits of one run.

    Attributes:
        cfg: of the run, derived values in place.
        facts: of the data; None if it reports none.
        passes: batches of an epoch of one process; None if unknown.
    """

    cfg: DictConfig
    facts: Mapping[str, Any] | None
    passes: int | None

    def choose_step_count(self, seconds: float) -> int:
        """Return the steps of each measured fit so that all rounds take about `seconds`; warms up this process."""
        first = self.run_fit(_FIRST_STEPS)
        # Each round has two fits.
        return int(min(_MAX_STEPS, max(_MIN_STEPS, seconds / (2 * ROUNDS) / first.step)))

    def run_rounds(self, steps: int) -> list[tuple[StepTimes, StepTimes]]:
        """Return the rounds, each a real fit and one that replays a batch. Their order alternates, so that a trend
        affects both.
        """
        pairs = []
        for number in range(ROUNDS):
            order = (False, True) if not number % 2 else (True, False)
            times = {replay: self.run_fit(steps, replay=replay) for replay in order}
            pairs.append((times[False], times[True]))
        return pairs

    def try_remedy(self, remedy: Remedy, steps: int) -> RemedyTrial:
        """Compare a remedy with the run as it is, in turns, until a round without a gain: then it can't be proven any
        more.

        A remedy that fails is reported, and has no factor.
        """
        other, factors = self.apply_remedy(remedy), list[float]()
        try:
            for number in range(ROUNDS):
                # Alternating, so that a machine that gets slower or faster does not favour one of them.
                order = (self, other) if not number % 2 else (other, self)
                took = {
                    id(probe): probe.run_fit(steps, threads=remedy.threads if probe is other else None)
                    for probe in order
                }
                factors.append(took[id(self)].step / took[id(other)].step)
                if factors[-1] <= 1:
                    break
        except MLScaleError as error:
            return RemedyTrial(remedy, None, str(error).splitlines()[0])
        except Exception as error:
            return RemedyTrial(remedy, None, summarize_error(error))
        return RemedyTrial(remedy, Factor(tuple(factors)))

    def run_fit(self, steps: int, *, replay: bool = False, threads: int | None = None) -> StepTimes:
        """Run a fit of about `steps` steps after its warm-up, in at least two epochs: their start is timed, too."""
        warm_up = min(_WARM_UP_STEPS, max(2, steps // 4))
        # Two epochs at least, and so half of the steps in each.
        half = -(-(steps + warm_up) // 2)
        passes = min(self.passes or half, half)
        epochs = max(2, -(-(steps + warm_up) // passes))
        with short_fit.provide_scratch_folder("profile") as folder:
            times = folder / "times.json"
            short = short_fit.shorten_config(
                self.cfg, (passes, 0), epochs, _REPLAY_CALLBACK if replay else {}, steps_alone=True
            )
            with open_dict(short):
                short.trainer.num_sanity_val_steps = 0
                short.trainer.profiler = {"_target_": "mlscale.profile.step_timers.TwoTimers", "path": str(times)}
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="This DataLoader will create")  # whether it helps is measured
                short_fit.run_short_fit(short, self.facts, folder, threads, command="profile")
            timed = timers.read_epoch_times(times)
        done = sum(len(epoch.done) for epoch in timed)
        if done < 2:
            raise MLScaleError(
                f"the run takes {done} step{'s' * (done != 1)}: there is nothing to measure",
                where="trainer",
                fix="debug=none\ndata.batch_size=<a smaller one>",
            )
        return timers.compute_step_times(timed, min(warm_up, len(timed[0].done) // 2), self.passes)

    def measure_shares(self, steps: int) -> list[dict[str, float]]:
        """Return the share of an epoch's time that each part takes, of each rank, by one more fit: with validation and
        checkpoints.

        Timing each part costs some ten microseconds a step, so no speed is taken from this fit.
        """
        warm_up = min(_WARM_UP_STEPS, max(2, steps // 4))
        passes = min(self.passes or steps + warm_up, steps + warm_up)
        epochs = max(2, -(-(steps + warm_up) // passes))
        with short_fit.provide_scratch_folder("profile") as folder:
            times = folder / "parts.json"
            batches = (passes, _VALIDATION_BATCHES if self.cfg.trainer.get("limit_val_batches") != 0 else 0)
            short = short_fit.shorten_config(self.cfg, batches, epochs, _PARTS_CALLBACK, steps_alone=True, saves=True)
            with open_dict(short):
                short.trainer.num_sanity_val_steps = 0
                short.trainer.profiler = {
                    "_target_": "mlscale.profile.step_parts.PartTimer",
                    "path": str(times),
                    "warm_up": min(warm_up, passes * epochs // 2),
                }
            short_fit.run_short_fit(short, self.facts, folder, command="profile")
            ranks = [
                step_parts.read_part_times(path)
                for rank in range(self.cfg.derived.world_size)
                if (path := step_parts.get_rank_path(times, rank)).is_file()
            ]
        if not ranks[0].steps:  # epochs end before the warm-up: their length is known now
            return replace(self, passes=max(1, ranks[0].warm_up // epochs)).measure_shares(steps)
        length = self.passes or ranks[0].epoch_batches
        validated, often = self._count_validations(length, ranks[0].validation_length)
        return [timed.compute_shares(length, validated, often) for timed in ranks]

    def _count_validations(self, passes: int | None, batches: int | None) -> tuple[float | None, float]:
        """Return the number of batches that a process validates per training epoch, None if unknown; and how often.

        Args:
            passes, batches: of an epoch and of a validation; None if unknown.
        """
        batches = count_validation_batches(self.cfg.derived) or batches
        plan = compute_run_length(self.cfg.trainer, passes, passes and passes * _MANY_EPOCHS, batches)
        if plan is None or not plan.validations:
            return None, 1.0
        often = plan.validations / _MANY_EPOCHS
        return plan.validation_batches * often, often

    def apply_remedy(self, remedy: Remedy) -> ProfileProbe:
        """Return the same run with the remedy."""
        cfg = self.cfg.copy()
        with open_dict(cfg):
            if remedy.workers is not None:
                cfg.data[_find_workers_key(cfg)] = remedy.workers
            if remedy.executor is not None:
                cfg.data.executor = remedy.executor
            if remedy.precision is not None:
                cfg.precision = {"value": remedy.precision, "memory_format": remedy.memory_format}
            if remedy.without is not None:
                group, name = remedy.without
                del cfg[group][name]
        return ProfileProbe(cfg, self.facts, self.passes)

    def find_removable(self, part: str | None) -> tuple[str, str] | None:
        """Return the group and the name of the callback or logger that a part is the time of; None for other parts."""
        kind, _, name = (part or "").partition(" ")
        group = {"callback": "callbacks", "logger": "logger"}.get(kind, "")
        nodes = (self.cfg.get(group) or {}) if group else {}
        named = [key for key, node in nodes.items() if node and str(node["_target_"]).rsplit(".", 1)[-1] == name]
        # Two of the same class have one time together: neither can be named as the cause.
        return (group, named[0]) if len(named) == 1 else None

    def collect_setup(
        self, *, workers: int | None, has_python: bool, busy: bool, slowest: str | None = None
    ) -> RunSetup:
        """Return the run's settings that remedies change.

        Args:
            workers: of the loader; None if the data takes no such number.
            has_python: see `RunSetup`.
            busy: True if other processes take time from the cores.
            slowest: the part that takes most of the time, where it is not computing.
        """
        return RunSetup(
            workers=workers,
            workers_key=f"data.{_find_workers_key(self.cfg)}",
            precision=str(self.cfg.precision.value),
            bf16=self.cfg.derived.accelerator == "cpu" or _has_cuda_bf16(),
            threads=self.cfg.derived.threads,
            cores=count_usable_cores(),
            busy=busy,
            has_python=has_python,
            removable=self.find_removable(slowest),
            images=bool(self.cfg.derived.get("height")),
        )


def build_profile_probe(cfg: DictConfig, facts: Mapping[str, Any] | None) -> ProfileProbe:
    """Return the probe of a run with its derived values; its fits take no more batches per epoch than the run has."""
    steps = cfg.derived.steps_per_epoch
    return ProfileProbe(cfg, facts, steps * (cfg.trainer.get("accumulate_grad_batches", 1) or 1) if steps else None)


def _find_workers_key(cfg: DictConfig) -> str:
    node = cfg.get("data")
    return next((name for name in ("workers", "num_workers") if node and has_argument(node, name)), "")


def count_workers(cfg: DictConfig, run_data: RunData) -> int | None:
    """Return the number of loading workers of the run; None if the data takes no such number."""
    key = _find_workers_key(cfg)
    if not key:
        return None
    data: Any = run_data.build_module(cfg)
    if hasattr(data, "loading_workers"):
        return int(data.loading_workers())
    set_to = cfg.data.get(key)
    return set_to if isinstance(set_to, int) else 0


def _has_cuda_bf16() -> bool:
    from mlscale.launch.local_devices import detect_local_devices

    return detect_local_devices().cuda_bf16
