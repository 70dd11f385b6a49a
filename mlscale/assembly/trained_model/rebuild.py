"""A run's data and task as they were trained, for the commands that start from its checkpoint.

Other data than a model was trained on: it is refused unless its samples are encoded as in training.

The data of a LightningModule that has its loaders itself, as a data module.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, NamedTuple

import pytorch_lightning as pl
from pytorch_lightning.utilities.model_helpers import is_overridden

from mlscale.assembly.hook_layers import attach_trainer
from mlscale.config.composition import frozen
from mlscale.config.composition.frozen import add_derived
from mlscale.config.derive import LISTS_OF_THE_DATA, OF_THE_DATA, derive_values
from mlscale.config.targets import import_target
from mlscale.errors import MLScaleError
from mlscale.runs.checkpoint_files.checkpoint_digest import read_checkpoint_metadata
from mlscale.runs.checkpoint_files.checkpoint_record import SUFFIX
from mlscale.runs.checkpoint_files.checkpoint_search import find_best_checkpoint_file, find_nearest_checkpoint
from mlscale.runs.checkpoint_files.sharded_folder import is_checkpoint
from mlscale.runs.recover import is_run_folder, read_run_document, warn_once
from mlscale.runs.remote_checkpoints.run_store import restore_missing

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from pytorch_lightning import LightningDataModule

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


_MOST_NAMES = 8


def check_encoded_alike(
    cfg: DictConfig, home: Path, facts: Mapping[str, Any] | None, trained: Mapping[str, Any]
) -> None:
    """Check that classes have the numbers that the model knows them by, and columns of tables their encoding.

    Args:
        cfg: of the command, its data among it.
        home: the folder that describes how the model was made.
        facts: of the data.
        trained: the facts of the model's training data, from derived.yaml.

    Raises:
        MLScaleError: they do not.
    """
    if facts is None:
        return
    check_tokenizer(facts, trained)
    _check_classes(facts, trained)
    if facts.get("features"):
        _check_columns(cfg, home, facts, trained)


def check_tokenizer(facts: Mapping[str, Any] | None, trained: Mapping[str, Any]) -> None:
    """Check that texts are read by the tokenizer that the model knows: the ids of another one are other words.

    Raises:
        MLScaleError: they are not.
    """
    given, known = (facts or {}).get("tokenizer"), trained.get("tokenizer")
    if facts is not None and facts.get("vocab_size") and given != known:
        raise MLScaleError(
            "the tokenizer of the data is not the one that the model was trained with",
            where="data.tokenizer",
            why=f"its digest is {given or 'none, as tokens are bytes'}; "
            f"the model's is {known or 'none, as tokens are bytes'}",
            fix="leave data.tokenizer out, and the file as it was",
        )


def normalise_as_trained(data: LightningDataModule | None, cfg: DictConfig) -> None:
    """Let images be normalised as the model's training images were; other data modules normalise on their own."""
    from mlscale.data.images.image_modules import ImageData

    if isinstance(data, ImageData) and cfg.derived.get("mean") and cfg.derived.get("std"):
        data.normalise_by(cfg.derived.mean, cfg.derived.std)


def _check_classes(facts: Mapping[str, Any], trained: Mapping[str, Any]) -> None:
    """Check that the classes of the data are the model's, or the first of them; classes without names go by their
    number.
    """
    count, known = facts.get("num_classes"), trained.get("num_classes")
    if not count or not known:
        return
    # As texts: YAML may have read the name of a class as a number.
    data_classes, model_classes = (list(map(str, source.get("class_names") or [])) for source in (facts, trained))
    if count <= known and (not data_classes or not model_classes or data_classes == model_classes[:count]):
        return
    raise MLScaleError(
        "this data has other classes than the model",
        where="data",
        why=f"its classes are {_format_class_names(data_classes, count)}; "
        f"the model's are {_format_class_names(model_classes, known)}",
        fix="leave data and data.* out, for the data of the run; or choose data whose training split has its classes",
    )


def _format_class_names(names: list[str], count: int) -> str:
    text = ", ".join(names[:_MOST_NAMES]) or f"{count} numbers"
    return f"{text}, …" if len(names) > _MOST_NAMES else text


def _check_columns(cfg: DictConfig, home: Path, facts: Mapping[str, Any], trained: Mapping[str, Any]) -> None:
    """Check that the training table is the model's: numbers are scaled, and categories numbered, by that table."""
    # The encoding is computed from the training table, so only the same table gives the same one.
    before: Any = frozen.load_composed(home).get("data")
    same = before and import_target(before) is import_target(cfg.data) and before.get("train") == cfg.data.get("train")
    if not same or trained.get("train_samples") not in (None, facts["train_samples"]):
        raise MLScaleError(
            "the model's columns would be encoded by another training table",
            where="data.train",
            why="it determines how numbers are scaled and categories numbered",
            fix="split=test data.test=<a table>, and data.train and data.val as the run has them",
        )


class OwnLoaders(pl.LightningDataModule):
    """A data module that gives the loaders of a task.

    Args:
        task: a LightningModule with a `val_dataloader`.
    """

    def __init__(self, task: pl.LightningModule) -> None:
        super().__init__()
        self._task = task

    def prepare_data(self) -> None:
        """Let the task prepare its data."""
        with attach_trainer(self._task):
            self._task.prepare_data()

    def setup(self, stage: str) -> None:
        """Let the task set itself up."""
        with attach_trainer(self._task):
            self._task.setup(stage)

    def train_dataloader(self) -> Any:
        """Return the task's training loader."""
        with attach_trainer(self._task):
            return self._task.train_dataloader()

    def val_dataloader(self) -> Any:
        """Return the task's validation loader."""
        with attach_trainer(self._task):
            return self._task.val_dataloader()


def has_own_loaders(task: pl.LightningModule) -> bool:
    """Return whether a task has a validation loader of its own."""
    return is_overridden("val_dataloader", task)
