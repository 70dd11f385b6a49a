"""Train what a recipe describes."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from mlscale.config.derive import derive
from mlscale.config.frozen import with_derived
from mlscale.config.notices import notices
from mlscale.errors import Exit, MLScaleError
from mlscale.launch.start import say, start_lines
from mlscale.report import Result
from mlscale.runs.folder import RunFolder
from mlscale.runs.mask import Masker
from mlscale.runs.secrets import protect
from mlscale.runs.snapshot import take

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run(cfg: DictConfig) -> Result:
    """Derive, freeze, launch, record.

    Raises:
        MLScaleError: what the data or the machine lacks, before anything starts; or what ended the run.
    """
    from mlscale.launch.local import launch, warm_up

    warm_up(cfg.trainer.devices)
    from mlscale.launch.facts import data_facts
    from mlscale.launch.machine import this_machine

    masker = Masker.of(cfg)
    machine = this_machine()
    facts = data_facts(cfg)
    derived = derive(cfg, facts, machine)
    folder = freeze(cfg, derived, masker)
    ready = with_derived(cfg, folder.derived)
    say((*start_lines(ready, facts), *notices(ready, machine)), masker)
    try:
        launch(folder.path, derived["world_size"])
    except BaseException as error:
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
    metrics |= {name: value for name, value in sorted(fit["metrics"].items()) if not name.startswith("train/peak")}
    if fit["samples"]:
        metrics["throughput_samples_per_s"] = fit["samples"] / fit["seconds"]
    metrics |= {"time_s": fit["seconds"], "steps": fit["steps"], "peak_memory_bytes": fit["peak_rss_bytes"]}
    artifacts = {"run": str(folder.path)}
    if fit["best"] is not None:
        artifacts["checkpoint"] = fit["best"][0]
    return Result(
        verb="train",
        ok=True,
        sentence=f"{cfg.name}: {_headline(cfg, metrics)} after {fit['steps']:,} steps",
        metrics=metrics,
        artifacts=artifacts,
    )


def _headline(cfg: DictConfig, metrics: dict[str, Any]) -> str:
    value = metrics.get(f"best_{cfg.metric}", metrics.get(cfg.metric))
    if value is None:
        return f"no {cfg.metric} was logged"
    return f"{cfg.metric} {value:.2%}" if cfg.metric.endswith("accuracy") else f"{cfg.metric} {value:.4g}"


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
