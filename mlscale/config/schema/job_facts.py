"""Facts of a job that its config shows before any data is read: the kind of data, the task, and what is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mlscale.config.schema.documented_fields import get_shipped_fields

IMAGES, TABLES, TEXTS = "images", "tables", "texts"
ANY = "any"  # no data is chosen: every kind may be

DATA_KINDS: Mapping[str, str] = {
    "breast_cancer": TABLES, "dali": IMAGES, "diabetes": TABLES, "digits": IMAGES, "digits_scenes": IMAGES,
    "fashion_mnist": IMAGES, "fortunes": TEXTS, "image_table": IMAGES, "imagefolder": IMAGES, "python_docs": TEXTS,
    "python_source": TEXTS, "table": TABLES, "text_files": TEXTS, "text_table": TEXTS, "tfrecord": IMAGES,
    "tokens": TEXTS, "webdataset": IMAGES,
}  # fmt: skip
"""The kind of data by option of the group `data`."""
_LABELLED = ("classification", "multilabel")
MODEL_USES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "gpt": ((TEXTS,), ("language",)),
    "mlp": ((IMAGES, TABLES), _LABELLED),
    "ngrams": ((TEXTS,), ("classification",)),
    "resnet": ((IMAGES,), _LABELLED),
    "resnet18": ((IMAGES,), _LABELLED),
    "tabular": ((TABLES,), _LABELLED),
    "tabular_regression": ((TABLES,), ("regression",)),
    "text_cnn": ((TEXTS,), ("classification",)),
    "timm": ((IMAGES,), _LABELLED),
    "unet": ((IMAGES,), ("segmentation",)),
    "vit": ((IMAGES,), _LABELLED),
}
"""The kinds of data and the tasks that a model is for, by option of the group `model`."""
_MIXES_LABELS = frozenset({"mixup", "cutmix"})  # shares of classes, which only a classification's loss takes
TASK_METRICS: Mapping[str, tuple[str, ...]] = {
    "classification": ("loss", "accuracy"),
    "language": ("loss", "bits_per_byte", "perplexity"),
    "multilabel": ("loss", "map", "exact_match"),
    "regression": ("loss", "mae", "rmse", "r2"),
    "segmentation": ("loss", "miou", "dice", "pixel_accuracy"),
}
"""The metrics that each built-in task logs at validation, without their prefix."""


@dataclass(frozen=True)
class JobFacts:
    """What a config shows of its job.

    Attributes:
        kind: of the data: images, tables or texts; "any" where none is chosen, "" where a class of the user's is.
        task: the built-in task, "" for another.
        target_type_is_free: the data's target may be read as a class and as a number.
        chosen: by group what is chosen: an option, or a class.
    """

    kind: str = ""
    task: str = ""
    target_type_is_free: bool = False
    chosen: Mapping[str, str] = field(default_factory=dict)

    def fits(self, group: str, option: str) -> bool:
        """Return whether an option is for data of this kind and for this task, as far as that is known for certain."""
        if group == "data" and option in DATA_KINDS:
            return self.kind in (ANY, DATA_KINDS[option])
        if group == "augment" and self._is_shipped(group, option):
            return self.kind in (ANY, IMAGES) and (option not in _MIXES_LABELS or self.task in ("", "classification"))
        if group == "model" and option in MODEL_USES:
            kinds, tasks = MODEL_USES[option]
            return self.kind in (ANY, *kinds) and self.task in ("", *tasks)
        if group == "task" and option in TASK_METRICS:
            free = self.target_type_is_free and {option, self.task} <= {"classification", "regression"}
            return option == self.task or self.kind == ANY or free
        return True

    def fits_key(self, path: str) -> bool:
        """Return whether a setting is for this job: `augment.mixup` is for what augment=mixup is for."""
        group, _, name = path.partition(".")
        return self.fits(group, name)

    def describe_misfit(self, group: str, option: str) -> str:
        """Return the reason why an option does not fit."""
        data = self.chosen.get("data", "the data")
        of = f", which has {self.kind}" if self.kind in (IMAGES, TABLES, TEXTS) else ""
        task = f" and task={self.task}" if self.task else ""
        if group == "augment":
            kinds = "images and classes" if option in _MIXES_LABELS else "images"
            return f"{group}={option} is for {kinds}; this run has {data}{of}{task}"
        if group == "data":
            return f"{group}={option} has it; this run has {data}{of}"
        if group == "model":
            return f"{group}={option} has it; this run has {self.chosen.get(group, 'another model')}"
        return f"it is {group}={option}; this run has {data}{of}{task}, and its samples have no other labels"

    @staticmethod
    def _is_shipped(group: str, option: str) -> bool:
        """Return whether an option is shipped, and builds something."""
        return any(item.name == option and item.target for item in get_shipped_fields().list_group_options(group))


def collect_facts(tree: Mapping[str, object]) -> JobFacts:
    """Return the facts of a composed config."""
    chosen = {}
    for group, node in tree.items():
        target = node.get("_target_") if isinstance(node, dict) else None
        if isinstance(target, str):
            chosen[group] = _find_option(group, target) or target
    node = tree.get("data")
    return create_facts(chosen, target_type_is_free=isinstance(node, dict) and "target_type" in node)


def create_facts(chosen: Mapping[str, str], *, target_type_is_free: bool = False) -> JobFacts:
    """Return the facts of what is chosen by group: an option, or the path of a class."""
    data, task = chosen.get("data", ""), chosen.get("task", "")
    return JobFacts(
        kind=DATA_KINDS.get(data, "") if data else ANY,
        task=task if task in TASK_METRICS else "",
        target_type_is_free=target_type_is_free,
        chosen={group: f"{group}={name}" if "." not in name else name for group, name in chosen.items()},
    )


def _find_option(group: str, target: str) -> str:
    """Return the first shipped option of a group that builds this class; "" where none does."""
    options = get_shipped_fields().list_group_options(group)
    return next((item.name for item in options if item.target == target), "")
