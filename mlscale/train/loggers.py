"""Trackers: factories behind the group `logger`. All get the same metric names; only rank 0 writes."""

from collections.abc import Iterable, Sequence
from importlib.util import find_spec

from pytorch_lightning.loggers import Logger

from mlscale.errors import Exit, MLScaleError
from mlscale.train.csv_logger import CSV


def csv(save_dir: str) -> Logger:
    """``metrics.csv`` in `save_dir`."""
    return CSV(save_dir)


def tensorboard(save_dir: str) -> Logger:
    """Event files for TensorBoard in `save_dir`.

    Raises:
        MLScaleError: TensorBoard is not installed.
    """
    if find_spec("tensorboard") is None:
        raise MLScaleError(
            "logger=tensorboard needs TensorBoard, which is not installed",
            where="logger",
            fix="pip install 'mlscale[tensorboard]', or logger=csv",
            exit=Exit.ENVIRONMENT,
        )
    from pytorch_lightning.loggers import TensorBoardLogger

    return TensorBoardLogger(save_dir, name="", version="", default_hp_metric=False)


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
) -> Logger:
    """Weights & Biases; offline where there is no API key or no answer. Arguments as in `WandB`."""
    from mlscale.train.wandb_logger import WandB  # importing wandb takes as long as importing torch

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
    )


def finish(loggers: Iterable[Logger], *, failed: bool = False) -> None:
    """Close the trackers that outlive a call of the trainer, once fit, evaluation and what follows are done."""
    for logger in loggers:
        if (close := getattr(logger, "finish", None)) is not None:
            close(failed=failed)
