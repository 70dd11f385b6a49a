"""Score many inputs with a model: one row for each, also when a process is killed and the command is repeated."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mlscale.atomic_files import named_by
from mlscale.commands.predict.rank_worker import Work, work_of_rank
from mlscale.errors import MLScaleError
from mlscale.export.required_extras import need
from mlscale.launch.start_notices import say
from mlscale.report import Result, Table
from mlscale.report.text import percent
from mlscale.secrets.mask import Masker, masked_output
from mlscale.versions.model_reference import resolve_reference
from mlscale.versions.trained_model import TrainedModel

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.predict.input_items import Inputs
    from mlscale.predict.part_files import Parts

_SHOWN_CLASSES = 20


def run(cfg: DictConfig) -> Result:
    """Find model and inputs, begin or resume, score in one process or several, and count the rows.

    Raises:
        MLScaleError: no such model or input; the folder holds other predictions; a process died (exit code 5); pyarrow
            or onnxruntime is not installed (exit code 5).
    """
    need("predict", "pyarrow")
    from mlscale.predict.inputs import open_inputs
    from mlscale.predict.part_files import alone, begin, summary
    from mlscale.runs.identity import now

    masker = Masker.of(cfg)
    subject = resolve_reference(cfg.ref, runs_dir=cfg.runs_dir, checkpoint=cfg.checkpoint, quiet=True)
    with masked_output(masker):
        work, model, world_size = prepared(cfg, subject)
        inputs = open_inputs(**work.inputs)
        # One process per folder: two would write the same parts.
        with named_by("to"), alone(Path(work.folder)):
            parts = begin(
                Path(work.folder),
                model=model,
                inputs={"spec": str(cfg.input), "digest": inputs.digest, "rows": len(inputs)},
                # Kept in the manifest: a folder is only resumed with the settings that its rows were written with.
                answers=_asked(cfg),
                created=now(),
                part_rows=None if cfg.part_rows is None else _positive(cfg.part_rows, "part_rows"),
                overwrite=cfg.overwrite,
            )
            # Temporary files of a killed process; the lock is held, so no other process is writing.
            parts.tidy()
            before = sum(len(parts.span(part)) for part in parts.done())
            say(_start(subject, inputs, parts, before, world_size, work), masker)
            start = time.perf_counter()
            _score(work, parts, inputs, world_size, before)
            seconds = time.perf_counter() - start
            # Counted from the files, not from this process's work: parts may be of an earlier, killed one.
            found = summary(parts)
            parts.finish(**found)
    return _result(cfg, subject, parts, found, before, seconds, world_size)


def prepared(cfg: DictConfig, subject: TrainedModel) -> tuple[Work, dict[str, Any], int]:
    """Return the work of the processes, the manifest's entry about the model, and the number of processes."""
    # The cores that this process may use, which a scheduler or a container may have limited.
    world_size, cores = _devices(cfg), len(os.sched_getaffinity(0))
    common: dict[str, Any] = {
        "inputs": {
            "spec": cfg.input if isinstance(cfg.input, str) else [str(word) for word in cfg.input],
            "member": cfg.member,
            "key": cfg.key,
            "columns": tuple(cfg.columns),
            "encoded": subject.servable is None and _encodes(cfg),
        },
        "folder": str(Path(cfg.to).expanduser().absolute()),
        "threads": max(1, int(os.environ.get("OMP_NUM_THREADS") or cores // world_size)),
        # Threads that read and decode ahead of the model.
        "readers": _readers(cfg.readers, cores, world_size),
        "batch": _positive(cfg.batch, "batch"),
        "probabilities": bool(cfg.probabilities),
        "events": str(Path(cfg.events).expanduser().absolute()) if cfg.events else None,
        "model": subject.name,
        "version": subject.version,
    }
    of = _servable(subject) if subject.servable is not None else _checkpoint(cfg, subject)
    # Each process takes one device. A CPU is shared by any number of processes.
    if of.accelerator != "cpu" and (found := _devices_there(of.accelerator)) < world_size:
        raise MLScaleError(
            f"this machine has {found} {of.accelerator} device(s), {world_size} were asked for",
            where=f"trainer.devices={world_size}",
            fix=f"trainer.devices={found}, or trainer.accelerator=cpu",
        )
    work = Work(servable=of.servable, config=of.config, checkpoint=of.file, accelerator=of.accelerator, **common)
    version = replace(work, version=of.version or subject.version)
    return version, {"version": version.version, "digest": of.digest}, world_size


def _asked(cfg: DictConfig) -> dict[str, Any]:
    """Return the settings that rows depend on besides model and inputs. Events are of all rows or of none: those of an
    existing part are not written any more.
    """
    asked = {"probabilities": bool(cfg.probabilities), "member": cfg.member, "key": cfg.key}
    return {**asked, "events": True} if cfg.events else asked


def _encodes(cfg: DictConfig) -> bool:
    """Return whether the run's data module encodes the columns of tables."""
    from mlscale.config.targets import target
    from mlscale.data.tables.table_rows import TabularData

    kind = target(cfg.data) if cfg.get("data") else None
    return isinstance(kind, type) and issubclass(kind, TabularData)


def _devices_there(accelerator: str) -> int:
    from mlscale.launch.local_devices import this_machine

    return this_machine().count(accelerator) or 1


class _Of(NamedTuple):
    """A reference to a model by which processes find it again."""

    digest: str
    accelerator: str = "cpu"
    servable: str | None = None
    config: str | None = None
    file: str | None = None
    version: str | None = None


def _servable(subject: TrainedModel) -> _Of:
    from mlscale.atomic_files import sha256
    from mlscale.contracts.servable_yaml import DOCUMENT

    assert subject.servable is not None
    return _Of(sha256(subject.servable / DOCUMENT), servable=str(subject.servable))


def _checkpoint(cfg: DictConfig, subject: TrainedModel) -> _Of:
    """Return a checkpoint and the config that its model is built from."""
    from omegaconf import OmegaConf

    from mlscale.assembly.evaluation_pass import checkpoint_of
    from mlscale.assembly.rebuild import Home, as_it_was_trained
    from mlscale.atomic_files import sha256
    from mlscale.runs.recover import DERIVED, yaml_values

    assert subject.home is not None
    path, _ = checkpoint_of(subject, cfg)
    derived = yaml_values(subject.home / DERIVED)
    ready = as_it_was_trained(cfg, Home(subject.home, derived))
    # The content names the version: `best` may mean another file after the run is resumed.
    digest = sha256(path)
    version = subject.version if subject.run is None else f"{subject.name}:{digest[:12]}"
    return _Of(digest, str(ready.derived.accelerator), None, OmegaConf.to_yaml(ready), str(path), version)


def _score(work: Work, parts: Parts, inputs: Inputs, world_size: int, before: int) -> None:
    from mlscale.commands.predict.worker_processes import spread
    from mlscale.predict.progress_bar import Bar

    with Bar(len(inputs), before) as bar:
        if world_size == 1:
            work_of_rank(work, parts, inputs, 0, 1, bar.add)
        else:
            spread(work, world_size, bar.add)


def _devices(cfg: DictConfig) -> int:
    """Return the number of processes that was typed; one by default, however many trained the model."""
    # The frozen config of the run has its number of devices, which does not matter here.
    typed = any(word.lstrip("+").startswith("trainer.devices=") for word in cfg.derived.overrides or [])
    return _positive(cfg.trainer.devices, "trainer.devices") if typed else 1


def _positive(value: Any, key: str) -> int:
    if isinstance(value, bool) or not str(value).isdigit() or int(value) < 1:
        raise MLScaleError(f"{key} is {value!r}", where=key, why="it is a whole number from 1", fix=f"{key}=1")
    return int(value)


def _readers(value: Any, cores: int, world_size: int) -> int:
    if value == "auto":
        return max(1, min(8, cores // world_size))
    return 0 if str(value) == "0" else _positive(value, "readers")


def _start(subject: TrainedModel, inputs: Inputs, parts: Parts, before: int, world_size: int, work: Work) -> list[str]:
    by = "by ONNX Runtime" if work.servable else "by torch"
    lines = [
        f"predict   {work.version} over {len(inputs):,} inputs, {by}, {work.accelerator} × {world_size}, "
        f"{len(parts):,} parts of {parts.part_rows:,}"
    ]
    if before:
        lines.append(f"predict   goes on: {before:,} of them are there")
    return lines


def enough_read(rows: int, errors: int, max_errors: int | None) -> bool:
    """Return whether at most `max_errors` inputs were unreadable, and at least one was read."""
    return errors < max(rows, 1) and (max_errors is None or errors <= max_errors)


def _result(
    cfg: DictConfig,
    subject: TrainedModel,
    parts: Parts,
    found: dict[str, Any],
    before: int,
    seconds: float,
    world_size: int,
) -> Result:
    rows, errors = found["rows"], found["errors"]
    new = rows - before
    sentence = f"{subject.label}: {rows:,} inputs, one row each"
    if before:
        sentence += f", {before:,} of them from before" if new else ", all of them from before"
    if errors:
        sentence += f"; {errors:,} could not be read, such as {found['first_errors'][0]}"
    # By count, then by name: ties must not change their order from run to run.
    counts = sorted(found["predicted"].items(), key=lambda pair: (-pair[1], pair[0]))
    shown = [(name, f"{count:,}", percent(count / (rows - errors), 1)) for name, count in counts[:_SHOWN_CLASSES]]
    return Result(
        verb="predict",
        ok=enough_read(rows, errors, cfg.max_errors),
        sentence=sentence,
        metrics={
            "rows": rows,
            "errors": errors,
            "new_rows": new,
            # Only of rows of this call: those from before took no time.
            **({"throughput_samples_per_s": new / seconds} if new else {}),
            "processes": world_size,
            "parts": len(parts),
            "time_s": seconds,
        },
        artifacts={"predictions": str(parts.folder), **({"events": str(cfg.events)} if cfg.events else {})},
        figures=[Table("What was predicted", ("class", "inputs", "share"), shown, terminal=True)] if shown else [],
        details={"predicted": found["predicted"], "first_errors": found["first_errors"]},
    )
