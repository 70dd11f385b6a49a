"""`mlscale predict`: a run or a servable over images, in one process or two, killed and gone on with."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from concurrent import futures
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import mlscale
from mlscale import commands
from mlscale.cli import main
from mlscale.commands.predict import rank_worker
from mlscale.errors import MLScaleError
from mlscale.events.store import EventStore
from mlscale.report import Result
from tests.contract.commands import environment
from tests.contract.test_documents import validate

TRAINED = ("+recipe=resnet", "model.widths=[8,16]", "trainer.max_epochs=4", "snapshot=false", "logger=none")
IMAGES = 300


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, bundled: Path) -> Path:
    """A folder with a run, its servable, and images of digits, of which two can't be read."""
    place = tmp_path_factory.mktemp("predict")
    commands.run_command("train", [*TRAINED, f"runs_dir={place}/runs", f"data.root={bundled}"])
    (run,) = place.glob("runs/*/resnet-*")
    commands.run_command("export", [str(run), f"runs_dir={place}/runs", f"to={place}/model"])
    (place / "photos" / "more").mkdir(parents=True)
    for number, pixels in enumerate(load_digits().images[:IMAGES]):
        image = Image.fromarray((pixels * 255 / 16).astype(np.uint8))
        image.save(place / "photos" / ("more" if number % 3 else "") / f"{number:04}.png")
    (place / "photos" / "torn.png").write_bytes((place / "photos" / "0000.png").read_bytes()[:60])
    (place / "photos" / "empty.jpg").write_bytes(b"")
    return place


def predict(place: Path, to: Path, *words: str) -> Result:
    return commands.run_command("predict", [f"input={place}/photos", f"to={to}", f"runs_dir={place}/runs", *words])


def rows(to: Path) -> dict[str, list[Any]]:
    return ds.dataset(to, format="parquet").to_table().sort_by("row").to_pydict()  # type: ignore[no-any-return]


def test_a_run_and_its_servable_say_the_same_of_every_image(place: Path, tmp_path: Path) -> None:
    result = predict(place, tmp_path / "run", "ref=last")
    assert result.ok
    assert (result.metrics["rows"], result.metrics["errors"]) == (IMAGES + 2, 2)
    assert "2 could not be read" in result.sentence
    validate("predictions", json.loads((tmp_path / "run" / "_predictions.json").read_text()))
    found = rows(tmp_path / "run")
    assert found["row"] == list(range(IMAGES + 2))
    reported = dict(zip(found["key"], found["predicted"], strict=True))
    assert reported["torn.png"] is reported["empty.jpg"] is None
    target = load_digits().target
    right = [reported[f"{'more/' * bool(n % 3)}{n:04}.png"] == str(target[n]) for n in range(IMAGES)]
    assert np.mean(right) > 0.8

    served = predict(place, tmp_path / "served", f"ref={place}/model")
    assert served.metrics["rows"] == IMAGES + 2
    other = rows(tmp_path / "served")
    assert (other["key"], other["predicted"], other["error"]) == (found["key"], found["predicted"], found["error"])
    given = [np.array([each for each in side["probabilities"] if each]) for side in (found, other)]
    assert np.abs(given[0] - given[1]).max() < 1e-4

    again = predict(place, tmp_path / "run", "ref=last")
    assert again.metrics["new_rows"] == 0
    assert "all of them from before" in again.sentence
    assert predict(place, tmp_path / "run", "ref=last", "max_errors=1").ok is False
    with pytest.raises(MLScaleError, match="holds predictions of another model") as caught:
        predict(place, tmp_path / "run", f"ref={place}/model")
    assert "overwrite=true" in caught.value.fix


def test_two_processes_make_what_one_makes(place: Path, tmp_path: Path) -> None:
    words = [f"ref={place}/model", "part_rows=20", "batch=8"]
    predict(place, tmp_path / "one", *words)
    result = predict(place, tmp_path / "two", *words, "trainer.devices=2")
    assert result.metrics["processes"] == 2
    assert rows(tmp_path / "two") == rows(tmp_path / "one")


def test_events_are_there_once_and_labels_join_them(place: Path, tmp_path: Path) -> None:
    words = [f"ref={place}/model", f"events={tmp_path}/events"]
    predict(place, tmp_path / "preds", *words)
    for path in list((tmp_path / "preds").glob("part-*"))[:2]:
        path.unlink()
    predict(place, tmp_path / "preds", *words)
    with pytest.raises(MLScaleError, match="predictions of other settings") as caught:  # there would be no events
        predict(place, tmp_path / "preds", *words[:1])
    assert caught.value.why.endswith("events=True then, None now")
    store = EventStore(tmp_path / "events")
    (model,) = store.list_models()
    events = store.read(model)
    found = rows(tmp_path / "preds")
    assert sorted(events.id) == sorted(found["key"])
    assert (events.outcome == "ok").sum() == IMAGES
    assert all(np.isfinite(values).all() for values in events.select_answered().inputs.values())
    store.add_labels(model, ["0000.png"], ["0"])
    joined = store.joined(model)
    assert (list(joined.id), list(joined.truth)) == (["0000.png"], ["0"])


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["input={photos}", "to={to}"], "no model is named"),
        (["ref=last", "to={to}"], "'input' is not set"),
        (["ref=last", "input={photos}/nowhere", "to={to}"], "does not exist"),
        (["ref=last", "input={photos}", "to=/proc/preds"], "to=<a folder you may write to, with free space>"),
        (["ref=last", "input={photos}", "to={to}", "batch=0"], "'batch' must be int ≥ 1"),
        (["ref=last", "input={photos}", "to={to}", "part_rows=0"], "'part_rows' must be int ≥ 1"),
        (["ref=last", "input={photos}", "to={photos}"], "the folder for predictions holds something else"),
        (
            ["ref=last", "input={photos}", "to={to}", "columns=[a]", "data.image_size=9"],
            "not what the run was trained on",
        ),
    ],
)
def test_what_is_wrong_is_reported_and_leaves_nothing(place: Path, tmp_path: Path, words: list[str], what: str) -> None:
    typed = [word.format(photos=place / "photos", to=tmp_path / "preds") for word in words]
    with pytest.raises(MLScaleError) as caught:
        commands.run_command("predict", [*typed, f"runs_dir={place}/runs"])
    assert what in str(caught.value)
    assert list(tmp_path.glob("preds/part*")) == []


@pytest.mark.slow
def test_a_process_that_dies_is_reported_and_the_same_command_goes_on(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [f"ref={place}/model", "part_rows=16", "batch=4", "trainer.devices=2"]
    kill = iter([True])

    def killed(*waited: Any) -> Any:
        if next(kill, False):
            os.kill(multiprocessing.active_children()[1].pid or 0, signal.SIGKILL)
        return wait(*waited)

    wait = futures.wait

    monkeypatch.setattr(rank_worker, "wait", killed)
    with pytest.raises(MLScaleError, match="one of 2 processes died") as caught:
        predict(place, tmp_path / "preds", *words)
    assert caught.value.exit == 5
    assert predict(place, tmp_path / "preds", *words).metrics["rows"] == IMAGES + 2


@pytest.mark.slow
@pytest.mark.parametrize("words", ["ref=last", "ref={place}/model", "ref={place}/model trainer.devices=2"])
@pytest.mark.parametrize("seed", range(1))
def test_the_command_killed_at_random_places(place: Path, tmp_path: Path, words: str, seed: int) -> None:
    rng, kills, to = random.Random(seed), 0, tmp_path / "preds"
    typed = [*words.format(place=place).split(), f"input={place}/photos", f"to={to}", f"runs_dir={place}/runs"]
    command = [
        sys.executable,
        "-m",
        "mlscale",
        "predict",
        *typed,
        "part_rows=8",
        "batch=2",
        f"events={tmp_path}/events",
    ]
    env = environment(tmp_path)
    while True:
        process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wanted, end = len(list(to.glob("part-*"))) + rng.randint(0, 12), time.monotonic() + 120
        while process.poll() is None and len(list(to.glob("part-*"))) < wanted and time.monotonic() < end:
            time.sleep(0.002)
        time.sleep(rng.random() * 0.05)
        if process.poll() is not None:
            assert process.returncode == 0
            break
        process.send_signal(rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
        process.wait()
        kills += 1
        assert kills < 60
    assert kills >= 1
    found = rows(to)
    assert found["row"] == list(range(IMAGES + 2))
    assert len(set(found["key"])) == IMAGES + 2
    store = EventStore(tmp_path / "events")
    (model,) = store.list_models()
    assert sorted(store.read(model).id) == sorted(found["key"])


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--help"]) == 0
    printed = capsys.readouterr().out
    assert "mlscale predict last input=photos to=preds" in printed
    assert "max_errors" in printed


def test_rows_of_a_table_are_encoded_as_in_training(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = ["a,b,colour,y"]
    for _ in range(400):
        a, b, colour = rng.normal(100, 30), rng.normal(), rng.choice(["red", "green"])
        lines.append(f"{a:.2f},{b:.3f},{colour},{'yes' if (a - 100) / 30 + b + (colour == 'red') > 0.5 else 'no'}")
    (tmp_path / "train.csv").write_text("\n".join(lines[:301]) + "\n")
    (tmp_path / "test.csv").write_text("\n".join([lines[0], *lines[301:]]) + "\n")
    table = ["data=table", f"data.train={tmp_path}/train.csv", f"data.test={tmp_path}/test.csv", "data.target=y"]
    common = [f"runs_dir={tmp_path}/runs", "snapshot=false", "logger=none"]
    commands.run_command("train", ["+recipe=tabular", *table, *common, "trainer.max_epochs=3"])
    # Other columns around, in another order, as a Parquet file would have them typed; one value is no number.
    given = [line.split(",") for line in lines[301:]]
    given[5][1] = "oops"
    new = "\n".join(["colour,id,b,a", *(f"{row[2]},k{n},{row[1]},{row[0]}" for n, row in enumerate(given))])
    (tmp_path / "new.csv").write_text(new + "\n")
    words = ["ref=last", f"runs_dir={tmp_path}/runs"]
    commands.run_command("predict", [*words, f"input={tmp_path}/new.csv", "key=id", f"to={tmp_path}/preds"])
    found = rows(tmp_path / "preds")
    assert found["key"] == [f"k{n}" for n in range(100)]
    assert [n for n, error in enumerate(found["error"]) if error] == [5]
    assert found["error"][5] == "b is 'oops', no number"
    measured = commands.run_command("evaluate", [*words, "split=test"]).artifacts["samples"]
    wanted = np.array(ds.dataset(measured, format="parquet").to_table()["probabilities"].to_pylist())
    reported = np.array([row or [np.nan, np.nan] for row in found["probabilities"]])
    others = np.arange(100) != 5
    assert np.abs(reported[others] - wanted[others]).max() < 1e-5
    whole = [[float(row[place]) for row in given if row[1] != "oops"] for place in (0, 1)]
    table = pa.table({"a": whole[0], "b": whole[1], "colour": [row[2] for row in given if row[1] != "oops"]})
    pq.write_table(table, tmp_path / "new.parquet", row_group_size=64)
    torn = bytearray((tmp_path / "new.parquet").read_bytes())
    torn[4:200] = b"x" * 196  # of the first row group
    (tmp_path / "torn.parquet").write_bytes(torn)
    result = commands.run_command("predict", [*words, f"input={tmp_path}/torn.parquet", f"to={tmp_path}/torn"])
    assert (result.metrics["rows"], result.metrics["errors"]) == (99, 64)
    damaged = rows(tmp_path / "torn")
    assert damaged["key"] == [f"torn.parquet:{n + 1}" for n in range(99)]
    assert all("the table is corrupt here" in error for error in damaged["error"][:64])
    (tmp_path / "short.csv").write_text("a,b\n1,2\n")
    with pytest.raises(MLScaleError, match="the table has no column 'colour'"):
        commands.run_command("predict", [*words, f"input={tmp_path}/short.csv", f"to={tmp_path}/other"])


OWN_DATA = """
import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch.utils.data import DataLoader, TensorDataset

class OwnImages(LightningDataModule):
    # It normalises by itself: its samples are what the model takes.
    def _load(self):
        generator = torch.Generator().manual_seed(0)
        return DataLoader(TensorDataset(torch.randn(32, 3, 8, 8, generator=generator), torch.arange(32) % 4), 8)

    def train_dataloader(self):
        return self._load()

    def val_dataloader(self):
        return self._load()

class OwnModule(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3 * 8 * 8, 4)

    def forward(self, x):
        return self.layer(x.flatten(1))

    def training_step(self, batch, index):
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, index):
        self.log("val/loss", self.training_step(batch, index))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)
"""


def test_arrays_of_a_users_own_data_module(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "own_images.py").write_text(OWN_DATA)
    monkeypatch.syspath_prepend(folder)
    parts = ["data=none", "data._target_=own_images.OwnImages", "task._target_=own_images.OwnModule", "model=none"]
    run = commands.run_command("train", [*parts, "debug=fast", "snapshot=false"]).artifacts["run"]
    samples = np.random.default_rng(0).normal(size=(5, 3, 8, 8)).astype(np.float32)
    for number, sample in enumerate(samples):
        (folder / "arrays").mkdir(exist_ok=True)
        np.save(folder / "arrays" / f"{number}.npy", sample if number != 3 else sample[:1])
    words = [f"ref={run}", "checkpoint=last"]
    result = commands.run_command("predict", [*words, "input=arrays", "to=preds"])
    assert (result.metrics["rows"], result.metrics["errors"]) == (5, 1)
    found = rows(folder / "preds")
    assert found["error"][3] == "it has the shape (1, 8, 8), and the model takes (3, 8, 8)"
    expected = mlscale.load(run, checkpoint="last").predict(samples)
    assert [name for name in found["predicted"] if name] == [name for n, name in enumerate(expected.labels) if n != 3]
    with pytest.raises(MLScaleError, match="the batch is"):
        mlscale.load(run, checkpoint="last").predict(samples[0])
    (folder / "photos").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "photos" / "a.png")
    with pytest.raises(MLScaleError, match="no array to score") as caught:
        commands.run_command("predict", [*words, "input=photos", "to=other"])
    assert caught.value.why == "the model takes arrays, which end in npy; others are not looked at"


def test_documents_are_scored_by_a_language_model(folder: Path) -> None:
    (folder / "corpus.txt").write_text("some text of any kind, as a book has it. " * 90)
    small = ["model.layers=1", "model.width=16", "model.heads=2"]
    data = ["data=text_files", "data.train=corpus.txt", "data.length=16", "data.batch_size=8"]
    run = commands.run_command("train", ["+recipe=gpt", *data, *small, "debug=fast", "snapshot=false"]).artifacts["run"]
    (folder / "docs").mkdir()
    texts = {"a.txt": b"of several windows " * 9, "b.md": "🐧".encode() + b"\xff", "c.txt": b"a\0b", "d.txt": b""}
    for name, content in texts.items():
        (folder / "docs" / name).write_bytes(content)
    (folder / "corpus.txt").unlink()  # a run's encoder and facts are its own
    words = [f"ref={run}", "checkpoint=last"]
    commands.run_command("predict", [*words, "input=docs", "to=preds"])
    found = rows(folder / "preds")
    assert (found["key"], found["tokens"]) == (list(texts), [19 * 9 + 1, 6, None, None])
    assert found["error"] == [None, None, "byte 2 is zero, which ends a document", "it is empty"]
    pq.write_table(pa.table({"id": ["p", "q"], "text": [texts["a.txt"], texts["b.md"]]}), folder / "texts.parquet")
    for spec in ("texts.parquet", "docs/*.txt"):
        commands.run_command("predict", [*words, f"input={spec}", f"to={spec[0]}", "batch=2"])
        assert rows(folder / spec[0])["nats"][0] == pytest.approx(found["nats"][0], rel=1e-5)
    assert rows(folder / "t")["nats"][1] == pytest.approx(found["nats"][1], rel=1e-5)
