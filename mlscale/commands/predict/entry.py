"""Score many inputs with a model: one row for each, also when a process is killed and the command is repeated.

Show the progress of batch scoring: a progress bar on a terminal, else a line every 30 seconds.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mlscale.atomic_files import report_path_setting
from mlscale.commands.predict.rank_worker import PredictWork, score_in_processes, score_rank_parts
from mlscale.data.table_parsing.table_form import TableForm
from mlscale.errors import MLScaleError
from mlscale.export.engines.execution_provider import CPU
from mlscale.export.engines.runtime import build_runtime
from mlscale.export.required_extras import require_extra
from mlscale.launch.start_notices import print_masked_lines
from mlscale.predict.input_items import read_trained_column
from mlscale.report import Result, TableBlock
from mlscale.report.sample_bar import SampleProgressBar
from mlscale.report.text import format_count, format_duration, format_percent
from mlscale.secrets.mask import Masker, mask_output
from mlscale.versions.model_reference import resolve_reference
from mlscale.versions.trained_model import TrainedModel

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.predict.input_items import Inputs
    from mlscale.predict.part_files import PredictionParts

_MAX_SHOWN_CLASSES = 20


def run(cfg: DictConfig) -> Result:
    """Find model and inputs, begin or resume, score in one process or several, and count the rows.

    Raises:
        MLScaleError: no such model or input; the folder holds other predictions; a process died (exit code 5); pyarrow
            or onnxruntime is not installed (exit code 5).
    """
    require_extra("predict", "pyarrow")
    from mlscale.predict.inputs import open_inputs
    from mlscale.predict.part_files import lock_predictions, start_predictions, summarize_parts
    from mlscale.runs.identity import get_current_time

    masker = Masker.create_for_run(cfg)
    subject = resolve_reference(cfg.ref, runs_dir=cfg.runs_dir, checkpoint=cfg.checkpoint, quiet=True)
    with mask_output(masker):
        work, model, world_size = prepare_work(cfg, subject)
        inputs = open_inputs(**work.inputs)
        # One process per folder: two would write the same parts.
        with report_path_setting("to"), lock_predictions(Path(work.folder)):
            parts = start_predictions(
                Path(work.folder),
                model=model,
                inputs={"spec": str(cfg.input), "digest": inputs.digest, "rows": len(inputs)},
                # Kept in the manifest: a folder is only resumed with the settings that its rows were written with.
                answers=_collect_row_settings(cfg),
                created=get_current_time(),
                part_rows=cfg.part_rows,
                overwrite=cfg.overwrite,
            )
            # Temporary files of a killed process; the lock is held, so no other process is writing.
            parts.remove_unfinished()
            before = sum(len(parts.get_row_range(part)) for part in parts.find_complete_parts())
            print_masked_lines(_format_predict_start(subject, inputs, parts, before, world_size, work), masker)
            start = time.perf_counter()
            _score_inputs(work, parts, inputs, world_size, before)
            seconds = time.perf_counter() - start
            # Counted from the files, not from this process's work: parts may be of an earlier, killed one.
            totals = summarize_parts(parts)
            parts.mark_complete(**totals)
    return _build_predict_result(cfg, subject, parts, totals, before, seconds, world_size)


def prepare_work(cfg: DictConfig, subject: TrainedModel) -> tuple[PredictWork, dict[str, Any], int]:
    """Return the work of the processes, the manifest's entry about the model, and the number of processes."""
    # The cores that this process may use, which a scheduler or a container may have limited.
    world_size, cores = _resolve_process_count(cfg), len(os.sched_getaffinity(0))
    threads = max(1, int(os.environ.get("OMP_NUM_THREADS") or cores // world_size))
    runtime = build_runtime(cfg, threads=threads)
    if runtime.provider != CPU and subject.servable is None:
        raise MLScaleError(
            f"{subject.label} is a checkpoint, which torch computes",
            where=f"provider={runtime.provider}",
            fix="trainer.accelerator=gpu, for a GPU\nmlscale export <its run>, and the servable's folder as ref",
        )
    source = _locate_servable(subject) if subject.servable is not None else _locate_checkpoint(cfg, subject)
    common: dict[str, Any] = {
        "inputs": {
            "spec": cfg.input if isinstance(cfg.input, str) else [str(word) for word in cfg.input],
            "member": cfg.member,
            "key": cfg.key,
            "columns": tuple(cfg.columns),
            "kind": source.kind,
            "trained_on": read_trained_column(subject.home),
            "form": source.form,
        },
        "folder": str(Path(cfg.to).expanduser().absolute()),
        "threads": threads,
        "runtime": runtime,
        # Threads that read and decode ahead of the model.
        "readers": _resolve_reader_count(cfg.readers, cores, world_size),
        "batch": cfg.batch,
        "probabilities": bool(cfg.probabilities),
        "events": str(Path(cfg.events).expanduser().absolute()) if cfg.events else None,
        "model": subject.name,
        "version": subject.version,
    }
    # Each process takes one device. A CPU is shared by any number of processes.
    if source.accelerator != "cpu" and (available := _count_available_devices(source.accelerator)) < world_size:
        raise MLScaleError(
            f"this machine has {available} {source.accelerator} device(s), {world_size} were asked for",
            where=f"trainer.devices={world_size}",
            fix=f"trainer.devices={available}\ntrainer.accelerator=cpu",
        )
    work = PredictWork(
        servable=source.servable,
        config=source.config,
        encoder=source.encoder,
        checkpoint=source.file,
        accelerator=source.accelerator,
        **common,
    )
    version = replace(work, version=source.version or subject.version)
    return version, {"version": version.version, "digest": source.digest}, world_size


def _collect_row_settings(cfg: DictConfig) -> dict[str, Any]:
    """Return the settings that rows depend on besides model and inputs. Events are of all rows or of none: those of an
    existing part are not written any more.
    """
    settings = {"probabilities": bool(cfg.probabilities), "member": cfg.member, "key": cfg.key}
    return {**settings, "events": True} if cfg.events else settings


def _count_available_devices(accelerator: str) -> int:
    from mlscale.launch.local_devices import detect_local_devices

    return detect_local_devices().count_devices(accelerator) or 1


class _ModelSource(NamedTuple):
    """A reference to a model by which processes find it again."""

    digest: str
    kind: str
    form: TableForm
    accelerator: str = "cpu"
    servable: str | None = None
    config: str | None = None
    encoder: Mapping[str, Any] | None = None
    file: str | None = None
    version: str | None = None


def _locate_servable(subject: TrainedModel) -> _ModelSource:
    from mlscale.atomic_files import compute_sha256
    from mlscale.contracts.servable_yaml import DOCUMENT, read_document

    assert subject.servable is not None
    encoder = read_document(subject.servable).get("encoder")
    # Format 1 has none.
    encoder = encoder if isinstance(encoder, Mapping) else {}
    kind, form = str(encoder.get("kind", "")), TableForm.parse(encoder.get("settings", {}))
    return _ModelSource(compute_sha256(subject.servable / DOCUMENT), kind, form, servable=str(subject.servable))


def _locate_checkpoint(cfg: DictConfig, subject: TrainedModel) -> _ModelSource:
    """Return a checkpoint and the config that its model is built from."""
    from omegaconf import OmegaConf

    from mlscale.assembly.trained_model.evaluation_pass import choose_checkpoint
    from mlscale.assembly.trained_model.prediction_model import restore_prediction_config
    from mlscale.runs.initial_source import compute_weights_digest

    assert subject.home is not None
    path, _ = choose_checkpoint(subject, cfg)
    restored = restore_prediction_config(cfg, subject.home)
    # The content names the version: `best` may mean another file after the run is resumed.
    digest = compute_weights_digest(path)
    version = subject.version if subject.run is None else f"{subject.name}:{digest[:12]}"
    return _ModelSource(
        digest,
        restored.kind,
        TableForm.parse((restored.encoder or {}).get("settings", {})),
        str(restored.cfg.derived.accelerator),
        config=OmegaConf.to_yaml(restored.cfg),
        encoder=restored.encoder,
        file=str(path),
        version=version,
    )


def _score_inputs(work: PredictWork, parts: PredictionParts, inputs: Inputs, world_size: int, before: int) -> None:

    with ScoringProgressBar(len(inputs), before) as bar:
        if world_size == 1:
            score_rank_parts(work, parts, inputs, 0, 1, bar.add_rows)
        else:
            score_in_processes(work, world_size, bar.add_rows)


def _resolve_process_count(cfg: DictConfig) -> int:
    """Return the number of processes that was typed; one by default, however many trained the model."""
    # The frozen config of the run has its number of devices, which does not matter here.
    typed = any(word.lstrip("+").startswith("trainer.devices=") for word in cfg.derived.overrides or [])
    if typed and not str(cfg.trainer.devices).isdigit():
        why, fix = "predict takes a number of processes", "trainer.devices=1"
        raise MLScaleError(f"trainer.devices is {cfg.trainer.devices}", where="trainer.devices", why=why, fix=fix)
    return int(cfg.trainer.devices) if typed else 1


def _resolve_reader_count(value: int | str, cores: int, world_size: int) -> int:
    if value == "auto":
        return max(1, min(8, cores // world_size))
    return int(value)


def _format_predict_start(
    subject: TrainedModel, inputs: Inputs, parts: PredictionParts, before: int, world_size: int, work: PredictWork
) -> list[str]:
    by = f"by {_name_runtime(work)}" if work.servable else "by torch"
    lines = [
        f"predict   {work.version} over {format_count(len(inputs), 'input')}, {by}, {work.accelerator} × {world_size}, "
        f"{len(parts):,} parts of {parts.part_rows:,}"
    ]
    if before:
        lines.append(f"predict   resumes: {before:,} of them exist")
    return lines


def _name_runtime(work: PredictWork) -> str:
    return "ONNX Runtime" + ("" if work.runtime.provider == CPU else f" ({work.runtime.provider})")


def has_read_enough(rows: int, errors: int, max_errors: int | None) -> bool:
    """Return whether at most `max_errors` inputs were unreadable, and at least one was read."""
    return errors < max(rows, 1) and (max_errors is None or errors <= max_errors)


def _build_predict_result(
    cfg: DictConfig,
    subject: TrainedModel,
    parts: PredictionParts,
    totals: dict[str, Any],
    before: int,
    seconds: float,
    world_size: int,
) -> Result:
    rows, errors = totals["rows"], totals["errors"]
    new = rows - before
    sentence = f"{subject.label}: {format_count(rows, 'input')}, one row each"
    if before:
        sentence += f", {before:,} of them from before" if new else ", all of them from before"
    if errors:
        sentence += f"; {errors:,} could not be read, such as {totals['first_errors'][0]}"
    # By count, then by name: ties must not change their order from run to run.
    counts = sorted(totals["predicted"].items(), key=lambda pair: (-pair[1], pair[0]))
    shown = [
        (name, f"{count:,}", format_percent(count / (rows - errors), 1)) for name, count in counts[:_MAX_SHOWN_CLASSES]
    ]
    return Result(
        command="predict",
        ok=has_read_enough(rows, errors, cfg.max_errors),
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
        figures=[TableBlock("What was predicted", ("class", "inputs", "share"), shown, terminal=True)] if shown else [],
        details={"predicted": totals["predicted"], "first_errors": totals["first_errors"]},
    )


_LINES_EVERY_S = 30.0  # few enough lines for a log file of a long job


class ScoringProgressBar(SampleProgressBar):
    """A progress bar of rows, on standard error.

    Args:
        total: number of all rows.
        before: rows among them that were done by an earlier command.
    """

    def __init__(self, total: int, before: int) -> None:
        super().__init__(total, unit="input", before=before)
        self._done, self._errors = before, 0
        self._started = self._printed = time.monotonic()

    def add_rows(self, rows: int, errors: int) -> None:
        """Add rows that are done, and the number of them that could not be read."""
        self._done, self._errors = self._done + rows, self._errors + errors
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self._errors:,} unreadable" if self._errors else "", refresh=False)
            self._bar.update(rows)
            return
        now = time.monotonic()
        if now - self._printed >= _LINES_EVERY_S:
            self._printed = now
            # Rows of an earlier command do not count for the rate.
            rate = (self._done - self._before) / (now - self._started)
            left = format_duration((self._total - self._done) / rate) if rate else "?"
            print(
                f"predict   {self._done:,} of {self._total:,}, {rate:,.0f}/s, {left} left", file=sys.stderr, flush=True
            )
