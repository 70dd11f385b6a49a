"""Measure a run's checkpoint on its validation or test data."""

from __future__ import annotations

import time
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from mlscale.config.derive import OF_THE_DATA, derive
from mlscale.config.frozen import with_derived
from mlscale.errors import MLScaleError
from mlscale.launch.start import say
from mlscale.report import Result, keep
from mlscale.runs.checkpoints import SUFFIX, best
from mlscale.runs.find import find
from mlscale.runs.mask import Masker, masked_output

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from omegaconf import DictConfig


def run(cfg: DictConfig) -> Result:
    """Build the run's data and task, load the checkpoint's weights, and validate or test once, in this process.

    Raises:
        MLScaleError: no such run or checkpoint; weights that do not fit the model.
    """
    from mlscale.launch.facts import data_facts
    from mlscale.launch.machine import this_machine

    folder = find(cfg.run, cfg.runs_dir)
    masker = Masker.of(cfg)
    path = checkpoint_path(folder.path, _chosen(cfg, folder.path, masker), cfg.metric, cfg.mode)
    cfg = cfg.copy()
    cfg.trainer.devices, cfg.trainer.accumulate_grad_batches = 1, 1
    cfg.logger, cfg.callbacks = {}, {}
    derived = derive(cfg, as_trained(data_facts(cfg), folder.derived), this_machine())
    ready = with_derived(cfg, {**derived, "run_dir": str(folder.path), "name": folder.path.name})
    trained_on = folder.derived.get("world_size") or 1
    devices = "one device" + (f", of the {trained_on} it was trained on" if trained_on > 1 else "")
    say([f"evaluate  {folder.path.name}: {path.name} on {cfg.split}, {derived['accelerator']} × 1 ({devices})"], masker)
    with masked_output(masker):
        start = time.perf_counter()
        metrics = measure(ready, path, cfg.split)
        seconds = time.perf_counter() - start
    headline = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items() if not name.startswith("data/"))
    result = Result(
        verb="evaluate",
        ok=True,
        sentence=f"{path.name} of {folder.path.name}: {headline}",
        metrics={**metrics, "time_s": seconds},
        artifacts={"run": str(folder.path), "checkpoint": str(path)},
    )
    return keep(result, folder)


def _chosen(cfg: DictConfig, run: Path, masker: Masker) -> str:
    """The checkpoint that was typed; without one the best, and the last of a run that picked none."""
    typed = any(word.lstrip("+").startswith("checkpoint=") for word in cfg.derived.overrides or [])
    picked = best(run / "checkpoints", cfg.metric, cfg.mode)
    if typed or cfg.checkpoint != "best" or picked or not (run / "checkpoints/last.ckpt").is_file():
        return str(cfg.checkpoint)
    say(["evaluate  the run has no best checkpoint (nothing was validated): the last one is measured"], masker)
    return "last"


def as_trained(facts: dict[str, Any] | None, trained: dict[str, Any]) -> dict[str, Any] | None:
    """The facts to build from: the model's shape and the schedule's horizon are the run's, whatever it is measured on.

    Raises:
        MLScaleError: the data has other channels than the model takes.
    """
    if facts is None:
        return None
    if trained.get("channels") not in (None, facts["channels"]):
        raise MLScaleError(
            f"the model takes {trained['channels']} channel(s), this data has {facts['channels']}",
            where="data",
            why="a model is measured on images like those it was trained on",
            fix="choose other data, or convert the images",
        )
    known = (*OF_THE_DATA, "train_samples")
    return facts | {name: trained[name] for name in known if trained.get(name) is not None}


def checkpoint_path(run: Path, name: str, metric: str, mode: str) -> Path:
    """The file that `best`, the name of one of the run's checkpoints, or a path means.

    Raises:
        MLScaleError: there is none.
    """
    folder = run / "checkpoints"
    path = Path(name) if "/" in name or name.endswith(SUFFIX) else folder / f"{name}{SUFFIX}"
    for found in (best(folder, metric, mode) if name == "best" else None, path, folder / name):
        if found and found.is_file():
            return found
    there = sorted(entry.name for entry in (run / "checkpoints").glob("*.ckpt"))
    raise MLScaleError(
        f"no checkpoint '{name}'",
        where=f"checkpoint={name}: {path}",
        why=f"the run has: {', '.join(there) or 'none'}",
        fix=f"checkpoint={there[0].removesuffix('.ckpt')}"
        if there
        else "train with callbacks=default, which keeps some",
    )


def measure(cfg: DictConfig, checkpoint: Path, split: str) -> dict[str, float]:
    """The metrics of one pass over `split`."""
    from mlscale.train.assemble import assemble, measured

    parts = assemble(cfg)
    load_weights(parts.task, checkpoint)
    passes: Any = parts.trainer.validate if split == "val" else parts.trainer.test
    passes(parts.task, datamodule=parts.data, verbose=False)
    return measured(parts.trainer)


def load_weights(task: pl.LightningModule, path: Path) -> None:
    """Load a checkpoint's weights, and nothing else of it."""
    from mlscale.train.checkpoint_io import load

    content = load(path)
    if "state_dict" not in content:
        raise MLScaleError("the checkpoint holds no weights", where=str(path), why="it has no state_dict")
    try:
        task.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        raise MLScaleError(
            "the checkpoint's weights do not fit the model",
            where=str(path),
            why=_first_difference(error),
            fix="evaluate with the model that was trained: leave model.* as the run has it",
        ) from error


def _first_difference(error: RuntimeError) -> str:
    """What torch says of the first kind of difference; it goes on to name every tensor."""
    lines = str(error).splitlines()
    return shorten((lines[1:] or lines)[0].strip(), 200, placeholder=" …")
