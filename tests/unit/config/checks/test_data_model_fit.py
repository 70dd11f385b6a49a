"""Data, model and task that do not go together are told before anything is built."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from mlscale.config.checks.data_model_fit import check_data_fit
from mlscale.errors import MLScaleError

TASKS = {"one": "Classification", "several": "Multilabel", "mask": "Segmentation"}


def reported(facts: dict[str, Any] | None = None, **nodes: Any) -> list[MLScaleError]:
    return list(check_data_fit(OmegaConf.create(nodes), facts))


def task(labels: str) -> dict[str, str]:
    return {"_target_": f"mlscale.tasks.{TASKS[labels]}"}


@pytest.mark.parametrize("asked", TASKS)
@pytest.mark.parametrize("held", TASKS)
def test_labels_and_task(asked: str, held: str) -> None:
    problems = reported(task=task(asked), data={"labels": held})
    assert len(problems) == (asked != held)
    for problem in problems:
        assert problem.fix.startswith(f"task={TASKS[held].lower()}\ndata.labels={asked}")


def test_who_says_nothing_of_labels_or_of_itself_is_left_alone() -> None:
    assert reported(task=task("mask"), data={"root": "x"}) == []
    assert reported(task={"_target_": "pytorch_lightning.LightningModule"}, data={"labels": "mask"}) == []
    assert reported() == []


@pytest.mark.parametrize(
    ("kind", "facts", "what", "fix"),
    [
        ("Classification", {"targets": 1}, "classes, and this data has numbers", "data.target_type=class, where"),
        ("Regression", {"num_classes": 2}, "numbers, and this data has classes", "data.target_type=number, where"),
        ("Classification", {"vocab_size": 256}, "classes, and this data has texts without labels", "task=language"),
        (
            "Language",
            {"vocab_size": 257, "num_classes": 2},
            "the next token of a text, and this",
            "task=classification",
        ),
        ("Language", {"vocab_size": 256}, None, ""),
        ("Multilabel", {"num_classes": 2}, None, ""),
        ("Regression", {"targets": 2, "num_classes": None}, None, ""),
        ("Regression", {}, None, ""),
    ],
)
def test_what_data_has_and_the_task_predicts(kind: str, facts: dict[str, Any], what: str | None, fix: str) -> None:
    data = {"target_type": "auto"} if "target_type" in fix else {"root": "x"}
    problems = reported(facts, task={"_target_": f"mlscale.tasks.{kind}"}, data=data)
    assert len(problems) == (what is not None)
    for problem in problems:
        assert problem.what.startswith(f"a {kind.lower()} task predicts {what}")
        assert problem.fix.startswith(fix)


@pytest.mark.parametrize(
    ("model", "channels", "fix"),
    [
        ({"_target_": "torchvision.models.resnet18"}, 1, "model=resnet, which"),
        ({"_target_": "torchvision.models.resnet18"}, 3, None),
        ({"_target_": "torchvision.models.segmentation.fcn_resnet50"}, 1, "model=unet, which"),
        ({"_target_": "timm.create_model", "model_name": "test_vit"}, 1, "'model.in_chans=${derived.channels}'"),
        ({"_target_": "timm.create_model", "model_name": "test_vit"}, 3, None),
        ({"_target_": "timm.create_model", "in_chans": 1}, 1, None),
        ({"_target_": "timm.create_model", "in_chans": 1}, 3, "'model.in_chans=${derived.channels}'"),
        ({"_target_": "mlscale.tasks.ResNet"}, 1, None),
        ({"_target_": "torchvision.models.resnet18"}, None, None),
    ],
)
def test_channels(model: dict[str, Any], channels: int | None, fix: str | None) -> None:
    problems = reported({"channels": channels}, model=model)
    assert [problem.fix.startswith(fix or "") for problem in problems] == ([True] if fix else [])
    taken = "1 channel" if "in_chans" in model else "3 channels"
    for problem in problems:
        assert problem.what == f"{model['_target_']} takes images of {taken}, the data has {channels}"
        assert problem.where == ("model.in_chans" if "timm" in model["_target_"] else "model")


@pytest.mark.parametrize(("labels", "fix"), [("one", None), ("several", "metric=val/map"), ("mask", "metric=val/miou")])
def test_the_metric_is_one_that_the_task_logs(labels: str, fix: str | None) -> None:
    problems = reported(task=task(labels), metric="val/accuracy")
    assert [problem.fix for problem in problems] == ([fix] if fix else [])
    assert reported(task=task(labels), metric=(fix or "metric=val/loss").removeprefix("metric=")) == []


@pytest.mark.parametrize("labels", TASKS)
def test_compression_takes_any_type(labels: str) -> None:
    assert reported(task=task(labels), compress={"int8": {"_target_": "mlscale.compress.Int8"}}) == []


def test_compression_needs_a_type_that_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ranker_task.py").write_text("class Ranker:\n    kind = 'ranking'\nclass Plain:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    chosen = {"int8": {"_target_": "mlscale.compress.Int8"}, "mine": {"_target_": "my.Own"}}
    (problem,) = reported(task={"_target_": "ranker_task.Ranker"}, compress=chosen)
    assert problem.what == "compress=int8 takes a task of a known type, and this task is ranking"
    assert reported(task={"_target_": "ranker_task.Plain"}, compress=chosen) == reported(compress=chosen) == []
    assert reported(task={"_target_": "ranker_task.Ranker"}, compress={"mine": chosen["mine"]}) == []
