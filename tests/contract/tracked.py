"""What each tracker has kept, read back: metric name and step to value."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from PIL import Image

Kept = dict[tuple[str, int], float]
Media = dict[tuple[str, int], Any]  # size and pixels of a picture, or the lines of a table, its header among them
KILLED = """
import os, signal
from pathlib import Path
from pytorch_lightning import Callback


class KilledOnce(Callback):
    def __init__(self, step, note):
        self.step, self.note = step, Path(note)

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        if trainer.global_step == self.step and not self.note.exists():
            self.note.touch()
            os.kill(os.getpid(), signal.SIGKILL)
"""
WORDS = ["+recipe=resnet", "model=mlp", "trainer.max_epochs=2", "trainer.log_every_n_steps=2", "snapshot=false"]
SAMPLES = "callbacks=[default,samples]"
CHECKPOINTS = "callbacks.checkpoint.every_n_steps=8"


def killed(folder: Path, step: int) -> list[str]:
    """Settings of a run that is killed after `step` optimizer steps, once; its module lies in `folder`."""
    (folder / "killed_once.py").write_text(KILLED)
    note = f"{{_target_:killed_once.KilledOnce,step:{step},note:{folder / 'killed'}}}"
    return [*WORDS, CHECKPOINTS, f"+callbacks.end={note}"]


def of_csv(logs: Path) -> Kept:
    with (logs / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        (name, int(row["step"])): float(value)
        for row in rows
        for name, value in row.items()
        if value != "" and name != "step"
    }


def of_tensorboard(logs: Path) -> Kept:
    reader: Any = import_module("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(logs), size_guidance={reader.SCALARS: 0})
    events.Reload()
    found = [(tag, event) for tag in events.Tags()["scalars"] for event in events.Scalars(tag)]
    kept = {(tag, event.step): float(event.value) for tag, event in found}
    counts = Counter(
        (tag, event.step) for tag, event in found if tag != "epoch"
    )  # which stands in several rows of a step
    assert not [key for key, count in counts.items() if count > 1], "entries are there twice"
    return kept


def of_history(rows: Iterable[dict[str, Any]]) -> Kept:
    """Of W&B: the rows of a run."""
    found = [
        ((name, int(row["trainer/global_step"])), float(value))
        for row in rows
        for name, value in row.items()
        if not name.startswith("_") and name != "trainer/global_step" and isinstance(value, int | float)
    ]
    return dict(found)


def of_mlflow(url: str, name: str) -> tuple[Kept, Any]:
    """The metrics of the one run with this name, and the run."""
    client_of: Any = import_module("mlflow.tracking").MlflowClient
    client = client_of(url)
    experiment = client.get_experiment_by_name("mlscale")
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`mlscale.run` = '{name}'")
    found = [each for metric in run.data.metrics for each in client.get_metric_history(run.info.run_id, metric)]
    kept = {(each.key, each.step): each.value for each in found}
    assert len(kept) == len(found), "entries are there twice"
    return kept, run


def of_wandb_offline(logs: Path) -> Kept:
    rows = _wandb_rows(logs)
    media = [key.removesuffix("_type") for row in rows for key in row if key.endswith("/_type")]
    return of_history({k: v for k, v in row.items() if not k.startswith(tuple(media))} for row in rows)


def _wandb_rows(logs: Path) -> list[dict[str, Any]]:
    from tests.unit.train.loggers.test_wandb_logger import records

    histories = [record.history for record in records(logs) if record.WhichOneof("record_type") == "history"]
    return [{(i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in each.item} for each in histories]


def media_of_csv(logs: Path) -> Media:
    return media_in(logs / "media")


def media_in(folder: Path) -> Media:
    """Of files `<name>/<step>.png` and `<name>/<step>.csv`."""
    return {
        (path.parent.relative_to(folder).as_posix(), int(path.stem)): _content(path)
        for path in folder.rglob("*")
        if path.is_file()
    }


def _content(path: Path) -> Any:
    if path.suffix == ".png":
        return _pixels(path.read_bytes())
    with path.open(newline="") as file:
        return list(csv.reader(file))


def _pixels(png: bytes) -> tuple[tuple[int, int], bytes]:
    with Image.open(io.BytesIO(png)) as picture:
        return picture.size, picture.convert("RGB").tobytes()


def media_of_tensorboard(logs: Path) -> Media:
    reader: Any = import_module("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(logs), size_guidance={reader.IMAGES: 0, reader.TENSORS: 0})
    events.Reload()
    found: Media = {}
    for tag in events.Tags()["images"]:
        found |= {(tag, event.step): _pixels(event.encoded_image_string) for event in events.Images(tag)}
    for tag in events.Tags()["tensors"]:
        for event in events.Tensors(tag):
            lines = event.tensor_proto.string_val[0].decode().splitlines()
            cells = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in lines]
            found[tag.removesuffix("/text_summary"), event.step] = [cells[0], *cells[2:]]
    return found


def media_of_wandb_offline(logs: Path) -> Media:
    """What `wandb sync` would send: the files that the run's rows name."""
    (files,) = logs.glob("wandb/offline-run-*/files")
    found: Media = {}
    for row in _wandb_rows(logs):
        for key in [key for key in row if key.endswith("/_type")]:
            name = key.removesuffix("/_type")
            path = files / row[f"{name}/path"]
            assert hashlib.sha256(path.read_bytes()).hexdigest() == row[f"{name}/sha256"]
            if row[key] == "image-file":
                found[name, row["trainer/global_step"]] = _pixels(path.read_bytes())
            else:
                table = json.loads(path.read_text())
                found[name, row["trainer/global_step"]] = [table["columns"], *table["data"]]
    return found


def media_of_mlflow(url: str, name: str, folder: Path) -> Media:
    """The artifacts of the one run with this name, fetched by MLflow's client into `folder`, which it makes."""
    client: Any = import_module("mlflow.tracking").MlflowClient(url)
    experiment = client.get_experiment_by_name("mlscale")
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`mlscale.run` = '{name}'")
    folder.mkdir()
    return media_in(Path(client.download_artifacts(run.info.run_id, "", str(folder))))
