"""What each tracker has kept, read back: metric name and step to value."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

Kept = dict[tuple[str, int], float]
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
    repeated = len(found) - len(kept)
    assert repeated == 0 or {tag for tag, _ in found} >= {"epoch"}, f"{repeated} entries are there twice"
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
    from tests.unit.train.test_wandb_logger import records

    histories = [record.history for record in records(logs) if record.WhichOneof("record_type") == "history"]
    rows = [{(i.key or "/".join(i.nested_key)): json.loads(i.value_json) for i in each.item} for each in histories]
    return of_history(rows)
