"""Settings of an evaluation that a servable without its run states itself: the recipe of its task, the kind of data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlscale.config.composition.argv import build_request
from mlscale.config.composition.request import Request
from mlscale.config.names.suggest import format_hydra_value, format_override
from mlscale.contracts.servable_yaml import parse_yaml

_DOCUMENT = "servable.yaml"
_TABLE, _TEXT, _DOCUMENTS, _IMAGE = "table", "text", "document", "image"
_RECIPES = {
    ("classification", _TABLE): "tabular",
    ("regression", _TABLE): "regression",
    ("classification", _TEXT): "text",
    ("language", _DOCUMENTS): "gpt",
    ("classification", _IMAGE): "resnet",
    ("multilabel", _IMAGE): "multilabel",
    ("segmentation", _IMAGE): "segmentation",
}
_LABELS = {"multilabel": "several", "segmentation": "mask"}
_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class ServableTask:
    """What a servable states of its task.

    Attributes:
        task_type: its name.
        kind: of its encoder.
        targets: the columns that it predicts, of a regression.
        image_size: the side of its images; None of others.
    """

    task_type: str
    kind: str
    targets: tuple[str, ...] = ()
    image_size: int | None = None

    @classmethod
    def parse_document(cls, document: Mapping[str, Any]) -> ServableTask:
        """Return the task of a `servable.yaml` of any format: the first one has images and classes alone."""
        kind = str(document["encoder"]["kind"]) if "encoder" in document else _IMAGE
        sides = [size for port in document.get("inputs", ()) for size in port["shape"][2:]]
        return cls(
            str(document.get("task_type", "classification")),
            kind,
            tuple(str(target["name"]) for target in document.get("targets") or ()),
            int(sides[0]) if kind == _IMAGE and sides else None,
        )

    @property
    def recipe(self) -> str | None:
        return _RECIPES.get((self.task_type, self.kind))

    def suggest_command(self, ref: str) -> str:
        """Return the command that evaluates it on data of the user's, with a placeholder for each name."""
        known = list(self.targets) if len(self.targets) > 1 else next(iter(self.targets), None)
        target = format_override("data.target", known) if known else "data.target=<column>"
        data = {
            _TABLE: f"data.test=<test.csv> {target}",
            _TEXT: "data.test=<test.csv> data.text=<column> data.label=<column>",
            _DOCUMENTS: "data.val=<file.txt>",
            _IMAGE: "data.root=<folder of images by class>",
        }
        if self.task_type in _LABELS:
            return f"mlscale evaluate {ref} data.val=<folder of shards>"
        return f"mlscale evaluate {ref} {data.get(self.kind, 'data=<option> …')}"


def read_servable_task(folder: Path) -> ServableTask | None:
    """Return what a servable states of its task; None if its document can't be read, which loading it reports."""
    import yaml

    try:
        text = (folder / _DOCUMENT).read_text(encoding="utf-8")
        return ServableTask.parse_document(parse_yaml(text))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return None


def choose_typed_split(request: Request) -> Request:
    """Return the request with split=test where `data.test` is the only data that is typed."""
    if request.multirun or not _names_test_data(request.values):
        return request
    return _add_words(request, ["split=test"])


def add_servable_settings(request: Request, folder: Path) -> Request:
    """Return the request with the recipe and the data option of a servable whose run is not here.

    What is typed wins. Training data is needed by data modules alone, and a servable encodes samples itself: where only
    `data.val` or `data.test` is typed, it takes that place.
    """
    task = read_servable_task(folder)
    if task is None or task.recipe is None or request.multirun:
        return request
    typed = request.values
    words: list[str] = []
    if not {"recipe", "task"} & {key.lstrip("+") for key in typed}:
        words.append(f"+recipe={task.recipe}")
    given = {split: typed[f"data.{split}"] for split in _SPLITS if f"data.{split}" in typed}
    settings = _choose_data(task, given)
    # Typed or not: the option that the servable would choose needs its other settings, too.
    if typed.get("data", settings["data"]) == settings["data"] and (given or "data.root" in typed):
        words += [f"{key}={value}" for key, value in settings.items() if key not in typed]
    if _names_test_data(typed):
        words.append("split=test")
    return _add_words(request, words)


def _add_words(request: Request, words: list[str]) -> Request:
    """Return the request with words before those that are typed, which win; they are not typed themselves."""
    return replace(request, overrides=build_request(request.command, [*words, *request.typed], request.roots).overrides)


def _names_test_data(typed: Mapping[str, str]) -> bool:
    # The validation data of training would be measured in its place, and its metrics read as those of the new data.
    return "data.test" in typed and not {"split", "data.train", "data.val"} & set(typed)


def _choose_data(task: ServableTask, given: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of the data that a servable takes."""
    settings = {"data.last": "pad"}  # a file may have fewer samples than a training batch
    if given:
        other = next(iter(given.values()))
        settings |= {"data.train": given.get("train", other), "data.val": given.get("val", other)}
        if "train" in given and "val" not in given:
            del settings["data.val"]  # a part of it is held out, as in training
    if task.kind == _IMAGE:
        settings["data"] = "webdataset" if given else "imagefolder"
        settings |= {"data.labels": _LABELS[task.task_type]} if task.task_type in _LABELS else {}
        settings |= {"data.image_size": str(task.image_size)} if task.image_size else {}
        return settings
    settings["data"] = {_TABLE: "table", _TEXT: "text_table", _DOCUMENTS: "text_files"}[task.kind]
    if task.targets:
        settings["data.target"] = format_hydra_value(list(task.targets) if len(task.targets) > 1 else task.targets[0])
    return settings
