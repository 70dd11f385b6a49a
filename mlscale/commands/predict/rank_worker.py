"""One process of `mlscale predict`: builds the model on its device, and scores its parts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlscale.errors import MLScaleError

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

    from mlscale.predict.batch_models import BatchModel
    from mlscale.predict.input_items import Inputs
    from mlscale.predict.part_files import PredictionParts
    from mlscale.predict.score_parts import Progress


@dataclass(frozen=True)
class PredictWork:
    """The data that every process needs; plain values, so that it can be sent to them.

    Attributes:
        inputs: arguments of `open_inputs`.
        folder: of the predictions.
        servable: its folder; None for a checkpoint.
        config: of the model's run as YAML, with what was derived; None for a servable.
        checkpoint: the file; None for a servable.
        accelerator: cpu, cuda or mps.
        threads: CPU threads of one process that compute.
        readers: threads that read.
        batch: inputs that are computed at once.
        probabilities: keep those of every class.
        events: the folder of events; None for none.
        model, version: by which events are kept.
    """

    inputs: Mapping[str, Any]
    folder: str
    servable: str | None
    config: str | None
    checkpoint: str | None
    accelerator: str
    threads: int
    readers: int
    batch: int
    probabilities: bool
    events: str | None
    model: str
    version: str


def score_rank_parts(
    work: PredictWork, parts: PredictionParts, inputs: Inputs, rank: int, world_size: int, progress: Progress
) -> None:
    """Score the parts of one rank that do not exist yet.

    Raises:
        MLScaleError: the model can't be built, or rows can't be written.
    """
    from mlscale.predict.predicted_events import PartEvents
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
    events = None
    if work.events is not None:
        if not model.task_type.is_one_class:
            raise MLScaleError(
                f"events are predictions of classes, and this is a model of {model.task_type.name}",
                where="events",
                fix="leave events out",
            )
        if not work.probabilities:
            raise MLScaleError(
                "events hold the probabilities of every class", where="probabilities=false", fix="probabilities=true"
            )
        created = str(parts.document["created"])
        token = str(parts.document["inputs"]["digest"])[:6]
        events = PartEvents(Path(work.events), work.model, work.version, created, token)
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


def build_model(work: PredictWork, rank: int = 0) -> BatchModel:
    """Return the servable, or the trained task on the rank's device."""
    from mlscale.predict.batch_models import ServableModel

    if work.servable is not None:
        return ServableModel.load(Path(work.servable), work.threads)
    import torch
    from omegaconf import OmegaConf

    from mlscale.assembly.rebuild import rebuild_data_and_task
    from mlscale.assembly.run_data import RunData
    from mlscale.data.data_module import OrderedData
    from mlscale.data.images.labelled_images import ImageData
    from mlscale.encoders.encoder import Encoder
    from mlscale.encoders.tensor_encoder import TensorEncoder
    from mlscale.evaluate.collect_predictions import find_measured_type
    from mlscale.predict.torch_batches import TaskModel

    assert work.config is not None
    assert work.checkpoint is not None
    cfg: Any = OmegaConf.create(work.config)
    cfg.derived.threads = work.threads
    data, task = rebuild_data_and_task(cfg, Path(work.checkpoint), "validate", RunData())
    torch.set_num_threads(work.threads)
    task_type = find_measured_type(task)
    facts = data.facts() if hasattr(data, "facts") else None
    image = facts is not None and facts.height is not None and len(facts.sample) == 3
    if task_type is None or facts is None or (image and not isinstance(data, ImageData)):
        raise MLScaleError(
            "how a file becomes an input of this model is its own code's business",
            where="task, data",
            why="the task has no kind and predict_step"
            if task_type is None
            else "the data module prepares samples itself",
            fix="mlscale export makes a servable of it: mlscale predict <its folder> takes what that takes",
        )
    if task_type.needs_truth:
        raise MLScaleError(
            "texts are not scored by a language model yet",
            where="input",
            why="how a text becomes tokens is its data module's own",
            fix="mlscale evaluate <the run> measures it on its own data, with a row for each sequence",
        )
    names = facts.class_names or tuple(map(str, range(facts.num_classes or 0)))
    device = work.accelerator if work.accelerator != "cuda" else f"cuda:{rank}"
    # The samples of a third-party data module are tensors already.
    tensors = TensorEncoder.from_shape(facts.sample, facts.dtype)
    encoder: Encoder = data.encoder() if isinstance(data, OrderedData) else tensors
    return TaskModel(
        task,
        task_type,
        encoder=encoder,
        labels=tuple(map(str, names)),
        device=device,
        precision=str(cfg.precision.value),
    )


def rank_main(
    work: PredictWork, rank: int, world_size: int, launcher: int, environment: Mapping[str, str], messages: Queue[Any]
) -> None:
    """Run a process that the command started; its progress and its error go into a queue."""
    from mlscale.assembly.worker import end_with
    from mlscale.predict.inputs import open_inputs
    from mlscale.predict.part_files import resume_predictions

    # First: an orphaned process must not continue to write parts.
    end_with(launcher)
    # The fork server has the environment of its own start, which may be older.
    os.environ.update({name: value for name, value in environment.items() if name not in os.environ})
    try:
        inputs = open_inputs(**work.inputs)
        parts = resume_predictions(Path(work.folder), inputs.digest)
        score_rank_parts(
            work, parts, inputs, rank, world_size, lambda rows, errors: messages.put(("rows", rows, errors))
        )
        messages.put(("done", rank, 0))
    except MLScaleError as error:
        # Plain values instead of the exception: the queue pickles them.
        fields = {name: getattr(error, name) for name in ("what", "where", "why", "fix")}
        messages.put(("error", rank, {**fields, "exit": int(error.exit)}))
    except Exception as error:
        from mlscale.culprit import wrap_unforeseen_error

        problem = wrap_unforeseen_error(error, f"rank {rank}")
        fields = {name: getattr(problem, name) for name in ("what", "where", "why", "fix")}
        messages.put(("error", rank, {**fields, "exit": int(problem.exit)}))
