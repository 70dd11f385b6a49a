"""Trackers: factories behind the group `logger`. All get the same metric names; only rank 0 writes."""

import contextlib
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from numpy.typing import NDArray
from pytorch_lightning.loggers import Logger
from tqdm import tqdm

from mlscale.export.required_extras import require_extra
from mlscale.runs.checkpoint_files.checkpoint_commit import DISK_FULL_ERRORS
from mlscale.train.loggers.csv_logger import CSV


def csv(save_dir: str) -> Logger:
    """Return the logger that writes ``metrics.csv`` in `save_dir`."""
    return CSV(save_dir)


def tensorboard(save_dir: str) -> Logger:
    """Return the logger that writes event files for TensorBoard in `save_dir`.

    Raises:
        MLScaleError: TensorBoard is not installed.
    """
    # Before the import: the error then names the extra to install.
    require_extra("tensorboard", "tensorboard")
    from mlscale.train.loggers.tensorboard_logger import TensorBoard

    return TensorBoard(save_dir)


def mlflow(
    save_dir: str,
    tracking_uri: str,
    experiment: str = "mlscale",
    name: str = "run",
    tags: Sequence[str] = (),
    notes: str = "",
    artifacts: Sequence[str] = (),
    timeout_s: float = 10.0,
) -> Logger:
    """Return the logger of an MLflow run, whose entries a thread sends. Arguments as in `MLflow`."""
    from mlscale.train.loggers.mlflow_logger import MLflow

    return MLflow(
        save_dir,
        tracking_uri=tracking_uri,
        experiment=experiment,
        name=name,
        tags=tags,
        notes=notes,
        artifacts=artifacts,
        timeout_s=timeout_s,
    )


def wandb(
    save_dir: str,
    project: str = "mlscale",
    entity: str | None = None,
    group: str | None = None,
    name: str | None = None,
    tags: Sequence[str] = (),
    notes: str = "",
    offline: bool | None = None,
    system_metrics: bool = False,
    save_code: bool = False,
    run_id: str | None = None,
) -> Logger:
    """Return the logger of Weights & Biases; offline without an API key or a response. Arguments as in `WandB`."""
    from mlscale.train.loggers.wandb_logger import WandB  # importing wandb takes as long as importing torch

    return WandB(
        save_dir,
        project=project,
        entity=entity,
        group=group,
        name=name,
        tags=tags,
        notes=notes,
        offline=offline,
        system_metrics=system_metrics,
        save_code=save_code,
        run_id=run_id,
    )


def log_image(loggers: Iterable[Any], name: str, pixels: NDArray[Any], step: int) -> None:
    """Show an image in every tracker that keeps images: W&B, TensorBoard, MLflow; the CSV logger keeps a file.

    Args:
        loggers: `trainer.loggers`.
        name: `val/confusion`.
        pixels: uint8, (height, width, 3) or (height, width).
        step: the index of the optimizer step, counted from 0, as metrics have it.
    """
    _show_in_trackers(loggers, "show_image", name, pixels, step)


def log_table(
    loggers: Iterable[Any], name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int
) -> None:
    """Show a table in every tracker that keeps tables, as `log_image`.

    Args:
        columns: their names.
        rows: the cells: numbers and texts.
    """
    _show_in_trackers(loggers, "show_table", name, columns, rows, step)


def _show_in_trackers(loggers: Iterable[Any], how: str, name: str, *content: object) -> None:
    """Call the method `how` of each tracker that has it. On a full disk the content is left out: training continues."""
    for logger in loggers:
        # A third-party logger need not keep media.
        if (show := getattr(logger, how, None)) is not None:
            try:
                show(name, *content)
            except OSError as error:
                if error.errno not in DISK_FULL_ERRORS:
                    raise
                with contextlib.suppress(OSError):  # standard error may be a file on the same disk
                    line = f"warning   disk full: {name} is missing in {logger.name}: {error.strerror}"
                    tqdm.write(line, file=sys.stderr)


def finish_loggers(loggers: Iterable[Logger], *, failed: bool = False) -> None:
    """Close the trackers that outlive a call of the trainer, once fit, evaluation and all later work are done."""
    for logger in loggers:
        if (close := getattr(logger, "finish", None)) is not None:
            close(failed=failed)
