"""Train what a recipe describes."""

from __future__ import annotations

import json
import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from mlscale.config.derive import derive
from mlscale.config.frozen import with_derived
from mlscale.config.notices import notices
from mlscale.errors import Exit, MLScaleError
from mlscale.launch.garbage import put_off
from mlscale.launch.start import say, start_lines
from mlscale.report import Result, number
from mlscale.runs.files import check_writable
from mlscale.runs.folder import RunFolder
from mlscale.runs.mask import Masker
from mlscale.runs.secrets import protect
from mlscale.runs.snapshot import take

if TYPE_CHECKING:
    from omegaconf import DictConfig

# The same values stand under a name of their own: the epoch's mean loss is train/loss, the peak is peak_memory_bytes.
_TOLD_ONCE = ("train/loss_epoch", "train/peak_memory_gib")


def run(cfg: DictConfig) -> Result:
    """Derive, freeze, launch, record.

    Raises:
        MLScaleError: what the data or the machine lacks, before anything starts; or what ended the run.
    """
    from mlscale.launch.local import launch, warm_up

    warm_up(cfg.trainer.devices)
    masker = Masker.of(cfg)
    with put_off():
        from mlscale.launch.facts import data_facts
        from mlscale.launch.machine import this_machine

        machine = this_machine()
        import_module("mlscale.train.assemble")
    facts = data_facts(cfg)
    derived = derive(cfg, facts, machine)
    folder = freeze(cfg, derived, masker)
    ready = with_derived(cfg, folder.derived)
    say((*start_lines(ready, facts), *notices(ready, machine)), masker)
    try:
        launch(folder.path, derived["world_size"])
    except BaseException as error:
        if isinstance(error, MLScaleError) and error.unbuilt and error.exit == Exit.USER:
            folder.discard()  # a refused config leaves nothing
        else:
            folder.seal(_ending(error), sentence=str(error))
        raise
    result = conclude(ready, folder)
    folder.result("train", result.as_dict())
    folder.seal("done", metrics=result.metrics, sentence=result.sentence)
    return result


def freeze(cfg: DictConfig, derived: dict[str, Any], masker: Masker) -> RunFolder:
    """Make the run folder. Literal secrets go into the environment: no file holds them, and ranks still see them."""
    plain = cfg.copy()
    overrides, sweep = cfg.derived.overrides or [], cfg.derived.sweep_dir
    plain.derived = dict.fromkeys(plain.derived)
    protected, environment = protect(plain)
    os.environ.update(environment)
    check_writable(Path(cfg.runs_dir))  # before anything is said of a run that can't be
    code = take() if cfg.snapshot else None
    say(code.warnings() if code else [], masker)
    return RunFolder.create(
        cfg.runs_dir,
        cfg.name,
        verb="train",
        config_yaml=OmegaConf.to_yaml(OmegaConf.create(protected)),
        derived=derived,
        seed=cfg.seed,
        data_version=derived["data_version"],
        order_version=_order_version(),
        overrides=list(overrides),
        tags=list(cfg.tags),
        notes=cfg.notes,
        metric=cfg.metric,
        mode=cfg.mode,
        code=code,
        sweep=sweep,
        masker=masker,
    )


def conclude(cfg: DictConfig, folder: RunFolder) -> Result:
    """The result, from what rank 0 left in the run folder."""
    fit = json.loads((folder.path / "results/fit.json").read_text())
    metrics: dict[str, Any] = {}
    if fit["best"] is not None:
        metrics[f"best_{cfg.metric}"] = fit["best"][1]
    metrics |= {name: fit["metrics"][name] for name in sorted(fit["metrics"]) if name not in _TOLD_ONCE}
    if fit["samples"] and fit["train_seconds"]:
        metrics["throughput_samples_per_s"] = fit["samples"] / fit["train_seconds"]
    metrics |= {"time_s": fit["seconds"], "steps": fit["steps"], "peak_memory_bytes": fit["peak_memory_bytes"]}
    artifacts, steps = {"run": str(folder.path)}, fit["steps"]
    if fit["best"] is not None:
        artifacts["checkpoint"] = fit["best"][0]
    return Result(
        verb="train",
        ok=True,
        sentence=f"{cfg.name}: {_headline(cfg, metrics, fit['best'])} after {steps:,} step{'s' * (steps != 1)}",
        metrics=metrics,
        artifacts=artifacts,
    )


def _headline(cfg: DictConfig, metrics: dict[str, Any], best_checkpoint: list[Any] | None) -> str:
    """The run's metric: at the best checkpoint, and at the end where that is another."""
    ends = (metrics.get(f"best_{cfg.metric}"), metrics.get(cfg.metric))
    shown = [_shown(cfg.metric, value) for value in ends if value is not None]
    if not shown:
        return f"no {cfg.metric} was logged"
    if len(set(shown)) == 1 or best_checkpoint is None:
        return f"{cfg.metric} {shown[0]}"
    return f"best {cfg.metric} {shown[0]} ({Path(best_checkpoint[0]).name}), {shown[1]} at the end,"


def _shown(name: str, value: float) -> str:
    return f"{value:.2%}" if name.endswith("accuracy") else number(value)


def _ending(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, MLScaleError):
        stopped = (Exit.SAVED, Exit.INTERRUPTED, Exit.TERMINATED)
        return "diverged" if error.exit == Exit.DIVERGED else "interrupted" if error.exit in stopped else "failed"
    return "failed"


def _order_version() -> int:
    from mlscale.data.order import ORDER_VERSION

    return ORDER_VERSION
