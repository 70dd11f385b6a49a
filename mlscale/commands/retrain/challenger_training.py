"""The challenger of a retraining cycle: the overrides of its training, and the trained and exported model."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from mlscale import commands
from mlscale.assembly.queued_run import is_for_scheduler
from mlscale.assembly.ready import compose_from_overrides
from mlscale.commands.retrain.champion import format_path_list
from mlscale.commands.retrain.cycle_settings import list_approving_targets, list_training_overrides, pass_on_trust
from mlscale.config.targets import has_argument
from mlscale.errors import MLScaleError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.commands.retrain.champion import Champion
    from mlscale.retrain.journal import RetrainingCycle
    from mlscale.retrain.labelled_window import LabelledWindow
    from mlscale.runs.folder import RunFolder

_INT8 = "int8"
# The gate compares the challenger as it is served, by class and on more samples than the held-out window has: there a
# drop of 0.02 is rarely excluded, and in fp32 a challenger of an int8 champion fails the gate by its latency.
_COARSE_BOUNDS = {"max_accuracy_drop": 0.1, "max_relative_drop": 0.1, "min_agreement": 0}
# Settings that shorten a run, as the champion's may have been, with the value that switches each off.
_LIMITS_OFF = {
    "max_steps": "-1", "min_steps": "null", "min_epochs": "null", "max_time": "null", "limit_train_batches": "1.0",
    "limit_val_batches": "1.0", "overfit_batches": "0", "val_check_interval": "null", "check_val_every_n_epoch": "1",
}  # fmt: skip


@dataclass(frozen=True)
class Challenger:
    """The exported challenger.

    Attributes:
        run: its run.
        servable: the exported model; None where the export was refused.
        reason: the reason of that.
    """

    run: RunFolder
    servable: Path | None
    reason: str = ""


def train_challenger(cfg: DictConfig, champion: Champion, window: LabelledWindow, folder: Path) -> RunFolder:
    """Write the window into `folder`, train on it and on the champion's data, and return the run.

    What the champion's data has of relabelled classes contradicts the window and is left out; all of it, where a person
    has decided that it no longer counts.
    """
    from mlscale.data.windows.window_folder import HELD_OUT, TRAIN, write_window_digests, write_window_facts
    from mlscale.runs.folder import RunFolder

    for part in (TRAIN, HELD_OUT):
        champion.data.write_window(folder / part, *window.select_part(is_held_out=part == HELD_OUT))
    write_window_facts(folder, window.select_held_out_facts())
    write_window_digests(folder, window.digests)
    # By the command, as a user would: the challenger's run can be shown, resumed and exported like any other.
    trained = commands.run_command("train", _compose_overrides(cfg, champion, window, folder))
    return RunFolder.open(trained.artifacts["run"])


def export_challenger(cfg: DictConfig, champion: Champion, run: RunFolder) -> Challenger:
    """Export a trained challenger.

    The last checkpoint: to choose the best one would be to choose by the samples that the gate judges by.
    """
    if champion.precision == _INT8:
        # Of the last checkpoint, too; where eight bits are not kept, the challenger is compared as it is.
        commands.run_command(
            "compress", [*_refer_to_run(run, cfg), "compress=int8", *_collect_int8_settings(champion.config)]
        )
    # Asked while it is exported: a challenger that the server does not answer like is not compared at all.
    with _name_own_keys():
        exported = commands.run_command("export", [*_refer_to_run(run, cfg), *_list_approval(cfg)])
    made = Path(exported.artifacts["servable"]) if exported.ok else None
    return Challenger(run, made, "" if exported.ok else exported.sentence)


def check_approving_servers(cfg: DictConfig, run: RunFolder) -> None:
    """Raise an error, before the training, if a server that is to approve the challenger is not installed.

    Args:
        cfg: the settings.
        run: the champion's, of which the challenger's export will differ by its weights alone.

    Raises:
        MLScaleError: it is not (exit code 5), or mlscale can't start one of that target.
    """
    from mlscale.commands.export.chosen_targets import choose_targets

    if approval := _list_approval(cfg):
        with _name_own_keys():
            choose_targets(compose_from_overrides("export", [*_refer_to_run(run, cfg), *approval]))


@contextmanager
def _name_own_keys() -> Iterator[None]:
    """Make errors of an export in this block name the key of retraining, which does not know those of an export."""
    try:
        yield
    except MLScaleError as error:
        raise error.mask_texts(_replace_export_keys) from error


def _replace_export_keys(text: str) -> str:
    without = re.sub(r"^(check=none|target=onnx|compressed=false)\b.*$", "approved=[]", text, flags=re.MULTILINE)
    return without.replace("check=server", "approved").replace("target=", "approved=")


def _list_approval(cfg: DictConfig) -> list[str]:
    targets = list_approving_targets(cfg)
    return [f"target=[{','.join(targets)}]", "check=server"] if targets else []


def find_finished_training(cycle: RetrainingCycle, runs_dir: str) -> RunFolder | None:
    """Return the run that a cycle has trained, if its training was completed before the cycle was killed."""
    return next((run for run in list_training_runs(cycle, runs_dir) if run.status == "done"), None)


def list_training_runs(cycle: RetrainingCycle, runs_dir: str) -> list[RunFolder]:
    """Return the runs that a cycle has begun to train, newest first."""
    from mlscale.runs.find import list_runs

    # By the tag: the cycle may have been killed before it noted the run.
    return [run for run in list_runs(runs_dir) if cycle.id in run.run.get("tags", ())]


def _compose_overrides(cfg: DictConfig, champion: Champion, window: LabelledWindow, folder: Path) -> list[str]:
    """Return the overrides of the training: the champion's config and weights, the window mixed with its data, few
    epochs.
    """
    from mlscale.commands.retrain.champion import RETRAINED

    config = champion.config
    return [
        f"like={champion.run.path}",
        f"init_from={champion.checkpoint}",
        f"runs_dir={cfg.runs_dir}",
        # The cycle waits for its training: a champion that a scheduler trained is retrained here.
        *(["launch=local"] if is_for_scheduler(config) else []),
        *pass_on_trust(cfg),
        *champion.overrides,
        *_mix_window(cfg, champion, window, folder),
        f"trainer.max_epochs={_choose_passes(cfg, champion, window)}",
        *(f"trainer.{key}={value}" for key, value in _LIMITS_OFF.items() if key in config.trainer),
        *_scale_learning_rate(cfg, config),
        *(["compress=none"] if set(config.get("compress") or {}) == {_INT8} else []),  # it would be of the best one
        *(["~callbacks.early_stopping"] if (config.get("callbacks") or {}).get("early_stopping") else []),
        *list_training_overrides(cfg),
        # By the first one the runs of cycles are found, by the second one a killed cycle finds its run.
        f"tags=[{RETRAINED},{folder.name}]",
    ]


def _choose_passes(cfg: DictConfig, champion: Champion, window: LabelledWindow) -> int:
    """Return the epochs over the window: the typed ones, or as many as the model needs."""
    from mlscale.commands.retrain.champion import RETRAINED

    if cfg.passes is not None:
        return int(cfg.passes)
    # A champion that was retrained itself started from what it knew: its losses do not show how fast it learns.
    if RETRAINED in (champion.config.get("tags") or ()):
        return int(champion.config.trainer.max_epochs)
    trained, _ = window.select_part(is_held_out=False)
    batch = int(champion.config.data.get("batch_size") or champion.data.policy.batch_size)
    history = champion.run.path / "logs/metrics.csv"
    rows = champion.data.count_window_rows(trained)
    return choose_passes(history, batch, rows, most=champion.servable.task_type.most_passes)


def _mix_window(cfg: DictConfig, champion: Champion, window: LabelledWindow, folder: Path) -> list[str]:
    """Return the overrides of the data."""
    config, replay = champion.config, cfg.replay if cfg.gate.old else 0
    trained, _ = window.select_part(is_held_out=False)
    # The window is a share of 1 - replay of each epoch, so that every new sample is seen about once.
    samples = max(2, round(champion.data.count_window_rows(trained) / (1 - replay)))
    parts = int(config.trainer.get("devices", 1) or 1) * int(config.trainer.get("accumulate_grad_batches", 1) or 1)
    # At most the champion's batch, at most an epoch, and divisible by devices and accumulated passes.
    largest = int(config.data.get("batch_size") or champion.data.policy.batch_size)
    batch = max(parts, min(largest, samples) // parts * parts)
    relabelled = [str(name) for name in cfg.gate.relabelled]
    return [
        f"data.windows={format_path_list([*champion.data.policy.windows, folder])}",
        f"data.replay={replay:g}",
        f"data.relabelled={format_path_list(relabelled)}",
        # Shares of classes or of weighted samples contradict that of the window.
        *(["data.sampling=shuffle"] if config.data.get("sampling") else []),
        *(["data.weights=null"] if config.data.get("weights") else []),
        f"data.batch_size={batch}",
        f"data.epoch_samples={max(samples, batch)}",
    ]


def _refer_to_run(run: RunFolder, cfg: DictConfig) -> list[str]:
    return [f"ref={run.path}", f"runs_dir={cfg.runs_dir}", "checkpoint=last", *pass_on_trust(cfg)]


def _collect_int8_settings(config: DictConfig) -> list[str]:
    """Return the settings by which the champion's run was compressed to eight bits, if it was in training; the bounds
    of what int8 may lose are coarse.
    """
    node = {**((config.get("compress") or {}).get(_INT8) or {}), **_COARSE_BOUNDS}
    return [f"compress.{_INT8}.{key}={value}" for key, value in node.items() if key != "_target_" and value is not None]


def _scale_learning_rate(cfg: DictConfig, config: DictConfig) -> list[str]:
    if not config.get("optimizer") or not has_argument(config.get("task"), "optimizer"):
        return []
    rate = OmegaConf.select(config, "optimizer.lr")
    # The champion's rate, scaled: its weights are trained already.
    return [f"optimizer.lr={rate * cfg.lr_factor:.6g}"] if isinstance(rate, int | float) else []


FEWEST_PASSES, MOST_PASSES = 20, 80
# Twice what the champion needed for most of what it learned: its challenger has a few hundred samples, which it sees
# between old ones that must not be forgotten. Most of it, as the last tenth takes the longest and depends on chance.
_FACTOR, _LEARNED = 2.0, 0.8
# A model that has seen its own data once or twice learned a window by heart in 20 passes.
_TIMES_OF_CHAMPION = 5


def choose_passes(history: Path, batch_size: int, window_samples: int, *, most: int | None = None) -> int:
    """Return the passes over a window, so that the challenger sees its samples twice as often in total as the champion
    saw samples until it had learned most; 20 at least, also where that is not known, and 80 at most. Not more than five
    times the champion's own epochs.

    Args:
        history: the metrics that the champion's run has logged; it may be absent.
        batch_size: of the champion's run, over all devices and accumulation.
        window_samples: that the challenger is trained on.
        most: passes of this task type, if it has a limit of its own.
    """
    rows = _read_rows(history)
    needed = _FACTOR * _count_learning_steps(rows) * batch_size / max(1, window_samples)
    return min(most or MOST_PASSES, _TIMES_OF_CHAMPION * _count_epochs(rows), max(FEWEST_PASSES, math.ceil(needed)))


def _read_rows(history: Path) -> list[dict[str, str]]:
    try:
        with history.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    # Logged by other loggers alone.
    except (OSError, ValueError):
        return []


def _count_epochs(rows: Sequence[Mapping[str, str]]) -> int:
    """Return the epochs of the run; where they are not known, as many as limit nothing."""
    try:
        return 1 + max(int(row["epoch"]) for row in rows if row.get("epoch"))
    except ValueError:
        return MOST_PASSES


def _count_learning_steps(rows: Sequence[Mapping[str, str]]) -> int:
    """Return the steps after which the validation loss had fallen by most of what it fell; 0 where it is not known."""
    try:
        first = next(float(row["train/loss"]) for row in rows if row.get("train/loss"))
        losses = [(int(row["step"]) + 1, float(row["val/loss"])) for row in rows if row.get("val/loss")]
        best = min(loss for _, loss in losses)
    # Without a validation, or of a task of a user's own that names its losses otherwise.
    except (ValueError, KeyError, StopIteration):
        return 0
    limit = best + (1 - _LEARNED) * max(0.0, first - best)
    return next((step for step, loss in losses if loss <= limit), 0)
