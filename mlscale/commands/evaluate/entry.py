"""Measure a model on its validation or test data: metrics with intervals, classes, slices, errors, calibration."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlscale.assembly.build import build
from mlscale.assembly.evaluation_pass import (
    WHOLE,
    Pass,
    check_slices,
    checkpoint_of,
    frozen_for,
    of_checkpoint,
    of_servable,
)
from mlscale.atomic_files import named_by
from mlscale.errors import MLScaleError
from mlscale.launch.start_notices import say
from mlscale.report import Result, keep
from mlscale.report.result_files import keep_in
from mlscale.runs.folder import RunFolder
from mlscale.secrets.mask import Masker, masked_output
from mlscale.versions.model_reference import resolve_reference
from mlscale.versions.trained_model import TrainedModel

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.evaluate.report_wording import Judged

_OF_THE_MODEL = ("ref", "checkpoint", "against", "to", "slices", "worst")


def run(cfg: DictConfig) -> Result:
    """Validate or test once, in this process; report the results; compare with another model, if one is named.

    Raises:
        MLScaleError: no such run, version or checkpoint; weights that do not fit the model; no such slices.
    """
    if cfg.worst < 0:
        raise MLScaleError(f"worst is {cfg.worst}", where="worst", why="it is a number of samples", fix="worst=0")
    # Before the pass, which may take minutes.
    check_slices(cfg)
    masker = Masker.of(cfg)
    # For `against`: `ref` has been resolved to a path before the config was composed.
    registry = build(cfg.get("registry"), "registry")
    subject = resolve_reference(cfg.ref, runs_dir=cfg.runs_dir, checkpoint=cfg.checkpoint, quiet=True)
    place = Place.of(cfg, subject)
    with masked_output(masker), named_by("to"):
        start = time.perf_counter()
        found = look(cfg, subject, place, masker)
        other = _other(cfg, registry, masker) if cfg.against else None
        told = _told(cfg, found, other)
        seconds = time.perf_counter() - start
        return place.keep(_result(cfg, subject, found, told, place, seconds), told, found)


@dataclass(frozen=True)
class Place:
    """The folder that results are written to.

    Attributes:
        folder: of the files.
        run: the run that keeps them; None for another folder.
    """

    folder: Path
    run: Path | None

    @classmethod
    def of(cls, cfg: DictConfig, subject: TrainedModel) -> Place:
        """Return the run's own folder, unless another is named or the model has no run."""
        if cfg.to:
            return cls(Path(cfg.to).expanduser().absolute(), None)
        if subject.run is not None:
            return cls(subject.run / "results", subject.run)
        # A servable or a version has no run folder here, and is never written to. `:` is not allowed in file names
        # everywhere.
        return cls(Path("evaluations", subject.label.replace(":", "-")).absolute(), None)

    @property
    def table(self) -> Path:
        return self.folder / "evaluate-samples.parquet"

    def keep(self, result: Result, told: Judged | None, found: Pass) -> Result:
        """Write the document, its page, and the contact sheet next to them."""
        from mlscale.atomic_files import make_folders, write_bytes
        from mlscale.report import Picture

        sheet = next((each for each in told.figures if isinstance(each, Picture)), None) if told else None
        if sheet is not None:
            make_folders(self.folder)
            write_bytes(self.folder / "evaluate-errors.png", sheet.png)
            result = replace(
                result, artifacts={**result.artifacts, "worst_errors": str(self.folder / "evaluate-errors.png")}
            )
        if self.run is not None:
            return keep(result, RunFolder.open(self.run))
        return keep_in(result, self.folder, f"evaluate · {found.called}")


def look(cfg: DictConfig, subject: TrainedModel, place: Place | None, masker: Masker) -> Pass:
    """Run one pass of a model over the split; its table of samples goes to `place`."""
    from mlscale.evaluate import samples_table as table
    from mlscale.evaluate.samples_table import SampleTable

    ready, trained_on = frozen_for(cfg, subject)
    devices = "one device" + (f", of the {trained_on} it was trained on" if trained_on > 1 else "")
    # The run may have been trained on a part of its data (debug=limit): an evaluation measures all of it, and reports
    # that.
    before, now = ({key: str(each.trainer.get(key)) for key in WHOLE} for each in (cfg, ready))  # 1 is not 1.0 here
    short = [f"trainer.{key}={value}" for key, value in before.items() if value != now[key]]
    if short:
        say([f"evaluate  all samples: {', '.join(short)} was for training"], masker)
    where = f"{ready.derived.accelerator} × 1 ({devices})"
    about = {"model": subject.version, "split": str(cfg.split), "data_version": ready.derived.data_version}
    open_table: Any = contextlib.nullcontext(None)
    if place is not None and table.there():
        open_table = SampleTable(place.table, about)
    elif place is not None:
        say(["evaluate  no table of samples: pip install 'mlscale[evaluate]'"], masker)
    if subject.servable is not None:
        say([f"evaluate  {subject.label}: its servable on {cfg.split}, cpu × 1, by ONNX Runtime"], masker)
        with open_table as rows:
            return of_servable(ready, subject.servable, subject.label, rows)
    path, instead = checkpoint_of(subject, cfg)
    if instead:
        say(["evaluate  the run has no best checkpoint (nothing was validated): the last one is measured"], masker)
    say([f"evaluate  {subject.label}: {path.name} on {cfg.split}, {where}"], masker)
    called = subject.label if subject.run is None else f"{path.name} of {subject.label}"
    with open_table as rows:
        found = of_checkpoint(ready, path, called, rows)
    if found.why:
        say([f"evaluate  the task's own metrics alone: {found.why}"], masker)
    return replace(found, checkpoint=path)


def _other(cfg: DictConfig, registry: Any, masker: Masker) -> Pass:
    """Return the pass of the model that the first is compared with, on its own config and any data that was typed."""
    from mlscale.assembly.ready import ready

    other = resolve_reference(str(cfg.against), runs_dir=cfg.runs_dir, registry=registry)
    # The other model keeps its own config; overrides that are not about the first model, such as other data, apply to
    # both.
    words = [word for word in cfg.derived.overrides or [] if word.lstrip("+~").partition("=")[0] not in _OF_THE_MODEL]
    its = ready("evaluate", [f"ref={other.path}", *words])
    return look(its, other, None, masker)


def _told(cfg: DictConfig, found: Pass, other: Pass | None) -> Judged | None:
    """Return the report on the samples, and on the comparison of two models; None if nothing was gathered."""
    from mlscale.evaluate.model_comparison import compare
    from mlscale.evaluate.report_wording import joined
    from mlscale.evaluate.task_report import judge

    # The comparison is paired: it needs both answers for each sample.
    if other is not None and (found.gathered is None or other.gathered is None):
        raise MLScaleError(
            "these two can't be compared sample by sample",
            where="against",
            why=found.why or other.why,
            fix="leave against out, or give the task a kind and predict_step: docs/evaluate.md",
        )
    for each in (found, other):
        if each is not None and each.gathered is not None and not len(each.gathered):
            raise MLScaleError(
                f"no sample of {each.called} was measured",
                where=f"split={cfg.split}",
                why=f"none could be read, or trainer.limit_{cfg.split}_batches leaves none",
                fix=f"trainer.limit_{cfg.split}_batches=1.0",
            )
    if found.gathered is None:
        return None
    told = judge(found.gathered, found.named, cfg.seed)
    if other is None or other.gathered is None:
        return told
    beside = compare(found.gathered, other.gathered, (found.called, other.called), cfg.seed)
    return joined(told, beside)


def _result(
    cfg: DictConfig, subject: TrainedModel, found: Pass, told: Judged | None, place: Place, seconds: float
) -> Result:
    metrics = dict(found.metrics)
    if told is not None:
        for name, value in told.metrics.items():
            # What the task logs itself stays, unless this metric has an interval: both must be of the same estimate.
            if f"{cfg.split}/{name}" not in metrics or f"{name}_low" in told.metrics:
                metrics[f"{cfg.split}/{name}"] = value
        sentence = f"{found.called} on {cfg.split}: " + "\n".join([told.headline, *told.remarks])
    else:
        headline = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items() if not name.startswith("data/"))
        sentence = f"{found.called}: {headline or 'the task logs no metric here'}"
    artifacts = {"run": str(subject.run)} if subject.run else {}
    if found.checkpoint is not None:
        artifacts["checkpoint"] = str(found.checkpoint)
    if subject.servable is not None:
        artifacts["servable"] = str(subject.servable)
    if place.table.is_file() and told is not None:
        artifacts["samples"] = str(place.table)
    return Result(
        verb="evaluate",
        ok=True,
        sentence=sentence,
        metrics={**metrics, "time_s": seconds},
        artifacts=artifacts,
        figures=told.figures if told else (),
        details=told.details if told else {},
    )
