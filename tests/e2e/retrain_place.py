"""A folder with a champion, and events as a server and those who label would have left them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlscale import commands
from mlscale.events.store import EventStore
from mlscale.export.event_subject import build_event_subject
from mlscale.export.servable import Servable, load
from mlscale.report import Result
from mlscale.runs.folder import RunFolder
from mlscale.versions import LocalRegistry
from mlscale.versions.from_servable import publish_servable

_CHUNK = 64


@dataclass(frozen=True)
class RetrainPlace:
    """Runs, registry and events of a model `m`."""

    folder: Path

    @property
    def registry(self) -> LocalRegistry:
        return LocalRegistry(self.folder / "registry")

    @property
    def champion(self) -> Servable:
        return load(self.registry.resolve_version("m@champion").payload)

    @property
    def journal(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "registry/retrain/m.jsonl").read_text().splitlines()]

    @property
    def words(self) -> list[str]:
        where = self.folder
        return ["ref=m@champion", f"events={where}/events", f"runs_dir={where}/runs", f"registry.root={where}/registry"]

    def train_champion(self, *overrides: str) -> RunFolder:
        common = (f"runs_dir={self.folder}/runs", "snapshot=false", "logger=none")
        made = commands.run_command("train", [*overrides, *common])
        run = RunFolder.open(made.artifacts["run"])
        exported = commands.run_command("export", [str(run.path), f"runs_dir={self.folder}/runs", "warmup=false"])
        assert exported.ok, exported.sentence
        publish_servable(self.registry, run.path / "servable", run=run, name="m", aliases=("champion",))
        return run

    def leave_events(
        self, samples: Sequence[Any], labels: Sequence[Any] | None, groups: Sequence[str] | None = None
    ) -> None:
        servable, store = self.champion, EventStore(self.folder / "events")
        writer = store.open_writer("m", sample_share=1.0)
        subject = build_event_subject(servable, "m:v1", "serve")
        for start in range(0, len(samples), _CHUNK):
            packed = servable.pack_samples(samples[start : start + _CHUNK])
            assert not packed.bad
            predictions = servable.task_type.build_predictions(servable.compute_samples(packed), servable.labels)
            ids = [f"event-{number}" for number in range(start, start + len(samples[start : start + _CHUNK]))]
            assert writer.add_events(
                ids,
                subject=subject,
                samples=packed,
                predictions=predictions,
                latency_ms=np.zeros(len(ids), np.float32),
                outcome="ok",
                groups=None if groups is None else groups[start : start + len(ids)],
            )
        writer.close()
        if labels is not None:
            store.add_labels("m", [f"event-{number}" for number in range(len(samples))], list(labels))

    def retrain(self, *words: str) -> Result:
        return commands.run_command("retrain", [*self.words, *words])
