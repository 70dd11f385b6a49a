"""A few validation samples in every tracker: pictures, and tables of truth and prediction."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mlscale.errors import MLScaleError
from mlscale.tasks import Classification, Regression, Segmentation
from mlscale.train.callbacks import Samples
from mlscale.train.loggers.csv_logger import CSV
from tests.unit.fitting import SGD, Loader, batches, classifier, trainer


def shown(folder: Path, task: Any, batch: list[dict[str, Any]], count: int = 3) -> tuple[list[list[str]], list[Path]]:
    """The rows of the last table, and the pictures, of two epochs of two steps."""
    run = trainer(max_epochs=2, logger=CSV(str(folder)), callbacks=[Samples(count)], num_sanity_val_steps=1)
    run.fit(task, Loader(batch), Loader(batch))
    tables = sorted(folder.rglob("samples_table/*.csv"), key=lambda path: int(path.stem))
    with tables[-1].open() as file:
        return list(csv.reader(file)), sorted(folder.rglob("samples/*.png"))


def test_classes_without_pictures(tmp_path: Path) -> None:
    given = batches(2)
    task = classifier()
    rows, pictures = shown(tmp_path, task, given)
    assert rows[0] == ["key", "truth", "prediction"]
    assert [row[:2] for row in rows[1:]] == [[f"shard/0-{n}", str(int(given[0]["y"][n]))] for n in range(3)]
    with torch.no_grad():
        best = task(given[0]["x"][:3]).softmax(-1)
    assert [row[2] for row in rows[1:]] == [f"{int(p.argmax())} ({float(p.max()):.0%})" for p in best]
    assert not pictures


def test_masks_beside_their_images(tmp_path: Path) -> None:
    made = torch.Generator().manual_seed(0)
    batch: dict[str, Any] = {
        "x": torch.rand(4, 3, 8, 8, generator=made),
        "y": torch.randint(2, (4, 8, 8), generator=made).to(torch.uint8),
        "key": list("abcd"),
    }
    task = Segmentation(2, model=nn.Conv2d(3, 2, 1), optimizer=SGD)
    rows, pictures = shown(tmp_path, task, [batch, batch], count=2)
    assert [path.stem for path in pictures] == ["1", "3"], "after each validation, and not after the check before a fit"
    with Image.open(pictures[0]) as picture:
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 10
    with torch.no_grad():
        right = (task(batch["x"][:1]).argmax(1) == batch["y"][:1]).float().mean()
    assert rows[1] == ["a", "2 classes", f"{float(right):.1%} of the pixels"]


def test_numbers(tmp_path: Path) -> None:
    batch = {"x": torch.eye(4), "y": torch.arange(4.0)[:, None]}
    rows, _ = shown(tmp_path, Regression(1, model=nn.Linear(4, 1), optimizer=SGD), [batch, batch])
    assert [row[:2] for row in rows[1:]] == [["0", "0"], ["1", "1"], ["2", "2"]]


def test_they_stand_at_the_step_of_the_metrics_of_their_validation(tmp_path: Path) -> None:
    """Also of a validation between two passes of accumulation."""
    log = CSV(str(tmp_path))
    run = trainer(max_epochs=2, logger=log, callbacks=[Samples(1)], accumulate_grad_batches=2, val_check_interval=3)
    run.fit(classifier(), Loader(batches(6)), Loader(batches(1)))
    log.flush()
    steps = [row["step"] for row in log._read_rows()[1] if row.get("val/loss")]
    assert steps == ["1", "2", "4", "5"]
    assert sorted(path.stem for path in tmp_path.rglob("samples_table/*.csv")) == steps


@pytest.mark.parametrize(
    ("kind", "printed"), [("language", "a language task reports nothing"), (None, "Other reports nothing")]
)
def test_a_task_that_says_nothing_of_samples_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: Any, printed: str
) -> None:
    class Other(Classification):
        pass

    Other.kind = kind
    run = trainer(logger=CSV(str(tmp_path)), callbacks=[Samples()])
    run.fit(Other(2, model=nn.Linear(3, 2), optimizer=SGD), Loader(batches(2)), Loader(batches(1)))
    assert f"callbacks.samples has no effect: {printed} of single samples" in capsys.readouterr().err
    assert not list(tmp_path.rglob("media"))


@pytest.mark.parametrize("count", [0, 257])
def test_a_number_that_is_none(count: int) -> None:
    with pytest.raises(MLScaleError, match="count"):
        Samples(count)
