"""A folder with a table model as champion and labelled events, and the phase that a retraining cycle there is in.

The phases are read from the disk by another process, so that a cycle need not know that it is watched.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlscale.commands.retrain.champion import RETRAINED
from mlscale.runs.folder import RunFolder
from tests.e2e.retrain_place import RetrainPlace

PHASES = ("start", "window", "training", "export", "gate", "promotion", "swap")
"""Of a cycle, in their order; 'swap' is from the champion's change to the end of the process."""
_ROWS, _EVENTS = 2000, 400
_MODEL = ("model=tabular", "augment=none", "data=table", "data.target=risk", "data.batch_size=32", "optimizer.lr=0.02")


def draw_rows(rng: np.random.Generator, count: int, low: float, high: float) -> list[dict[str, Any]]:
    """Return rows whose `risk` is high between ages -2 and -1 and above 0.5, with ages in a range."""
    ages, cities = rng.uniform(low, high, count), rng.choice(["Rome", "Oslo"], count)
    is_high = (ages > 0.5) | ((ages > -2) & (ages < -1))
    rows = zip(ages.tolist(), cities.tolist(), is_high.tolist(), strict=True)
    return [{"age": age, "city": city, "risk": "high" if high else "low"} for age, city, high in rows]


def create_places(folder: Path, seed: int) -> None:
    """Train a champion on ages from 0 to 1, publish it, and leave events of ages from -2 to 0: in `folder/place`.

    `folder/good` and `folder/poisoned` are copies of that with events, whose labels are right or drawn by chance.
    """
    rng = np.random.default_rng(seed)
    place = RetrainPlace(folder / "place")
    place.folder.mkdir(parents=True)
    rows = draw_rows(rng, _ROWS, 0, 1)
    with (folder / "train.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    place.train_champion(*_MODEL, f"data.train={folder}/train.csv", "trainer.max_epochs=10")
    sent = draw_rows(rng, _EVENTS, -2, 0)
    truth = [row.pop("risk") for row in sent]
    for name, labels in (("good", truth), ("poisoned", rng.permutation(truth).tolist())):
        place.leave_events(sent, labels)
        shutil.copytree(place.folder, folder / name, symlinks=True)
        shutil.rmtree(place.folder / "events")


def restore_place(folder: Path, kind: str) -> RetrainPlace:
    """Return the place as it was before the first cycle, under the same path."""
    place = RetrainPlace(folder / "place")
    shutil.rmtree(place.folder)
    shutil.copytree(folder / kind, place.folder, symlinks=True)
    return place


def list_run_documents(place: RetrainPlace) -> set[Path]:
    """Return the paths of `run.json` of all runs, also while a process creates and removes folders."""
    # Not `rglob`, which raises an error for a folder that is removed meanwhile.
    return {Path(base, "run.json") for base, _, names in os.walk(place.folder / "runs") if "run.json" in names}


@dataclass(frozen=True)
class CycleTraces:
    """Traces of a cycle on the disk.

    Args:
        place: of the cycle.
        before: the documents of runs that were there before it.
    """

    place: RetrainPlace
    before: frozenset[Path]

    @classmethod
    def start_watching(cls, place: RetrainPlace) -> CycleTraces:
        """Return the traces of the cycle that is started next."""
        return cls(place, frozenset(list_run_documents(place)))

    def list_trainings(self) -> list[RunFolder]:
        """Return the runs of cycles, finished or not."""
        found = list_run_documents(self.place) - self.before
        runs = [RunFolder.open(path.parent) for path in sorted(found)]
        return [run for run in runs if RETRAINED in run.run.get("tags", ())]

    def find_phase(self) -> str:
        """Return the phase that the latest cycle has come to."""
        if self.read_champion() != 1:
            return "swap"
        records = self.read_records()
        if not records:
            return "start"
        record = records[-1]
        if record["figures"]:
            return "promotion"
        if record["challenger"]:
            return "gate"
        new = list_run_documents(self.place) - self.before
        if not new:
            return "window"
        # The manifest is a run's last file.
        return "export" if any((path.parent / "manifest.json").exists() for path in new) else "training"

    def read_champion(self) -> int:
        """Return the number of the champion."""
        return self.place.registry.get_aliases("m").of["champion"]

    def read_records(self) -> list[dict[str, Any]]:
        """Return the records of all cycles, oldest first; those that are not written yet are left out."""
        records = []
        for path in sorted((self.place.folder / "registry/retrain/m").glob("*/turn.json")):
            # A cycle may be removed meanwhile.
            with contextlib.suppress(OSError):
                records.append(json.loads(path.read_text()))
        return records
