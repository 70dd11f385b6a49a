"""Measure a model on its validation or test data: metrics with intervals, classes, slices, errors, calibration."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlscale.assembly.build import build
from mlscale.assembly.run_data import RunData
from mlscale.assembly.trained_model.evaluation_pass import (
    FULL_SPLIT_SETTINGS,
    EvaluationPass,
    check_slices,
    choose_checkpoint,
    evaluate_checkpoint,
    evaluate_servable,
    prepare_evaluation_config,
)
from mlscale.atomic_files import report_path_setting
from mlscale.errors import MLScaleError
from mlscale.evaluate import slices
from mlscale.evaluate import worst_samples as worst
from mlscale.evaluate.sample_collector import EvaluatedSamples
from mlscale.launch.start_notices import print_masked_lines
from mlscale.report import Result, save_result
from mlscale.report.result import save_result_in
from mlscale.runs.folder import RunFolder
from mlscale.secrets.mask import Masker, mask_output
from mlscale.task_types.report_wording import EvaluationReport
from mlscale.versions.model_reference import resolve_reference
from mlscale.versions.trained_model import TrainedModel

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.task_types.report_wording import EvaluationReport
    from mlscale.versions import LocalRegistry

_MODEL_KEYS = ("ref", "checkpoint", "against", "to", "slices", "worst")


def run(cfg: DictConfig) -> Result:
    """Validate or test once, in this process; report the results; compare with another model, if one is named.

    Raises:
        MLScaleError: no such run, version or checkpoint; weights that do not fit the model; no such slices.
    """
    # Before the pass, which may take minutes.
    check_slices(cfg)
    masker = Masker.create_for_run(cfg)
    other_model = _resolve_other_model(cfg)
    subject = resolve_reference(cfg.ref, runs_dir=cfg.runs_dir, checkpoint=cfg.checkpoint, quiet=True)
    target = EvaluationFolder.resolve_folder(cfg, subject)
    with mask_output(masker), report_path_setting("to"):
        start = time.perf_counter()
        measured = evaluate_model(cfg, subject, target, masker)
        other = _evaluate_other_model(cfg, other_model, masker) if other_model else None
        judgement = _evaluate_samples(cfg, measured, other)
        seconds = time.perf_counter() - start
        result = _build_evaluate_result(cfg, subject, measured, judgement, target, seconds)
        typed = list(cfg.derived.overrides or ())
        return target.write_evaluation(replace(result, overrides=typed), judgement, measured)


@dataclass(frozen=True)
class EvaluationFolder:
    """The folder that results are written to.

    Attributes:
        folder: of the files.
        run: the run that keeps them; None for another folder.
    """

    folder: Path
    run: Path | None

    @classmethod
    def resolve_folder(cls, cfg: DictConfig, subject: TrainedModel) -> EvaluationFolder:
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

    def write_evaluation(self, result: Result, judgement: EvaluationReport | None, measured: EvaluationPass) -> Result:
        """Write the document, its page, and the contact sheet next to them."""
        from mlscale.atomic_files import make_folders, write_bytes
        from mlscale.report import ImageBlock

        sheet = (
            next((picture for picture in judgement.blocks if isinstance(picture, ImageBlock)), None)
            if judgement
            else None
        )
        if sheet is not None:
            make_folders(self.folder)
            write_bytes(self.folder / "evaluate-errors.png", sheet.png)
            result = replace(
                result, artifacts={**result.artifacts, "worst_errors": str(self.folder / "evaluate-errors.png")}
            )
        if self.run is not None:
            return save_result(result, RunFolder.open(self.run))
        return save_result_in(result, self.folder, f"evaluate · {measured.label}")


def evaluate_model(
    cfg: DictConfig, subject: TrainedModel, target: EvaluationFolder | None, masker: Masker
) -> EvaluationPass:
    """Run one pass of a model over the split; its table of samples goes to `place`."""
    from mlscale.evaluate import samples_table as table
    from mlscale.evaluate.samples_table import SampleTable

    run_data = RunData()
    resolved_cfg, trained_on = prepare_evaluation_config(cfg, subject, run_data)
    devices = "one device" + (f", of the {trained_on} it was trained on" if trained_on > 1 else "")
    # The run may have been trained on a part of its data (debug=limit): an evaluation measures all of it, and reports
    # that.
    before, now = (
        {key: str(source.trainer.get(key)) for key in FULL_SPLIT_SETTINGS} for source in (cfg, resolved_cfg)
    )  # 1 is not 1.0 here
    short = [f"trainer.{key}={value}" for key, value in before.items() if value != now[key]]
    if short:
        print_masked_lines([f"evaluate  all samples: {', '.join(short)} was for training"], masker)
    where = f"{resolved_cfg.derived.accelerator} × 1 ({devices})"
    about = {"model": subject.version, "split": str(cfg.split), "data_version": resolved_cfg.derived.data_version}
    open_table: Any = contextlib.nullcontext(None)
    if target is not None and table.is_pyarrow_installed():
        open_table = SampleTable(target.table, about)
    elif target is not None:
        print_masked_lines(["evaluate  no table of samples: pip install 'mlscale[evaluate]'"], masker)
    if subject.servable is not None:
        print_masked_lines(
            [f"evaluate  {subject.label}: its servable on {cfg.split}, cpu × 1, by ONNX Runtime"], masker
        )
        with open_table as rows:
            return evaluate_servable(resolved_cfg, subject.servable, subject.label, rows, run_data)
    path, is_fallback = choose_checkpoint(subject, cfg)
    if is_fallback:
        print_masked_lines(["evaluate  the run has no best checkpoint: the last one is measured"], masker)
    print_masked_lines([f"evaluate  {subject.label}: {path.name} on {cfg.split}, {where}"], masker)
    label = subject.label if subject.run is None else f"{path.name} of {subject.label}"
    with open_table as rows:
        measured = evaluate_checkpoint(resolved_cfg, path, label, rows, run_data)
    if measured.reason:
        print_masked_lines([f"evaluate  the task's own metrics alone: {measured.reason}"], masker)
    return replace(measured, checkpoint=path)


def _resolve_other_model(cfg: DictConfig) -> TrainedModel | None:
    """Return the model that the first one is compared with, if one is named."""
    if not cfg.against:
        return None
    # `ref` has been resolved to a path before the config was composed, and needs no registry.
    registry: LocalRegistry | None = build(cfg.get("registry"), "registry")
    return resolve_reference(str(cfg.against), runs_dir=cfg.runs_dir, registry=registry, key="against")


def _evaluate_other_model(cfg: DictConfig, other: TrainedModel, masker: Masker) -> EvaluationPass:
    """Return the pass of the model that the first is compared with, on its own config and any data that was typed."""
    from mlscale.assembly.ready import compose_from_overrides

    # The other model keeps its own config; overrides that are not about the first model, such as other data, apply to
    # both.
    words = [word for word in cfg.derived.overrides or [] if word.lstrip("+~").partition("=")[0] not in _MODEL_KEYS]
    other_cfg = compose_from_overrides("evaluate", [f"ref={other.path}", *words])
    return evaluate_model(other_cfg, other, None, masker)


def _evaluate_samples(
    cfg: DictConfig, measured: EvaluationPass, other: EvaluationPass | None
) -> EvaluationReport | None:
    """Return the report on the samples, and on the comparison of two models; None if nothing was gathered."""
    from mlscale.evaluate.model_comparison import compare_models
    from mlscale.task_types.report_wording import merge_reports

    # The comparison is paired: it needs both answers for each sample.
    if other is not None and (measured.gathered is None or other.gathered is None):
        raise MLScaleError(
            "these two can't be compared sample by sample",
            where="against",
            why=measured.reason or other.reason,
            fix="leave against out, or give the task a kind and predict_step: docs/evaluate.md",
        )
    for model in (measured, other):
        if model is not None and model.gathered is not None and not len(model.gathered):
            raise MLScaleError(
                f"no sample of {model.label} was measured",
                where=f"split={cfg.split}",
                why=f"none could be read, or trainer.limit_{cfg.split}_batches leaves none",
                fix=f"trainer.limit_{cfg.split}_batches=1.0",
            )
    if measured.gathered is None:
        return None
    judgement = build_task_report(measured.gathered, measured.slice_columns, cfg.seed)
    if other is None or other.gathered is None:
        return judgement
    comparison = compare_models(measured.gathered, other.gathered, (measured.label, other.label), cfg.seed)
    return merge_reports(judgement, comparison)


def _build_evaluate_result(
    cfg: DictConfig,
    subject: TrainedModel,
    measured: EvaluationPass,
    judgement: EvaluationReport | None,
    target: EvaluationFolder,
    seconds: float,
) -> Result:
    metrics = dict(measured.metrics)
    if judgement is not None:
        for name, value in judgement.metrics.items():
            # What the task logs itself stays, unless this metric has an interval: both must be of the same estimate.
            if f"{cfg.split}/{name}" not in metrics or f"{name}_low" in judgement.metrics:
                metrics[f"{cfg.split}/{name}"] = value
        sentence = f"{measured.label} on {cfg.split}: " + "\n".join([judgement.headline, *judgement.remarks])
    else:
        headline = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items() if not name.startswith("data/"))
        sentence = f"{measured.label}: {headline or 'the task logs no metric here'}"
    artifacts = {"run": str(subject.run)} if subject.run else {}
    if measured.checkpoint is not None:
        artifacts["checkpoint"] = str(measured.checkpoint)
    if subject.servable is not None:
        artifacts["servable"] = str(subject.servable)
    if target.table.is_file() and judgement is not None:
        artifacts["samples"] = str(target.table)
    return Result(
        command="evaluate",
        ok=True,
        sentence=sentence,
        metrics={**metrics, "time_s": seconds},
        artifacts=artifacts,
        figures=judgement.blocks if judgement else (),
        details=judgement.details if judgement else {},
    )


def build_task_report(
    gathered: EvaluatedSamples, columns: slices.SliceColumns | None = None, seed: int = 0
) -> EvaluationReport:
    """Return the complete report of an evaluation pass.

    Args:
        gathered: the samples, at least one.
        columns: columns to slice by.
        seed: of the bootstrap and of other random draws.
    """
    task_type = gathered.task_type
    report = task_type.build_report(gathered, seed)
    parts = [report]
    if columns:
        good, share, metric_name = task_type.select_slice_metric(gathered.columns)
        parts.append(slices.build_slice_report(columns, good, share=share, metric_name=metric_name, seed=seed))
    # The headline is that of the task's own report; slices have none.
    return EvaluationReport(
        metrics={name: value for part in parts for name, value in part.metrics.items()},
        headline=report.headline,
        remarks=[remark for part in parts for remark in part.remarks],
        blocks=[
            *report.blocks,
            *(metric_name for part in parts[1:] for metric_name in part.blocks),
            *worst.build_worst_blocks(gathered),
        ],
        details={name: value for part in parts for name, value in part.details.items()},
    )
