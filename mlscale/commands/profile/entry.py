"""Find what bounds a training run, and prove the remedy."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlscale.config.composition.frozen import with_derived
from mlscale.config.derive import derive
from mlscale.errors import MLScaleError
from mlscale.launch.start_notices import say
from mlscale.profile import machine_load as load
from mlscale.profile.bound_verdict import ROUNDS, Verdict
from mlscale.profile.machine_load import Load
from mlscale.profile.remedies import Tried, best, to_try
from mlscale.report import Result, Rows, duration, keep
from mlscale.secrets.mask import Masker, masked_output
from mlscale.versions.model_reference import resolve_reference

if TYPE_CHECKING:
    from omegaconf import DictConfig

_BETWEEN = 0.2  # of the time: so much is worth a word
_WORTH = 0.1  # of the time: a part that takes so much is named, though another one takes more
_SHOWN = 0.005  # of the time: a smaller part is left out of table and picture
_COMPUTE, _WAIT = "computing", "wait for data"  # as diagnose.step_parts, which imports torch, calls them


def run(cfg: DictConfig) -> Result:
    """Take real steps of the run and steps that replay one batch, in turns; find the bound; try remedies.

    Only the result is kept, in the run's folder if a run was named.

    Raises:
        MLScaleError: what the data or the machine lacks, or a run too short to be measured.
    """
    # First: from here on this process itself is a load on the machine.
    began, found = time.perf_counter(), load.now()
    from mlscale.assembly.facts import data_facts
    from mlscale.assembly.precision_probe import kept, outcome_of
    from mlscale.launch.local_devices import this_machine
    from mlscale.launch.local_launch import warm_up

    if cfg.profile.seconds <= 0:
        raise MLScaleError(
            f"profile.seconds is {cfg.profile.seconds}", where="profile.seconds", fix="profile.seconds=12"
        )
    folder = resolve_reference(cfg.ref, runs_dir=cfg.runs_dir, quiet=True).run_folder() if cfg.ref else None
    # The fork server imports torch meanwhile, so that the first fit does not wait for it.
    warm_up(cfg.trainer.devices)
    masker = Masker.of(cfg)
    facts = data_facts(cfg)
    derived = derive(cfg, facts, this_machine())
    # A run that was made keeps its precision: only a new config needs the probe.
    derived |= kept(cfg, folder.derived) if folder else outcome_of(cfg, derived, this_machine())
    ready = with_derived(cfg, {**derived, "run_dir": "profile", "name": "profile"})
    with masked_output(masker):
        profile = measure(ready, facts, found, masker)
    result = conclude(profile, time.perf_counter() - began)
    return keep(result, folder) if folder else result


@dataclass(frozen=True)
class Profile:
    """The measurements.

    Attributes:
        load: of the machine before the measurement.
        tried: remedies, in the order in which they were tried; empty if none was requested.
        samples: of a step, over all processes; None if unknown.
        shares: of the time of an epoch, by part.
    """

    verdict: Verdict
    load: Load
    tried: list[Tried] = field(default_factory=list)
    samples: float | None = None
    shares: dict[str, float] = field(default_factory=dict)

    @property
    def slowest(self) -> str:
        """The part that takes most of the time, except waits for data."""
        return next((part for part in self.shares if part != _WAIT), _COMPUTE)

    @property
    def is_of_step(self) -> bool:
        """True if a part of the step bounds the run. A loader can take cores from computing only: if another part takes
        more, its gain is small, or chance.
        """
        bound = self.verdict.bound
        return bound == "step" or (bound == "cores" and self.slowest != _COMPUTE)

    @property
    def bound(self) -> str:
        """The bound of the run; time is called compute only if it was timed as compute."""
        return self.slowest if self.is_of_step else self.verdict.bound


def measure(cfg: DictConfig, facts: Any, found: Load, masker: Masker) -> Profile:
    """Return the verdict, and the results of the remedies."""
    from mlscale.commands.profile import timed_fits as profile_probe
    from mlscale.profile.bound_verdict import judge

    seconds = cfg.profile.seconds
    probe = profile_probe.of(cfg, facts)
    say([f"profile  {ROUNDS} rounds of real and of replayed steps, about {duration(seconds)}"], masker)
    steps = probe.steps_for(seconds)
    verdict = judge(probe.rounds(steps))
    accumulate = cfg.trainer.get("accumulate_grad_batches", 1) or 1
    batch = (cfg.get("data") or {}).get("batch_size") if cfg.derived.per_device_batch else None
    profile = Profile(verdict, found, [], batch / accumulate if batch else None, probe.shares(steps))
    say([f"profile  {_told(profile)}"], masker)
    slowest = profile.slowest if profile.shares.get(profile.slowest, 0.0) >= _WORTH else None
    setup = probe.setup(busy=found.busy, slowest=slowest)
    for remedy in to_try(profile.bound, setup, profile.tried) if cfg.profile.remedies else ():
        say([f"profile  trying {remedy.typed}"], masker)
        profile.tried.append(probe.tried(remedy, steps))
    return profile


def conclude(profile: Profile, seconds: float) -> Result:
    """Return the result: metrics, and a sentence about the bound."""
    verdict, proven = profile.verdict, best(profile.tried)
    sentence = [_told(profile), _advice(profile, proven)]
    if verdict.between >= _BETWEEN:
        sentence.append(
            f"{verdict.between:.0%} of the time lies between epochs, where loaders start and epochs' callbacks run"
        )
    if told := profile.load.told():
        sentence.append(f"{told}: these are its figures as it is now")
    metrics: dict[str, float] = {
        "step_ms": 1e3 * verdict.real,
        "step_spread_percent": 100 * verdict.spread,
        "wait_per_step_ms": 1e3 * verdict.waited,
        "wait_percent": 100 * verdict.wait,
        "between_epochs_percent": 100 * verdict.between,
        "replayed_step_ms": 1e3 * verdict.replayed,
        "headspace_ratio": verdict.headspace.value,
        "headspace_spread_percent": 100 * verdict.headspace.spread,
        "predicted_headspace_ratio": verdict.predicted,
    }
    if profile.samples is not None:
        metrics["throughput_samples_per_s"] = profile.samples / verdict.real
    metrics |= {f"{each.remedy.typed}_ratio": each.factor.value for each in profile.tried if each.factor}
    shown = {part: share for part, share in profile.shares.items() if share >= _SHOWN and part != _WAIT}
    metrics |= {f"{part}_percent": 100 * share for part, share in shown.items()}
    metrics |= {"steps": verdict.steps, "load": profile.load.processes, "cores": profile.load.cores, "time_s": seconds}
    by = {"bound_by": profile.bound}
    if proven:
        by["remedy"] = proven.remedy.typed
    return Result(
        verb="profile",
        ok=True,
        sentence="; ".join(part for part in sentence if part),
        metrics=metrics,
        artifacts=by,
        figures=_figures(profile),
    )


def _told(profile: Profile) -> str:
    """Return a sentence about the bound of the run."""
    verdict = profile.verdict
    wait, gain = f"{verdict.wait:.0%}", f"{verdict.headspace.value:.2f}×"
    if profile.is_of_step:
        took = f" takes {profile.shares[profile.slowest]:.0%} of the time and" if profile.shares else ""
        told = (
            f"{profile.slowest}{took} bounds the run: it waits for data {wait} of the time, "
            f"a perfect loader gives {gain} (measured)"
        )
    elif verdict.bound == "data":
        told = f"the step waits for data {wait} of the time: a perfect loader would be {gain} as fast (measured)"
    elif verdict.bound == "cores":
        told = (
            f"the loader takes cores from the step: it waits for data only {wait} of the time, "
            f"and yet a perfect loader would be {gain} as fast (measured)"
        )
    else:
        rounds = ", ".join(f"{each:.2f}×" for each in verdict.headspace.rounds)
        told = f"unclear what bounds the run: a perfect loader gave {rounds} in turn, and {wait} of the time is a wait"
    named = [f"{part} {share:.0%}" for part, share in profile.shares.items() if _is_worth_naming(profile, part, share)]
    return f"{told}; of the time of an epoch: {', '.join(named)}" if named else told


def _is_worth_naming(profile: Profile, part: str, share: float) -> bool:
    """Return whether a part takes much of the time and has not been named yet."""
    return share >= _WORTH and part not in (_WAIT, profile.bound)


def _advice(profile: Profile, proven: Tried | None) -> str:
    if proven is not None and proven.factor is not None:
        told = f"type {proven.remedy.typed}, proven {proven.factor.value:.2f}× here"
        # Workers can't gain more than a loader that costs nothing: if they seem to, the machine's speed has changed
        # between the measurements.
        if proven.remedy.workers is not None and proven.factor.value > 1.1 * profile.verdict.headspace.value:
            told += " (more than a perfect loader gave a moment before: the machine is not steady)"
        return f"{told}; {proven.remedy.caution}" if proven.remedy.caution else told
    if profile.verdict.bound == "unclear":
        return "measure again when the machine is quieter, or longer: profile.seconds=60"
    if not profile.tried:
        return "no remedy tried"
    return f"no remedy proven (tried {', '.join(each.told() for each in profile.tried)})"


def _figures(profile: Profile) -> list[Rows]:
    verdict = profile.verdict
    between = 1e3 * verdict.real * verdict.between
    waited = 1e3 * verdict.waited
    parts = [
        ("wait for data", waited),
        ("between epochs", between),
        ("the rest", 1e3 * verdict.real - waited - between),
        ("a whole step with a perfect loader", 1e3 * verdict.replayed),
    ]
    figures = [Rows("Where a step's time goes", parts, "ms", 1e3 * max(verdict.real, verdict.replayed))]
    if profile.shares:
        shown = [(part, 100 * share) for part, share in profile.shares.items() if share >= _SHOWN]
        figures.append(Rows("Where an epoch's time goes, validation and checkpoints included", shown, "%", 100))
    if profile.tried:
        rows = [("as it is", 1.0)]
        rows += [(each.remedy.typed, each.factor.value if each.factor else float("nan")) for each in profile.tried]
        rows.append(("a perfect loader", verdict.headspace.value))
        figures.append(Rows(f"Speed against the run as it is, median of {ROUNDS} rounds", rows, "×"))
    return figures
