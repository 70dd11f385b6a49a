"""A run's data and task as they were trained, for the commands that start from its checkpoint."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, NamedTuple

from mlscale.assembly.trained_model.evaluation_data import check_tokenizer
from mlscale.config.composition.frozen import add_derived
from mlscale.config.derive import LISTS_OF_THE_DATA, OF_THE_DATA, derive_values
from mlscale.errors import MLScaleError
from mlscale.runs.checkpoint_files.checkpoint_digest import read_checkpoint_metadata
from mlscale.runs.checkpoint_files.checkpoint_record import SUFFIX
from mlscale.runs.checkpoint_files.checkpoint_search import find_best_checkpoint_file, find_nearest_checkpoint
from mlscale.runs.checkpoint_files.sharded_folder import is_checkpoint
from mlscale.runs.recover import is_run_folder, read_run_document, warn_once
from mlscale.runs.remote_checkpoints.run_store import restore_missing

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from omegaconf import DictConfig

    from mlscale.assembly.run_data import RunData
    from mlscale.runs.folder import RunFolder


class Home(NamedTuple):
    """The folder, of a run or of a version, that describes how a model was made.

    Attributes:
        path: of the folder.
        derived: the values of its derived.yaml.
    """

    path: Path
    derived: dict[str, Any]


def restore_training_config(cfg: DictConfig, folder: RunFolder | Home, run_data: RunData) -> DictConfig:
    """Return the run's config on one device, with the facts of its data.

    Args:
        run_data: whose facts they are, and which `rebuild_data_and_task` then returns.

    Raises:
        MLScaleError: the data is not what the run was trained on; its mean and deviation go into the model.
    """
    from mlscale.launch.local_devices import detect_local_devices

    cfg = cfg.copy()
    cfg.trainer.devices, cfg.trainer.accumulate_grad_batches = 1, 1
    # Nothing of this run may be logged or saved again.
    cfg.logger, cfg.callbacks = {}, {}
    facts, trained = run_data.collect_facts(cfg), folder.derived
    check_tokenizer(facts, trained)
    # Each fact with its name in derived.yaml: the digest of the data, and what decoding depends on.
    names = {
        "version": "data_version",
        "decode_version": "decode_version",
        "height": "height",
        "width": "width",
    }
    for name, derived in names.items():
        if facts is not None and trained.get(derived) not in (None, facts[name]):
            raise MLScaleError(
                "the data is not what the run was trained on",
                where="data",
                why=f"its {name} is {facts[name]}, the run's {trained[derived]}; a model keeps its normalisation",
                fix="leave data.* out, and let the data be as it was",
            )
    values = derive_values(cfg, apply_training_facts(facts, trained), detect_local_devices())
    return add_derived(cfg, {**values, "run_dir": str(folder.path), "name": folder.path.name})


def rebuild_data_and_task(cfg: DictConfig, checkpoint: Path, stage: str, run_data: RunData) -> tuple[Any, Any]:
    """Return the data module, set up for `stage`, and the task with the checkpoint's weights, in this process.

    Args:
        cfg: of `restore_training_config`.

    Raises:
        MLScaleError: the config has no data, or the weights do not fit.
    """
    import torch

    from mlscale.assembly.run_parts import build_task
    from mlscale.assembly.trained_model.own_loaders import OwnLoaders, has_own_loaders
    from mlscale.train.lightning.quiet import suppress_library_messages

    suppress_library_messages()
    torch.set_num_threads(cfg.derived.threads)
    data, task = run_data.build_module(cfg), build_task(cfg)
    if data is None and has_own_loaders(task):
        data = OwnLoaders(task)
    if data is None:
        raise MLScaleError(
            "no data is configured",
            where="data",
            why="a model is compared on validation samples, and its module has no val_dataloader",
            fix="data._target_=<your LightningDataModule>\n"
            "data=digits, or another option of data: mlscale train --help lists them",
        )
    # First the data: a task with loaders of its own makes its layers meanwhile, and `setup` of others may need it.
    data.prepare_data()
    data.setup(stage)
    load_weights(task, checkpoint, data)
    return data, task


def apply_training_facts(facts: dict[str, Any] | None, trained: dict[str, Any]) -> dict[str, Any] | None:
    """Return the facts to build from: shape, classes and normalisation of the model, and the horizon of its schedule,
    are the run's, whatever data it is measured on.

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
            fix="leave data and data.* out, for the data of the run; or convert the images",
        )
    # `train_samples` belongs to them because a schedule's horizon is derived from it.
    known = (*OF_THE_DATA, *LISTS_OF_THE_DATA, "train_samples")
    return facts | {name: trained[name] for name in known if trained.get(name) is not None}


def find_checkpoint_file(run: Path, name: str, metric: str | None, mode: str | None) -> Path:
    """Return the file that `best`, the name of a checkpoint of the run, or a path means. A checkpoint of another run is
    reported.

    Raises:
        MLScaleError: there is none.
    """
    folder = run / "checkpoints"
    restore_missing(run, name)
    path = Path(name) if "/" in name or name.endswith(SUFFIX) else folder / f"{name}{SUFFIX}"
    # `folder / name` last: a name with its suffix, which is not a path from the working folder.
    for candidate in (find_best_checkpoint_file(folder, metric, mode) if name == "best" else None, path, folder / name):
        if candidate and is_checkpoint(candidate):
            _report_foreign(candidate, run)
            return candidate
    existing = sorted(entry.name for entry in (run / "checkpoints").glob("*.ckpt"))
    names = [entry.removesuffix(SUFFIX) for entry in existing]
    raise MLScaleError(
        f"no checkpoint '{name}'",
        where=f"checkpoint={name}: {path}",
        why=f"the run has: {', '.join(existing) or 'none'}",
        fix=f"checkpoint={find_nearest_checkpoint(name.removesuffix(SUFFIX), names) or names[0]}"
        if names
        else f"mlscale runs resume {run.name}, if it was cut short; or train with callbacks=default, which keeps some",
    )


def _report_foreign(checkpoint: Path, run: Path) -> None:
    """Print a warning if a checkpoint names another run than the one whose model it should be."""
    record = read_checkpoint_metadata(checkpoint).record
    if record is None or not is_run_folder(run):
        return
    document = read_run_document(run)
    if why := record.explain_mismatch(str(document["id"]), str(document["config_hash"])):
        warn_once(f"{checkpoint} is not a checkpoint of {run.name}: {why}")


_SAVED_CHECKPOINT = "checkpoint=best\ncheckpoint=last, one that a run has saved"


def load_weights(task: pl.LightningModule, path: Path, data: pl.LightningDataModule | None = None) -> None:
    """Load a checkpoint's weights, and of the rest what a user's `on_load_checkpoint` takes.

    Args:
        task: its layers may be made in its hooks.
        path: the checkpoint.
        data: set up, for these hooks; None where there is none.

    Raises:
        MLScaleError: it has no weights, or those of another model.
    """
    from mlscale.assembly.hook_layers import make_hook_layers
    from mlscale.train.checkpoint.weights_only_load import load_checkpoint_file

    # A file of a run's own folder, without a valid one next to it: the run has no other checkpoint to name.
    is_saved = is_run_folder(path.absolute().parent.parent)
    otherwise = "mlscale runs ls, for the model of another run" if is_saved else _SAVED_CHECKPOINT
    content = load_checkpoint_file(path, otherwise=otherwise)
    if "state_dict" not in content:
        raise MLScaleError(
            "the checkpoint holds no weights",
            where=str(path),
            why="it has no state_dict",
            fix=_SAVED_CHECKPOINT,
        )
    make_hook_layers(task, content["state_dict"], data)
    if not type(task).on_load_checkpoint.__module__.startswith(("mlscale.", "pytorch_lightning.")):
        task.on_load_checkpoint(content)  # in Lightning's order: before the weights
    try:
        task.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        raise MLScaleError(
            "the checkpoint's weights do not fit the model",
            where=str(path),
            why=_describe_first_difference(error),
            fix="leave model and model.* out: the model that was trained has its own",
        ) from error


def _describe_first_difference(error: RuntimeError) -> str:
    """Return the first kind of difference in torch's message, which then lists every tensor."""
    # The first line is torch's heading ("Error(s) in loading state_dict for …"), the second the first difference.
    lines = str(error).splitlines()
    return shorten((lines[1:] or lines)[0].strip(), 200, placeholder=" …")
