"""`precision=auto`, and a comparison with fp32: a short probe before a run, in the launching process."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from mlscale.config.composition.frozen import add_derived
from mlscale.culprit import summarize_error
from mlscale.errors import MLScaleError
from mlscale.launch.start_notices import print_masked_lines
from mlscale.secrets.mask import Masker

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.assembly.run_data import RunData
    from mlscale.config.derive import Devices
    from mlscale.profile.precision_trial import CandidateMeasurement, PrecisionCandidate, PrecisionComparison

PROBE_KEYS = ("precision", "memory_format")
"""The values of a probe that derived.yaml keeps."""
_PROBE_BATCHES = 4
_NO_TRAINER = r".*self\.log\(\).*trainer.*"  # what Lightning warns of, for there is none here
_CONVOLUTION_DIMS = 4  # dimensions of a convolution's weights, whose layout matters


@dataclass(frozen=True)
class PrecisionProbeResult:
    """The result of a probe.

    Attributes:
        outcome: values of the config's `derived`.
        line: that reports it.
        metrics: the chosen precision compared with fp32, for the final table: time_of_fp32, memory_of_fp32 and the
            like; empty where nothing was compared.
    """

    outcome: Mapping[str, Any]
    line: str
    metrics: Mapping[str, float]


def is_auto(cfg: DictConfig) -> bool:
    """Return whether the config has `precision=auto`, so that a probe chooses the precision."""
    node = cfg.get("precision")
    return node is not None and node._get_node("value")._value() == "${derived.precision}"


def restore_probe_outcome(cfg: DictConfig, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return the outcome of an earlier probe, from a run's derived values, if the config needs one."""
    if not is_auto(cfg):
        return {}
    return {"precision": before.get("precision") or "32-true", "memory_format": before.get("memory_format")}


def probe_precision(cfg: DictConfig, derived: Mapping[str, Any], machine: Devices, run_data: RunData) -> dict[str, Any]:
    """Return the outcome of `precision=auto`, for commands that measure a run before there is one; print a line about
    it.
    """
    probed = settle_precision(cfg, derived, machine, run_data) if is_auto(cfg) else None
    if probed is None:
        return {}
    print_masked_lines([probed.line], Masker.create_for_run(cfg))
    return dict(probed.outcome)


def settle_precision(
    cfg: DictConfig, derived: Mapping[str, Any], machine: Devices, run_data: RunData
) -> PrecisionProbeResult | None:
    """Return the result of `precision=auto` or `precision.compare=true` on this machine; None for neither.

    Args:
        cfg: of a run; its precision may not be known yet.
        derived: its other derived values.
        machine: that may support bf16.
        run_data: whose first batches the probe takes.
    """
    if not is_auto(cfg) and not cfg.precision.get("compare"):
        return None
    from mlscale.profile import precision_trial as precisions

    accelerator = derived["accelerator"]
    if is_auto(cfg):
        bf16 = accelerator == "cpu" or (accelerator == "cuda" and machine.cuda_bf16)
        sample = derived.get("sample") or ()
        # Channels-last layouts are only tried for images: (channels, height, width).
        images = len(sample) == 3 or (not sample and bool(derived.get("height")))
        chosen = precisions.list_candidates(accelerator, bf16=bf16, images=images)
        seconds, tolerance, far = cfg.precision.probe_seconds, cfg.precision.tolerance, precisions.MAX_SLOWDOWN
    else:
        # With `precision.compare=true` the precision is fixed: it is timed against fp32, whatever the loss.
        requested = precisions.PrecisionCandidate(str(cfg.precision.value), cfg.precision.get("memory_format"))
        chosen, seconds, tolerance = [precisions.PrecisionCandidate(), requested], 5.0, float("inf")
        far = float("inf")  # a requested comparison is made, of a slow precision too
    try:
        comparison = _compare_candidates(cfg, derived, run_data, chosen, seconds, far)
    except Exception as error:  # whatever a user's module needs that no trainer gives it here
        fallback = {"precision": precisions.FP32, "memory_format": None} if is_auto(cfg) else {}
        word = "fp32, for " if is_auto(cfg) else ""
        why = error.what if isinstance(error, MLScaleError) else summarize_error(error).splitlines()[0]
        return PrecisionProbeResult(fallback, f"precision {word}the probe was not possible: {why}", {})
    best = comparison.select_best(tolerance) if is_auto(cfg) else comparison.measured[1]
    metrics = _compare_with_fp32(cfg, derived, run_data, best, comparison)
    outcome = {"precision": best.candidate.precision, "memory_format": best.candidate.memory_format}
    return PrecisionProbeResult(
        outcome if is_auto(cfg) else {}, _format_probe_line(comparison, best, tolerance), metrics
    )


def _compare_candidates(
    cfg: DictConfig,
    derived: Mapping[str, Any],
    run_data: RunData,
    chosen: Sequence[PrecisionCandidate],
    seconds: float,
    far: float,
) -> PrecisionComparison:
    import pytorch_lightning as pl
    import torch

    from mlscale.assembly.run_parts import set_up_task
    from mlscale.estimate.step_memory import initialize_lazy_layers
    from mlscale.profile.precision_trial import compare_candidates
    from mlscale.train.lightning.quiet import suppress_library_messages

    # The outcome is what is searched: interpolations of it must be null, not the outcome of an earlier probe.
    resolved_cfg = add_derived(cfg, {**derived, **dict.fromkeys(PROBE_KEYS)})
    OmegaConf.update(resolved_cfg, "precision.memory_format", None, force_add=True)  # each candidate sets its own
    suppress_library_messages()
    torch.set_num_threads(derived["threads"])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=_NO_TRAINER)
        batches = run_data.load_first_batches(resolved_cfg, _PROBE_BATCHES)

        def build_candidate_task() -> pl.LightningModule:
            # Each candidate starts from the same weights, so that losses can be compared.
            pl.seed_everything(cfg.seed, verbose=False)
            task, _ = set_up_task(resolved_cfg)
            initialize_lazy_layers(task, batches[0])
            return task

        # Without a convolution no candidate with another layout can differ from the one without.
        if not any(parameter.dim() == _CONVOLUTION_DIMS for parameter in build_candidate_task().parameters()):
            chosen = [candidate for candidate in chosen if candidate.memory_format is None]
        return compare_candidates(build_candidate_task, batches, chosen, derived["accelerator"], seconds, far)


def _compare_with_fp32(
    cfg: DictConfig,
    derived: Mapping[str, Any],
    run_data: RunData,
    best: CandidateMeasurement,
    comparison: PrecisionComparison,
) -> dict[str, float]:
    """Return time and memory of the chosen precision, as shares of fp32's."""
    base = comparison.measured[0]
    if best is base or best.factor is None:
        return {}
    metrics = {"time_of_fp32": 1 / best.factor.value, "fp32_step_s": base.step_s, "probe_step_s": best.step_s}
    if best.peak_bytes is not None and base.peak_bytes:
        return metrics | {"memory_of_fp32": best.peak_bytes / base.peak_bytes}
    try:
        chosen_bytes, base_bytes = (_trace_peak_bytes(cfg, derived, run_data, measured) for measured in (best, base))
        return metrics | {"memory_of_fp32": chosen_bytes / base_bytes}
    except Exception:  # a model that can't be traced: then this metric is left out
        return metrics


def _trace_peak_bytes(
    cfg: DictConfig, derived: Mapping[str, Any], run_data: RunData, measured: CandidateMeasurement
) -> int:
    """Return the peak of a step's tensors on a CPU, bytes, traced with fake tensors."""
    from mlscale.assembly.run_parts import set_up_task
    from mlscale.estimate.step import StepSettings
    from mlscale.estimate.step_memory import trace_two_steps

    resolved_cfg = add_derived(cfg, {**derived, **dict.fromkeys(PROBE_KEYS)})
    OmegaConf.update(resolved_cfg, "precision.memory_format", measured.candidate.memory_format, force_add=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=_NO_TRAINER)
        live = trace_two_steps(
            lambda: set_up_task(resolved_cfg)[0],
            run_data.load_first_batches(resolved_cfg, 1)[0],
            StepSettings(measured.candidate.precision),
        )
    return sum(live.split_peak().values())


def _format_probe_line(comparison: PrecisionComparison, best: CandidateMeasurement, tolerance: float) -> str:
    parts = []
    for measured in comparison.measured[1:]:
        if measured.factor is None:
            parts.append(f"{measured.candidate.name} left out, {measured.why}")
            continue
        factor = measured.factor
        word = f"{measured.candidate.name} {factor.value:.2f}× ({factor.low:.2f} to {factor.high:.2f})"
        parts.append(
            word + ("" if measured.has_agreeing_loss(tolerance) else f", loss off by {measured.difference:+.1%}")
        )
    compared = f"compared with fp32, {'; '.join(parts)}; " if parts else ""
    return f"precision {best.candidate.name}: {compared}{comparison.steps} steps in {comparison.seconds:.1f} s"
