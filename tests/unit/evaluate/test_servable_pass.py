"""A servable measured on raw samples has the rows of the trained model, whatever the type of its task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mlscale.data import DigitsScenes, TableFiles, TextFiles, TextTable
from mlscale.errors import MLScaleError
from mlscale.evaluate.sample_collector import EvaluatedSamples, SampleCollector
from mlscale.evaluate.servable_pass import (
    check_servable_measurable,
    collect_servable_samples,
    map_truth_numbers,
)
from mlscale.export.measure_export import describe_served_model
from mlscale.export.servable import Servable
from mlscale.task_types.collected_samples import TaskInfo
from mlscale.task_types.registry import get_task_type
from mlscale.task_types.task_type import AnswerNames, TargetColumn, TaskType
from mlscale.tasks import Classification, Language, Multilabel, Regression, Segmentation
from tests.task_servables import (
    MeanOfTokens,
    TaskExample,
    get_task_servable,
    operators_parsed_once,
    write_example,
)

__all__ = ["get_task_servable", "operators_parsed_once"]
ROWS = [("Dream", "39.5", "a"), ("Ægir 🐧", "", "b"), ("", "41", "a"), ("Dream", "38", "c")] * 12


@dataclass(frozen=True)
class Measured:
    """Data, and a task with random weights that takes its samples."""

    data: Any
    task: Any


def write_table(folder: Path) -> Path:
    lines = ["island,mm,kind,age,mass"]
    lines += [f"{island},{mm},{kind},{n},{n * 1.5}" for n, (island, mm, kind) in enumerate(ROWS)]
    lines[9] = "Dream,oops,a,1,2"  # left out of the pass
    (folder / "a.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "a.csv"


def build_measured(kind: str, folder: Path, bundled: Path) -> Measured:
    torch.manual_seed(0)
    path = str(write_table(folder))
    skip: dict[str, Any] = {"on_bad_sample": "skip", "batch_size": 16}
    if kind in ("classification", "regression"):
        target: Any = "kind" if kind == "classification" else ["mass", "age"]
        ignore = ["mass", "age"] if kind == "classification" else ["kind"]
        data: Any = TableFiles(path, target, val=path, ignore=ignore, units={"mass": "g"}, **skip)
        layer = nn.Linear(data.facts().features, 3 if kind == "classification" else 2)
        task = Classification(3, model=layer) if kind == "classification" else Regression(2, model=layer)
        return Measured(data, task)
    if kind == "text":
        data = TextTable(path, text="island", label="kind", val=path, length=8, **skip)
        return Measured(data, Classification(3, model=MeanOfTokens(257, 3)))
    if kind == "language":
        (folder / "a.txt").write_bytes("some text of any encoding, 🐧 ".encode() * 90)
        data = TextFiles(str(folder / "a.txt"), length=16, batch_size=16)
        return Measured(data, Language(model=nn.Sequential(nn.Embedding(256, 6), nn.Linear(6, 256))))
    several = kind == "multilabel"
    data = DigitsScenes(bundled, labels="several" if several else "mask", workers=0, batch_size=64)
    data.prepare_data()
    count = data.facts().num_classes
    channels, height, width = data.facts().sample
    network = nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, count))
    return Measured(
        data,
        Multilabel(count, model=network)
        if several
        else Segmentation(count, model=nn.Conv2d(channels, count, 3, padding=1)),
    )


def collect_trained(given: Measured, task_type: TaskType, info: TaskInfo) -> EvaluatedSamples:
    collector = SampleCollector(task_type, info, worst=3)
    with torch.no_grad():
        for batch in given.data.val_dataloader():
            collector.collect_batch(given.task.eval().predict_step(batch, 0), batch)
    return collector.collect_samples()


@pytest.mark.parametrize("kind", ["classification", "regression", "text", "language", "multilabel", "segmentation"])
def test_the_rows_are_those_of_the_trained_model(kind: str, tmp_path: Path, bundled: Path) -> None:
    given = build_measured(kind, tmp_path, bundled)
    given.data.prepare_data()
    given.data.setup("validate")
    _, sample_format, _ = describe_served_model(given.task, given.data)
    example = TaskExample(given.task, sample_format.encoder, sample_format.names, lambda rng, count: [])
    servable = write_example(example, tmp_path / "servable")
    targets = tuple(target.name for target in servable.names.targets)
    info = TaskInfo(servable.labels, targets=targets)
    collector = SampleCollector(servable.task_type, info, worst=3)
    collect_servable_samples(servable, given.data, "val", collector)
    found, expected = collector.collect_samples(), collect_trained(given, servable.task_type, info)
    assert found.keys == expected.keys
    assert len(found) > 15
    assert set(found.columns) == set(expected.columns)
    for name, values in expected.columns.items():
        np.testing.assert_allclose(found.columns[name], values, rtol=1e-4, atol=1e-4, err_msg=name)
    # Whatever the report draws: it is built of the same columns.
    report = servable.task_type.build_report(found, 0)
    assert report.metrics


class Named:
    """A data module that has classes or targets."""

    def __init__(self, classes: list[str], targets: list[str] | None = None) -> None:
        self._classes, self._targets = classes, targets or []

    def facts(self) -> Any:
        class Facts:
            class_names, num_classes = tuple(self._classes), len(self._classes) or None

        return Facts

    def describe_targets(self) -> tuple[TargetColumn, ...]:
        return tuple(map(TargetColumn, self._targets))


def test_classes_and_targets_are_matched_by_name() -> None:
    model = AnswerNames(("a", "b", "c"))
    numbers = map_truth_numbers(Named(["c", "a"]), model)  # type: ignore[arg-type]
    y = np.array([0, 1, 1])
    assert get_task_type("classification").renumber_truth(y, numbers).tolist() == [2, 0, 0]
    masks = np.array([[[0, 1, 255]]], np.uint8)
    assert get_task_type("segmentation").renumber_truth(masks, numbers).tolist() == [[[2, 0, 255]]]
    with pytest.raises(MLScaleError, match="the data lacks the class 'b'"):
        map_truth_numbers(Named(["c", "a"]), model, every=True)  # type: ignore[arg-type]
    with pytest.raises(MLScaleError, match="the model does not know the class 'd' and 1 more") as caught:
        map_truth_numbers(Named(["a", "d", "e"]), model)  # type: ignore[arg-type]
    assert caught.value.why == "the model's are a, b, c; the data's are a, d, e"
    turned = map_truth_numbers(Named(["c", "a", "b"]), model, every=True)  # type: ignore[arg-type]
    labels = get_task_type("multilabel").renumber_truth(np.array([[1, 0, 0], [0, 1, 1]], np.uint8), turned)
    assert labels.tolist() == [[0, 0, 1], [1, 1, 0]]
    targets = AnswerNames(targets=(TargetColumn("age"), TargetColumn("mass", "g")))
    order = map_truth_numbers(Named([], ["mass", "age"]), targets)  # type: ignore[arg-type]
    values = get_task_type("regression").renumber_truth(np.array([[40.0, 3.0]]), order)
    assert values.tolist() == [[3.0, 40.0]]
    with pytest.raises(MLScaleError, match="the data lacks the target 'age'"):
        map_truth_numbers(Named([], ["mass"]), targets)  # type: ignore[arg-type]


def test_what_can_not_be_measured_is_refused(
    tmp_path: Path, bundled: Path, get_task_servable: Callable[[str], Servable]
) -> None:
    with pytest.raises(MLScaleError, match="the servable's task states no type"):
        check_servable_measurable(get_task_servable("tensors"))
    data = build_measured("text", tmp_path, bundled).data
    data.setup("validate")
    servable = get_task_servable("image")
    info = TaskInfo(servable.labels)
    # Of other classes, and, where these are the same, of another kind.
    with pytest.raises(MLScaleError, match="the model does not know the class 'a'"):
        collect_servable_samples(servable, data, "val", SampleCollector(servable.task_type, info))
    longer = TextFiles(str(tmp_path / "b.txt"), length=32)
    (tmp_path / "b.txt").write_bytes(b"a text of some length; " * 90)
    longer.setup("validate")
    language = get_task_servable("language")
    with pytest.raises(MLScaleError, match="the model takes blocks of 16 bytes") as caught:
        collect_servable_samples(language, longer, "val", SampleCollector(language.task_type, TaskInfo()))
    assert caught.value.fix == "data.length=16"
