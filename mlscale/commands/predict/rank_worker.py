"""One process of `mlscale predict`: builds the model on its device, and scores its parts; or several of them.

Write predictions as events, for monitoring: each once, also if a part is repeated.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mlscale.errors import Exit, MLScaleError
from mlscale.events.event_rows import EventBatch, EventSubject, build_event_tables
from mlscale.events.segments import SegmentAppender
from mlscale.events.stream_schema import join_tables
from mlscale.predict.score_parts import LoadedBatch
from mlscale.runs.identity import make_folder_name

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue

    from mlscale.data.encoders.encoder import Encoder
    from mlscale.export.engines.runtime import Runtime
    from mlscale.export.servable import Servable
    from mlscale.export.torch_predictor import TorchModel
    from mlscale.predict.batch_models import BatchModel
    from mlscale.predict.input_items import Inputs
    from mlscale.predict.part_files import PredictionParts
    from mlscale.predict.score_parts import Progress

_LISTEN_SECONDS = 0.5
_rows: SimpleQueue[tuple[int, int]]  # of this process: its progress


@dataclass(frozen=True)
class PredictWork:
    """The data that every process needs; plain values, so that it can be sent to them.

    Attributes:
        inputs: arguments of `open_inputs`.
        folder: of the predictions.
        servable: its folder; None for a checkpoint.
        config: of the model's run as YAML, with what was derived; None for a servable.
        encoder: the document of the run's encoder; None for a servable, and where the run's data brings it.
        checkpoint: the file; None for a servable.
        accelerator: cpu, cuda or mps.
        threads: CPU threads of one process that compute.
        readers: threads that read.
        batch: inputs that are computed at once.
        probabilities: keep those of every class.
        events: the folder of events; None for none.
        runtime: what computes a servable.
        model, version: by which events are kept.
    """

    inputs: Mapping[str, Any]
    folder: str
    servable: str | None
    config: str | None
    encoder: Mapping[str, Any] | None
    checkpoint: str | None
    accelerator: str
    threads: int
    readers: int
    batch: int
    probabilities: bool
    events: str | None
    model: str
    version: str
    runtime: Runtime


def score_rank_parts(
    work: PredictWork, parts: PredictionParts, inputs: Inputs, rank: int, world_size: int, progress: Progress
) -> None:
    """Score the parts of one rank that do not exist yet.

    Raises:
        MLScaleError: the model can't be built, or rows can't be written.
    """
    from mlscale.export.event_subject import build_event_subject
    from mlscale.predict.score_parts import score_parts

    # With several processes only the existence is checked: `done` reads every part and removes those of other
    # predictions, which the launching process has done already.
    done = (
        parts.find_complete_parts()
        if world_size == 1
        else {part for part in range(len(parts)) if parts.get_part_path(part).is_file()}
    )
    todo = [part for part in parts.list_rank_parts(rank, world_size) if part not in done]
    # Before the model is built, which takes seconds.
    if not todo:
        return
    model = build_model(work, rank)
    _check_inputs(model.encoder)
    events = None
    if work.events is not None:
        subject = build_event_subject(cast("Servable | TorchModel", model), work.version, "predict")
        created = str(parts.document["created"])
        token = str(parts.document["inputs"]["digest"])[:6]
        events = PartEvents(Path(work.events), work.model, subject, created, token)
    score_parts(
        inputs,
        model,
        parts,
        todo,
        batch_size=work.batch,
        workers=work.readers,
        probabilities=work.probabilities,
        progress=progress,
        events=events,
    )


def _check_inputs(encoder: Encoder) -> None:
    """Check that a stored input can be a sample of the model.

    Raises:
        MLScaleError: the model takes several tensors, which no file or row holds.
    """
    if encoder.kind == "tensor" and len(encoder.inputs) > 1:
        shapes = ", ".join(f"{spec.name} {spec.shape}" for spec in encoder.inputs)
        arrays = ", ".join(f'"{spec.name}": {spec.name}' for spec in encoder.inputs)
        raise MLScaleError(
            "the model takes several tensors",
            where="input",
            why=f"a file or a row holds one; these are: {shapes}",
            fix=f'mlscale.load("last").predict([{{{arrays}}}]), in Python',
        )


def build_model(work: PredictWork, rank: int = 0) -> BatchModel:
    """Return the servable, or the trained task on the rank's device."""
    if work.servable is not None:
        from mlscale.export.servable_trial import load_with_runtime

        return load_with_runtime(Path(work.servable), work.runtime)
    from omegaconf import OmegaConf

    from mlscale.assembly.trained_model.prediction_model import build_prediction_model

    assert work.config is not None
    assert work.checkpoint is not None
    cfg: Any = OmegaConf.create(work.config)
    cfg.derived.threads = work.threads
    return build_prediction_model(
        cfg,
        Path(work.checkpoint),
        work.encoder,
        where=work.model,
        device=work.accelerator if work.accelerator != "cuda" else f"cuda:{rank}",
        precision=str(cfg.precision.value),
        batch=work.batch,
    )


def score_in_processes(work: PredictWork, world_size: int, progress: Progress) -> None:
    """Score in `world_size` processes, each its own parts; they are independent of each other.

    Raises:
        MLScaleError: the error of one of them, or one died (exit code 5). The others are ended: what they have
            committed stays.
    """
    # Not fork: the parent may have started threads, whose locks a forked child would inherit. Not spawn: each child
    # would import torch again.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlscale.assembly.preload"] if work.servable is None else ["numpy", "pyarrow"])
    rows: Any = context.SimpleQueue()  # whose rows are there before a process reports its end
    pool = ProcessPoolExecutor(world_size, context, _begin_rank, (os.getpid(), dict(os.environ), rows))
    try:
        pending = {pool.submit(_score_rank, work, rank, world_size) for rank in range(world_size)}
        while pending:
            done, pending = wait(pending, _LISTEN_SECONDS, FIRST_COMPLETED)
            while not rows.empty():
                progress(*rows.get())
            for future in done:
                future.result()
    except BrokenProcessPool as error:
        raise MLScaleError(
            f"one of {world_size} processes died",
            why="out of memory, perhaps, or it was killed",
            fix="batch=16, which takes less memory: the command resumes with what is missing",
            exit=Exit.ENVIRONMENT,
        ) from error
    finally:
        for child in multiprocessing.active_children():
            child.terminate()
        pool.shutdown()


def _begin_rank(launcher: int, environment: Mapping[str, str], rows: SimpleQueue[tuple[int, int]]) -> None:
    global _rows
    from mlscale.assembly.worker import end_with
    from mlscale.runs.host.processes import unblock_stop_signals

    # First: an orphaned process must not continue to write parts.
    end_with(launcher)
    unblock_stop_signals()  # of a fork server that a training has started
    # The fork server has the environment of its own start, which may be older.
    os.environ.update({name: value for name, value in environment.items() if name not in os.environ})
    _rows = rows


def _score_rank(work: PredictWork, rank: int, world_size: int) -> None:
    from mlscale.culprit import wrap_unforeseen_error
    from mlscale.predict.inputs import open_inputs
    from mlscale.predict.part_files import resume_predictions

    try:
        inputs = open_inputs(**work.inputs)
        parts = resume_predictions(Path(work.folder), inputs.digest)
        score_rank_parts(work, parts, inputs, rank, world_size, lambda *counts: _rows.put(counts))
    except MLScaleError:
        raise
    except Exception as error:
        raise wrap_unforeseen_error(error, f"rank {rank}") from error


class PartEvents:
    """The events of a set of predictions, by part; their ids are the keys of the inputs, by which labels are joined.

    A part's events are one segment, whose name follows from the predictions and the part, and whose time is the start
    of the predictions: a repeated part replaces it.

    Args:
        root: the folder of events.
        model: its name.
        subject: the version that predicts.
        created: start of the predictions, ISO 8601.
        token: identifies these predictions; hexadecimal.
    """

    def __init__(self, root: Path, model: str, subject: EventSubject, created: str, token: str) -> None:
        self._appender = SegmentAppender(root / make_folder_name(model) / "events", "event", writer=f"0.{token}")
        self._model, self._subject = model, subject
        self._time_us = int(datetime.fromisoformat(created).timestamp() * 1e6)
        self._tables: list[Any] = []

    def record_batch(self, loaded: LoadedBatch, predictions: dict[str, Any], seconds: float) -> None:
        """Add a batch with its predictions, and the seconds that they took."""
        good = [key for key, error in zip(loaded.keys, loaded.errors, strict=True) if not error]
        bad = [key for key, error in zip(loaded.keys, loaded.errors, strict=True) if error]
        # A batch is computed at once: each of its inputs gets an equal share of the time.
        latency = np.full(len(good), 1000 * seconds / max(1, len(good)), np.float32)
        if good:
            self._append_batch(
                EventBatch(good, self._time_us, self._subject, loaded.packed, predictions, None, latency, "ok")
            )
        if bad:
            nothing = np.zeros(len(bad), np.float32)
            self._append_batch(EventBatch(bad, self._time_us, self._subject, None, None, None, nothing, "rejected"))

    def write_part_events(self, part: int) -> None:
        """Write the events of a part; they are on disk when this returns.

        Raises:
            MLScaleError: the folder can't be written to (exit code 5).
        """
        self._appender.write_segment(join_tables(self._tables), part)
        self._tables = []

    def _append_batch(self, batch: EventBatch) -> None:
        self._tables += build_event_tables(self._model, [batch], 0.0)
