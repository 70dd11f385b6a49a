"""Find what bounds a training run, and prove the remedy."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mlscale.config.checks.dali_support import check_dali_machine
from mlscale.config.composition.frozen import add_derived
from mlscale.config.derive import derive_values
from mlscale.launch.start_notices import print_masked_lines
from mlscale.profile.bound_verdict import ROUNDS, BoundVerdict, Straggler, find_straggler, format_headroom
from mlscale.profile.remedies import RemedyTrial, propose_remedies, select_best_remedy
from mlscale.report import HorizontalBarPlot, Result, format_duration, save_result
from mlscale.runs.host import machine as load
from mlscale.runs.host.machine import MachineLoad
from mlscale.secrets.mask import Masker, mask_output
from mlscale.versions.model_reference import resolve_reference

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.assembly.run_data import RunData

_MIN_BETWEEN_SHARE = 0.2  # of the time: so much is worth a word
_MIN_NAMED_SHARE = 0.1  # of the time: a part that takes so much is named, though another one takes more
_MIN_WAIT_RATIO = 1 / 3  # to the time of computing: a shorter wait is not the headline
_MIN_SHOWN_SHARE = 0.005  # of the time: a smaller part is left out of table and picture
# As profile.step_parts, which imports torch, calls them.
_COMPUTE, _WAIT, _RANKS, _EXCHANGE = "computing", "wait for data", "wait for other ranks", "exchange of gradients"


def run(cfg: DictConfig) -> Result:
    """Take real steps of the run and steps that replay one batch, in turns; find the bound; try remedies.

    Only the result is kept, in the run's folder if a run was named.

    Raises:
        MLScaleError: what the data or the machine lacks, or a run too short to be measured.
    """
    # First: from here on this process itself is a load on the machine.
    began, machine_load = time.perf_counter(), load.measure_load()
    from mlscale.assembly.run_data import RunData
    from mlscale.launch.local_devices import detect_local_devices
    from mlscale.launch.local_launch import start_fork_server

    folder = resolve_reference(cfg.ref, runs_dir=cfg.runs_dir, quiet=True).open_run() if cfg.ref else None
    # The fork server imports torch meanwhile, so that the first fit does not wait for it.
    start_fork_server(cfg.trainer.devices)
    masker = Masker.create_for_run(cfg)
    check_dali_machine(cfg, has_cuda=detect_local_devices().cuda > 0)
    run_data = RunData()
    facts = run_data.collect_facts(cfg)
    derived = derive_values(cfg, facts, detect_local_devices())
    resolved_cfg = add_derived(cfg, {**derived, "run_dir": "profile", "name": "profile"})
    with mask_output(masker):
        profile = measure_bound(resolved_cfg, facts, run_data, machine_load, masker)
    result = build_profile_result(profile, time.perf_counter() - began)
    result = replace(result, overrides=list(cfg.derived.overrides or ()))
    return save_result(result, folder) if folder else result


@dataclass(frozen=True)
class RunProfile:
    """The measurements.

    Attributes:
        load: of the machine before the measurement.
        tried: remedies, in the order in which they were tried; empty if none was requested.
        samples: of a step, over all processes; None if unknown.
        shares: of the time of an epoch, by part; of the first rank.
        straggler: the rank that others wait for; None without one.
        hides_waits: ranks wait for each other while they compute, too, which no timer sees.
        sequence_length: tokens of a sample; 0 of samples that are no sequences.
        padding_share: of them; None of samples that are no sequences.
    """

    verdict: BoundVerdict
    load: MachineLoad
    tried: list[RemedyTrial] = field(default_factory=list)
    samples: float | None = None
    shares: dict[str, float] = field(default_factory=dict)
    sequence_length: int = 0
    padding_share: float | None = None
    straggler: Straggler | None = None
    hides_waits: bool = False

    @property
    def slowest(self) -> str:
        """The part that takes most of the time, except waits for data."""
        return next((part for part in self.shares if part != _WAIT), _COMPUTE)

    @property
    def is_of_step(self) -> bool:
        """True if a part of the time other than a wait for data bounds the run: the largest one is the headline.

        A loader can take cores from computing only: if another part takes more, its gain is small, or chance. Of
        computing, a loader may leave a part of a wait that is long.
        """
        bound, slowest = self.verdict.bound, self.slowest
        # Of the time of an epoch: validation may take most of it, though steps do nothing but wait.
        wait = self.shares.get(_WAIT, 0.0) if self.shares else self.verdict.wait
        ratio = wait / self.shares.get(slowest, 1.0)
        if slowest == _COMPUTE:
            return bound == "step" or (bound == "data" and ratio < _MIN_WAIT_RATIO)
        return bound in ("step", "cores") or ratio < 1

    @property
    def bound(self) -> str:
        """The bound of the run; time is called compute only if it was timed as compute."""
        if self.straggler and self.straggler.bounds_run:
            return f"rank {self.straggler.rank}"
        return self.slowest if self.is_of_step else self.verdict.bound


def measure_bound(
    cfg: DictConfig,
    facts: Mapping[str, Any] | None,
    run_data: RunData,
    machine_load: MachineLoad,
    masker: Masker,
) -> RunProfile:
    """Return the verdict, and the results of the remedies."""
    from mlscale.commands.profile import timed_fits as profile_probe
    from mlscale.profile.bound_verdict import evaluate_rounds

    seconds = cfg.profile.seconds
    probe, workers = profile_probe.build_profile_probe(cfg, facts), profile_probe.count_workers(cfg, run_data)
    has_python = getattr(run_data.build_module(cfg), "runs_python_here", lambda: False)()
    run_data.release_module()  # each fit has its own, and they share this process
    print_masked_lines(
        [f"profile  {ROUNDS} rounds of real and of replayed steps, about {format_duration(seconds)}"], masker
    )
    steps = probe.choose_step_count(seconds)
    verdict = evaluate_rounds(probe.run_rounds(steps))
    accumulate = cfg.trainer.get("accumulate_grad_batches", 1) or 1
    batch = (cfg.get("data") or {}).get("batch_size") if cfg.derived.per_device_batch else None
    if machine_load.busy and cfg.derived.world_size > 1:  # what a rank waits for may be other processes
        verdict, ranks = replace(verdict, bound="unclear"), [dict[str, float]()]
    else:
        ranks = probe.measure_shares(steps)
    profile = RunProfile(
        verdict,
        machine_load,
        [],
        batch / accumulate if batch else None,
        ranks[0],
        sequence_length=(facts or {}).get("length") or 0,
        padding_share=(facts or {}).get("padding_share"),
        straggler=find_straggler(ranks, _RANKS, _COMPUTE),
        hides_waits=len(ranks) > 1 and _EXCHANGE not in ranks[0],
    )
    print_masked_lines([f"profile  {_describe_bound(profile)}"], masker)
    slowest = profile.slowest if profile.shares.get(profile.slowest, 0.0) >= _MIN_NAMED_SHARE else None
    setup = probe.collect_setup(workers=workers, has_python=has_python, busy=machine_load.busy, slowest=slowest)
    for remedy in propose_remedies(profile.bound, setup, profile.tried) if cfg.profile.remedies else ():
        print_masked_lines([f"profile  trying {remedy.typed}"], masker)
        profile.tried.append(probe.try_remedy(remedy, steps))
    return profile


def build_profile_result(profile: RunProfile, seconds: float) -> Result:
    """Return the result: metrics, and a sentence about the bound."""
    verdict, proven = profile.verdict, select_best_remedy(profile.tried)
    sentence = [_describe_bound(profile), _suggest_remedy(profile, proven)]
    if verdict.between >= _MIN_BETWEEN_SHARE:
        sentence.append(
            f"{verdict.between:.0%} of the time lies between epochs, where loaders start and epochs' callbacks run"
        )
    if busy := profile.load.describe_oversubscription():
        sentence.append(f"{busy}: these metrics are of the machine as it is now")
    metrics: dict[str, float] = {
        "step_ms": 1e3 * verdict.real,
        "step_spread_percent": 100 * verdict.spread,
        "wait_per_step_ms": 1e3 * verdict.waited,
        "wait_percent": 100 * verdict.wait,
        "between_epochs_percent": 100 * verdict.between,
        "replayed_step_ms": 1e3 * verdict.replayed,
        "headspace_ratio": verdict.headroom.value,
        "headspace_spread_percent": 100 * verdict.headroom.spread,
        "predicted_headspace_ratio": verdict.predicted,
    }
    if profile.samples is not None:
        metrics["throughput_samples_per_s"] = profile.samples / verdict.real
        if profile.padding_share is not None:
            per_sample = profile.sequence_length * (1 - profile.padding_share)
            metrics["throughput_tokens_per_s"] = profile.samples * per_sample / verdict.real
            metrics["padding_percent"] = 100 * profile.padding_share
    metrics |= {f"{tried.remedy.typed}_ratio": tried.factor.value for tried in profile.tried if tried.factor}
    shown = {part: share for part, share in profile.shares.items() if share >= _MIN_SHOWN_SHARE and part != _WAIT}
    metrics |= {f"{part}_percent": 100 * share for part, share in shown.items()}
    metrics |= {"steps": verdict.steps, "load": profile.load.processes, "cores": profile.load.cores, "time_s": seconds}
    details = {"bound_by": profile.bound, **({"remedy": proven.remedy.typed} if proven else {})}
    return Result(
        command="profile",
        ok=True,
        sentence="; ".join(part for part in sentence if part),
        metrics=metrics,
        figures=_plot_times(profile),
        details=details,
    )


def _describe_bound(profile: RunProfile) -> str:
    """Return a sentence about the bound of the run."""
    verdict = profile.verdict
    wait, gain = f"{verdict.wait:.0%}", format_headroom(verdict.headroom.value)
    straggler = profile.straggler
    if straggler and straggler.bounds_run:
        part, share = straggler.part
        text = (
            f"rank {straggler.rank} bounds the run: another rank waits for it {straggler.share:.0%} of "
            f"the time, and {share:.0%} of its own time is {part}"
        )
    elif profile.is_of_step:
        took = f" takes {profile.shares[profile.slowest]:.0%} of the time and" if profile.shares else ""
        unseen = " or waiting for another rank" if profile.hides_waits and profile.slowest == _COMPUTE else ""
        text = (
            f"{profile.slowest}{unseen}{took} bounds the run: a step waits for data {wait} of its time, "
            f"a perfect loader gives {gain}"
        )
    elif verdict.bound == "data":
        text = f"the step waits for data {wait} of the time: a perfect loader gives {gain}"
    elif verdict.bound == "cores":
        text = (
            f"the loader takes cores from the step: it waits for data only {wait} of the time, "
            f"and yet a perfect loader gives {gain}"
        )
    else:
        rounds = ", ".join(f"{ratio:.2f}×" for ratio in verdict.headroom.rounds)
        text = f"unclear what bounds the run: a perfect loader gave {rounds} in turn, and {wait} of the time is a wait"
    named = [f"{part} {share:.0%}" for part, share in profile.shares.items() if _is_worth_naming(profile, part, share)]
    if straggler and not straggler.bounds_run:
        named.append(f"another rank's wait for rank {straggler.rank} {straggler.share:.0%}")
    return f"{text}; of the time of an epoch: {', '.join(named)}" if named else text


def _is_worth_naming(profile: RunProfile, part: str, share: float) -> bool:
    """Return whether a part takes much of the time and has not been named yet."""
    return share >= _MIN_NAMED_SHARE and part not in (_WAIT, profile.bound, _RANKS if profile.straggler else "")


def _suggest_remedy(profile: RunProfile, proven: RemedyTrial | None) -> str:
    if proven is not None and proven.factor is not None:
        text = f"type {proven.remedy.typed}, proven {proven.factor.value:.2f}× here"
        # Workers can't gain more than a loader that costs nothing: if they seem to, the machine's speed has changed
        # between the measurements.
        if proven.remedy.workers is not None and proven.factor.value > 1.1 * profile.verdict.headroom.value:
            text += " (more than a perfect loader gave a moment before: the machine is not steady)"
        return f"{text}; {proven.remedy.caution}" if proven.remedy.caution else text
    if profile.bound == "unclear":
        return "measure again when the machine is quieter, or longer: profile.seconds=60"
    if not profile.tried:
        return "no remedy tried"
    return f"no remedy proven (tried {', '.join(tried.format_outcome() for tried in profile.tried)})"


def _plot_times(profile: RunProfile) -> list[HorizontalBarPlot]:
    verdict = profile.verdict
    between = 1e3 * verdict.real * verdict.between
    waited = 1e3 * verdict.waited
    parts = [
        ("wait for data", waited),
        ("between epochs", between),
        ("the rest", 1e3 * verdict.real - waited - between),
        ("a whole step with a perfect loader", 1e3 * verdict.replayed),
    ]
    plots = [HorizontalBarPlot("Where a step's time goes", parts, "ms", 1e3 * max(verdict.real, verdict.replayed))]
    if profile.shares:
        shown = [(part, 100 * share) for part, share in profile.shares.items() if share >= _MIN_SHOWN_SHARE]
        plots.append(
            HorizontalBarPlot("Where an epoch's time goes, validation and checkpoints included", shown, "%", 100)
        )
    if profile.tried:
        rows = [("as it is", 1.0)]
        rows += [(tried.remedy.typed, tried.factor.value if tried.factor else float("nan")) for tried in profile.tried]
        rows.append(("a perfect loader", verdict.headroom.value))
        plots.append(HorizontalBarPlot(f"Speed against the run as it is, median of {ROUNDS} rounds", rows, "×"))
    return plots
