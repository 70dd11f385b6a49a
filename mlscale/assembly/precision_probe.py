"""`precision=auto`, and a comparison with fp32: a short probe before a run, in the launching process."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from mlscale.config.composition.frozen import with_derived
from mlscale.culprit import summary
from mlscale.errors import MLScaleError
from mlscale.launch.start_notices import say
from mlscale.secrets.mask import Masker

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.config.derive import Devices
    from mlscale.profile.precision_trial import Candidate, Comparison, Measured

OUTCOME = ("precision", "memory_format")
"""The values of a probe that derived.yaml keeps."""
_BATCHES = 4
_NO_TRAINER = r".*self\.log\(\).*trainer.*"  # what Lightning warns of, for there is none here
_OF_IMAGES = 4  # dimensions of a convolution's weights, whose layout matters


@dataclass(frozen=True)
class Probed:
    """The result of a probe.

    Attributes:
        outcome: values of the config's `derived`.
        line: that reports it.
        figures: the chosen precision compared with fp32, for the final table: time_of_fp32, memory_of_fp32 and the
            like; empty where nothing was compared.
    """

    outcome: Mapping[str, Any]
    line: str
    figures: Mapping[str, float]


def is_auto(cfg: DictConfig) -> bool:
    """Return whether the config has `precision=auto`, so that a probe chooses the precision."""
    node = cfg.get("precision")
    return node is not None and node._get_node("value")._value() == "${derived.precision}"


def kept(cfg: DictConfig, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return the outcome of an earlier probe, from a run's derived values, if the config needs one."""
    if not is_auto(cfg):
        return {}
    return {"precision": before.get("precision") or "32-true", "memory_format": before.get("memory_format")}


def outcome_of(cfg: DictConfig, derived: Mapping[str, Any], machine: Devices) -> dict[str, Any]:
    """Return the outcome of `precision=auto`, for commands that measure a run before there is one; print a line about
    it.
    """
    probed = settled(cfg, derived, machine) if is_auto(cfg) else None
    if probed is None:
        return {}
    say([probed.line], Masker.of(cfg))
    return dict(probed.outcome)


def settled(cfg: DictConfig, derived: Mapping[str, Any], machine: Devices) -> Probed | None:
    """Return the result of `precision=auto` or `precision.compare=true` on this machine; None for neither.

    Args:
        cfg: of a run; its precision may not be known yet.
        derived: its other derived values.
        machine: that may support bf16.
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
        chosen = precisions.candidates(accelerator, bf16=bf16, images=images)
        seconds, tolerance, far = cfg.precision.probe_seconds, cfg.precision.tolerance, precisions.FAR
    else:
        # With `precision.compare=true` the precision is fixed: it is timed against fp32, whatever the loss.
        asked = precisions.Candidate(str(cfg.precision.value), cfg.precision.get("memory_format"))
        chosen, seconds, tolerance = [precisions.Candidate(), asked], 5.0, float("inf")
        far = float("inf")  # a requested comparison is made, of a slow precision too
    try:
        comparison = _compare(cfg, derived, chosen, seconds, far)
    except Exception as error:  # whatever a user's module needs that no trainer gives it here
        found = {"precision": precisions.FP32, "memory_format": None} if is_auto(cfg) else {}
        word = "fp32, for " if is_auto(cfg) else ""
        why = error.what if isinstance(error, MLScaleError) else summary(error).splitlines()[0]
        return Probed(found, f"precision {word}the probe was not possible: {why}", {})
    best = comparison.best(tolerance) if is_auto(cfg) else comparison.measured[1]
    figures = _figures(cfg, derived, best, comparison)
    outcome = {"precision": best.candidate.precision, "memory_format": best.candidate.memory_format}
    return Probed(outcome if is_auto(cfg) else {}, _line(comparison, best, tolerance), figures)


def _compare(
    cfg: DictConfig, derived: Mapping[str, Any], chosen: Sequence[Candidate], seconds: float, far: float
) -> Comparison:
    import pytorch_lightning as pl
    import torch

    from mlscale.assembly.run import build_task
    from mlscale.estimate.step_memory import give_shapes
    from mlscale.profile.precision_trial import compare
    from mlscale.train.lightning.quiet import quiet

    # The outcome is what is searched: interpolations of it must be null, not the outcome of an earlier probe.
    ready = with_derived(cfg, {**derived, **dict.fromkeys(OUTCOME)})
    quiet()
    torch.set_num_threads(derived["threads"])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=_NO_TRAINER)
        batches = _batches(ready)

        def build() -> pl.LightningModule:
            # Each candidate starts from the same weights, so that losses can be compared.
            pl.seed_everything(cfg.seed, verbose=False)
            task = build_task(ready)
            give_shapes(task, batches[0])
            return task

        # Without a convolution no candidate with another layout can differ from the one without.
        if not any(parameter.dim() == _OF_IMAGES for parameter in build().parameters()):
            chosen = [each for each in chosen if each.memory_format is None]
        return compare(build, batches, chosen, derived["accelerator"], seconds, far)


def _batches(cfg: DictConfig) -> list[Any]:
    """Return the first training batches of one process."""
    from mlscale.assembly.run import build_data, build_task

    one = cfg.copy()
    if cfg.get("data") and cfg.derived.per_device_batch:
        # Without a Trainer the data module does not know that the global batch is shared by several devices.
        one.data.batch_size = cfg.derived.per_device_batch
    data = build_data(one)
    if data is not None:
        data.prepare_data()
        data.setup("fit")
    source: Any = data if data is not None else build_task(cfg)
    return list(islice(iter(source.train_dataloader()), _BATCHES))


def _figures(cfg: DictConfig, derived: Mapping[str, Any], best: Measured, found: Comparison) -> dict[str, float]:
    """Return time and memory of the chosen precision, as shares of fp32's."""
    base = found.measured[0]
    if best is base or best.factor is None:
        return {}
    figures = {"time_of_fp32": 1 / best.factor.value, "fp32_step_s": base.step_s, "probe_step_s": best.step_s}
    if best.peak_bytes is not None and base.peak_bytes:
        return figures | {"memory_of_fp32": best.peak_bytes / base.peak_bytes}
    try:
        return figures | {"memory_of_fp32": _traced(cfg, derived, best) / _traced(cfg, derived, base)}
    except Exception:  # a model that can't be traced: then this metric is left out
        return figures


def _traced(cfg: DictConfig, derived: Mapping[str, Any], measured: Measured) -> int:
    """Return the peak of a step's tensors on a CPU, bytes, traced with fake tensors."""
    from mlscale.assembly.run import build_task
    from mlscale.estimate.step import Loop
    from mlscale.estimate.step_memory import traced

    ready = with_derived(cfg, {**derived, **dict.fromkeys(OUTCOME)})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=_NO_TRAINER)
        live = traced(lambda: build_task(ready), _batches(ready)[0], Loop(measured.candidate.precision))
    return sum(live.at_peak().values())


def _line(found: Comparison, best: Measured, tolerance: float) -> str:
    told = []
    for each in found.measured[1:]:
        if each.factor is None:
            told.append(f"{each.candidate.name} left out, {each.why}")
            continue
        word = f"{each.candidate.name} {each.factor.value:.2f}× ({each.factor.low:.2f} to {each.factor.high:.2f})"
        told.append(word + ("" if each.agrees(tolerance) else f", loss off by {each.difference:+.1%}"))
    beside = f"beside fp32, {'; '.join(told)}; " if told else ""
    return f"precision {best.candidate.name}: {beside}{found.steps} steps in {found.seconds:.1f} s"
