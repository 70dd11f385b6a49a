"""The owners of keys: arguments that each group's code supplies, and keys that another group owns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

BUILDS_ONE = frozenset(
    {"data", "augment", "model", "task", "optimizer", "scheduler", "strategy", "registry", "trainer"}
)
"""Groups whose node is one object, so it has a `_target_` or is empty."""
BUILDS_SEVERAL = frozenset({"callbacks", "logger", "compress", "target"})
"""Groups whose node holds several, by name."""
GLOBAL = frozenset({"base", "recipe", "tuned", "debug", "sweep", "command", "hydra"})
"""Groups that write at the top: no node has their name."""
CHECK = "_check_"
"""`_check_: false` in a node: its target and its keys are not checked before the object is built."""
NODE_KEYS = frozenset({"_target_", "_partial_", "_args_", "_recursive_", "_convert_", CHECK})
"""Keys of a node that are not arguments of its target: Hydra's, and one of mlscale."""
# Lightning's lr_scheduler dictionary, for a scheduler that doesn't step by optimizer steps.
SCHEDULER_KEYS = frozenset({"scheduler", "interval", "frequency", "monitor", "strict", "name", "reduce_on_plateau"})

SUPPLIED: Mapping[str, frozenset[str]] = {
    "data": frozenset({"augment"}),
    "task": frozenset({"model", "optimizer", "scheduler"}),
    "optimizer": frozenset({"params", "optimizer"}),
    "scheduler": frozenset({"params", "optimizer"}),
    "strategy": frozenset({"world_size"}),
    "trainer": frozenset(
        {"precision", "strategy", "logger", "callbacks", "default_root_dir", "num_nodes", "enable_checkpointing"}
    ),
}
"""Arguments that the code gives when it builds a group's object."""


FORMER = frozenset({
    "precision.compare", "precision.probe_seconds", "precision.tolerance", "callbacks.checkpoint.every",
    "callbacks.checkpoint.mtbf_hours",
})  # fmt: skip
"""Keys in the configs of earlier runs, which have no effect: their runs resume, and are evaluated."""
FORMER_VALUES = {"data.executor": "auto"}
"""Values of those configs that mean the default."""


@dataclass(frozen=True)
class KeyOwner:
    """Why users do not set an argument, and the key or group that has its value, if any."""

    why: str
    meaning: str = ""


def _create_group_owner(name: str) -> KeyOwner:
    return KeyOwner(f"the group '{name}' owns it", name)


OWNED: Mapping[str, KeyOwner] = {
    "data.augment": _create_group_owner("augment"),
    "task.model": _create_group_owner("model"),
    "task.optimizer": _create_group_owner("optimizer"),
    "task.scheduler": _create_group_owner("scheduler"),
    "optimizer.params": KeyOwner("the task gives its own parameters"),
    "scheduler.optimizer": KeyOwner("the task gives its own optimizer", "optimizer"),
    "strategy.world_size": KeyOwner("it is the number of processes", "trainer.devices"),
    "trainer.precision": _create_group_owner("precision"),
    "trainer.strategy": _create_group_owner("strategy"),
    "trainer.logger": _create_group_owner("logger"),
    "trainer.callbacks": _create_group_owner("callbacks"),
    "trainer.default_root_dir": KeyOwner("everything of a run is in its run folder", "runs_dir"),
    "trainer.enable_checkpointing": KeyOwner("the group 'callbacks' has what writes checkpoints"),
    "trainer.barebones": KeyOwner("Lightning's barebones mode excludes the callbacks and loggers of a run"),
    "trainer.enable_progress_bar": KeyOwner("the progress bar is callbacks.progress, and is on by default"),
    # Lightning takes them, and they would do nothing.
    "trainer.limit_test_batches": KeyOwner("training tests nothing; mlscale evaluate takes all samples"),
    "trainer.limit_predict_batches": KeyOwner("training predicts nothing; mlscale predict takes a folder"),
    "trainer.model_registry": KeyOwner("the group 'registry' keeps versions of models"),
    "trainer.num_nodes": KeyOwner(
        "a launcher sets the number of machines: torchrun --nnodes, srun --nodes, or launch=slurm", "launch.nodes"
    ),
}
"""Arguments that exist, but are set by another key."""


def is_owned(path: str, target: object, value: object) -> bool:
    """Return whether another key owns an argument of `target`: of a third-party task, `model` may be a node."""
    is_node = isinstance(value, dict) and "_target_" in value
    return path in OWNED and not (path == "task.model" and is_node and not str(target).startswith("mlscale."))


KEEP_THEIR_DEFAULTS: Mapping[str, frozenset[str]] = {
    "data": frozenset({
        "root", "image_size", "workers", "sampling", "weights", "epoch_samples", "last", "on_bad_sample", "train",
        "val", "test", "image_key", "label_key", "label_field", "labels", "classes", "allow", "index", "mix",
        "val_fraction",
    }),
    "task": frozenset({"label_smoothing", "class_weights"}),
    "strategy": frozenset({"timeout"}),  # Lightning's is a timedelta
    "augment": frozenset({
        "area", "ratio", "shift", "rotate", "scale", "flip", "mixup", "cutmix", "block", "crop", "device",
    }),
}  # fmt: skip
"""Settings of the built-in data, augmentations, tasks and strategies for which a class that is typed over their
`_target_` keeps its own defaults, if it has some: its `root`, `workers` or `scale` mean something else.
"""

NAMES_ITS_OPTION: Mapping[str, tuple[str, str]] = {"launch": ("scheduler", "local")}
"""The key by which a group that builds nothing names its option, and the option that lacks it."""

PASSED_ON: Mapping[str, tuple[str, ...]] = {"timm.create_model": ("drop_rate", "drop_path_rate")}
"""Arguments that a function passes on to what it builds, and that its own signature does not name."""

FACTS: Mapping[str, str] = {
    "num_classes": "num_classes",
    "n_classes": "num_classes",
    "in_channels": "channels",
    "vocab_size": "vocab_size",
}
"""Required arguments of models that are facts of the data, and the derived value that has each."""

DERIVED_FROM: Mapping[str, str] = {
    "run_dir": "runs_dir", "name": "name", "world_size": "trainer.devices", "nodes": "trainer.devices",
    "per_device_batch": "data.batch_size",
    "steps_per_epoch": "data.batch_size", "total_steps": "trainer.max_epochs", "accelerator": "trainer.accelerator",
}  # fmt: skip
"""The key that decides a derived value; the other values come from the data and the machine."""
