"""Turn a run's checkpoint into a servable: ONNX that takes raw samples, proof of parity, and a reference profile.

The ONNX model is the compressed one where `mlscale compress` has kept one of this checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlscale.assembly.run_data import RunData
from mlscale.assembly.trained_model.evaluation_pass import choose_checkpoint
from mlscale.assembly.trained_model.rebuild import rebuild_data_and_task, restore_training_config
from mlscale.atomic_files import report_path_setting
from mlscale.commands.export.chosen_targets import build_chosen_targets, choose_targets
from mlscale.errors import Exit, MLScaleError
from mlscale.export.required_extras import require_extra
from mlscale.launch.start_notices import print_masked_lines
from mlscale.report import Result, save_result
from mlscale.report.text import format_percent
from mlscale.runs.host.processes import raise_on_terminate
from mlscale.secrets.mask import Masker, mask_output
from mlscale.targets.target import TARGETS
from mlscale.versions.model_reference import resolve_reference

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from pytorch_lightning import LightningDataModule

    from mlscale.compress.stored_model import StoredInt8Model
    from mlscale.export.measure_export import ExportMeasurement
    from mlscale.export.parity import Parity
    from mlscale.export.servable import Servable
    from mlscale.runs.folder import RunFolder
    from mlscale.targets.build_targets import BuiltTarget


def run(cfg: DictConfig) -> Result:
    """Build the run's model with the checkpoint's weights, export, compare on validation samples, and write the folder.

    Nothing is written if a bound is not met; the result reports it, and the command line ends with exit code 4.

    Raises:
        MLScaleError: no such run or checkpoint, other data than the run's, a model that ONNX can't express, a place
            that is taken, a compressed model that is asked for and not there, or the extra 'export' is not installed.
    """
    # Before the model is built: a missing extra is reported at once.
    require_extra("export", "onnx", "onnxscript", "onnxruntime")
    from mlscale.export.write_servable import check_free
    from mlscale.targets.build_targets import TargetsRefusedError, describe_targets

    targets, masker = choose_targets(cfg), Masker.create_for_run(cfg)
    folder, checkpoint = _resolve_checkpoint(cfg, masker)
    to = Path(cfg.to).expanduser().absolute() if cfg.to else folder.path / "servable"
    # Before the work: a folder that the user has named is never overwritten, the run's own servable is replaced.
    check_free(to, replace=not cfg.to)
    # SIGTERM raises, so that no target's server and no half of a servable outlives this process.
    with raise_on_terminate(), mask_output(masker), report_path_setting("to"):
        start = time.perf_counter()
        run_data = RunData()
        resolved_cfg = restore_training_config(cfg, folder, run_data)
        compressed, why = _find_compressed_model(cfg.compressed, folder, checkpoint, half=cfg.fp16)
        print_masked_lines(_format_start_lines(folder, checkpoint, compressed, why, half=cfg.fp16), masker)
        data, measured = _measure_export(resolved_cfg, checkpoint, compressed, run_data)
        print_masked_lines(_format_type_lines(measured), masker)
        problems = _list_parity_problems(cfg, measured.parity, compressed)
        # Where samples are encoded otherwise, layers are not what differs.
        if problems and not measured.parity.refused and measured.parity.encoder is None:
            print_masked_lines(["export  the outputs differ: looking for the layer that does"], masker)
            problems += filter(None, [measured.find_layer()])
        built: list[BuiltTarget] = []
        # A servable whose parity is not proven must not exist: something would serve it.
        if not problems:

            def add_targets(servable: Servable) -> Mapping[str, Any]:
                built[:] = build_chosen_targets(
                    cfg,
                    targets,
                    servable,
                    measured,
                    {"tolerance": None, "min_agreement": compressed.min_agreement} if compressed else _read_bounds(cfg),
                    partial(_list_parity_problems, cfg, compressed=compressed),
                    lambda line: print_masked_lines([line], masker),
                )
                return {"export_targets": describe_targets(built)} if built else {}

            try:
                _write_servable(resolved_cfg, folder, checkpoint, to, data, measured, compressed, masker, add_targets)
            except TargetsRefusedError as refused:
                problems = refused.problems
        seconds = time.perf_counter() - start
        result = build_export_result(
            folder, checkpoint, to, measured, compressed, built, problems, seconds, half=cfg.fp16
        )
    return save_result(replace(result, overrides=list(cfg.derived.overrides or ())), folder)


def _resolve_checkpoint(cfg: DictConfig, masker: Masker) -> tuple[RunFolder, Path]:
    """Return the run and the checkpoint that the config names."""
    model = resolve_reference(cfg.ref, runs_dir=cfg.runs_dir, checkpoint=cfg.checkpoint, quiet=True)
    checkpoint, is_fallback = choose_checkpoint(model, cfg)
    if is_fallback:
        print_masked_lines(["export  the run has no best checkpoint: the last one is taken"], masker)
    return model.open_run(), checkpoint


def _find_compressed_model(
    choice: bool | str, folder: RunFolder, checkpoint: Path, *, half: bool
) -> tuple[StoredInt8Model | None, str]:
    """Return the compressed model to export instead of the checkpoint's own, or None and the reason.

    Raises:
        MLScaleError: one is requested, and half precision, too, or none was kept (exit code 4); or it is corrupt.
    """
    from mlscale.compress.stored_model import find_compressed_model

    # `auto` is the third value: the compressed model if there is one.
    if half and choice is True:
        raise MLScaleError(
            "one model has not both eight bits and half precision",
            where="compressed=true fp16=true",
            fix="fp16=false",
        )
    if half:
        return None, "fp16=true"
    if choice is False:
        return None, "compressed=false"
    stored, why = find_compressed_model(folder.path, checkpoint)
    if stored is None and choice is True:
        raise MLScaleError(
            f"no compressed model of {checkpoint.name} to export",
            where="compressed=true",
            why=why,
            fix=f"mlscale compress {folder.path} compress=int8\ncompressed=auto",
            exit=Exit.GATE,
        )
    return stored, why


def _format_start_lines(
    folder: RunFolder, checkpoint: Path, compressed: StoredInt8Model | None, why: str, *, half: bool
) -> list[str]:
    what = f"{compressed.precision}, as `compress` kept it" if compressed else "fp16" if half else "fp32"
    lines = [f"export  {folder.path.name}: {checkpoint.name} to ONNX in {what}, compared on validation samples"]
    has_compressed = (folder.path / "compressed").is_dir()
    return [*lines, *([f"export  no compressed model: {why}"] if has_compressed and compressed is None else [])]


def _format_type_lines(measured: ExportMeasurement) -> list[str]:
    """Return a line where the task states no type: what is served, and what would state it."""
    if measured.is_type_stated:
        return []
    from mlscale.task_types.tensor_type import TensorType

    if isinstance(measured.task_type, TensorType):
        served = (
            "answers are the tensors of forward, which gives something else than a number for each class; "
            "kind = 'regression', or another type, in the class names them"
        )
    else:
        served = (
            f"answers are of {measured.task_type.name}, as forward gives a row of numbers for each sample and the "
            f"truth is a whole number; kind = '{measured.task_type.name}' in the class states it, and kind = "
            "'tensors' that it does not classify"
        )
    return [f"export  the task states no type: {served}"]


def _list_parity_problems(cfg: DictConfig, parity: Parity, compressed: StoredInt8Model | None) -> list[str]:
    """Return the bounds that are not met. Eight bits give other outputs: for them predictions and the task's metric are
    checked, by the bounds that the model was compressed under.
    """
    if compressed is None:
        return parity.find_problems(**_read_bounds(cfg))
    return parity.find_problems(
        # No bound on the outputs: eight bits change them, and predictions are what is served.
        tolerance=None,
        min_agreement=compressed.min_agreement,
        max_metric_drop=compressed.max_metric_drop,
    )


def _read_bounds(cfg: DictConfig) -> dict[str, Any]:
    """Return the bounds of a model that is not compressed."""
    if cfg.fp16:
        return {"tolerance": cfg.fp16_tolerance, "min_agreement": cfg.fp16_min_agreement}
    return {"tolerance": cfg.tolerance, "min_agreement": cfg.min_agreement}


def _measure_export(
    cfg: DictConfig, checkpoint: Path, compressed: StoredInt8Model | None, run_data: RunData
) -> tuple[Any, ExportMeasurement]:
    """Return the data module, and the exported model with its measurements."""
    from mlscale.export.measure_export import export_and_measure

    data, task = rebuild_data_and_task(cfg, checkpoint, "validate", run_data)
    model = compressed.model if compressed else None
    return data, export_and_measure(
        task, data, samples=cfg.samples, model=model, half=cfg.fp16, tolerance=cfg.tolerance
    )


def _write_servable(
    cfg: DictConfig,
    folder: RunFolder,
    checkpoint: Path,
    to: Path,
    data: LightningDataModule,
    measured: ExportMeasurement,
    compressed: StoredInt8Model | None,
    masker: Masker,
    add_files: Callable[[Servable], Mapping[str, Any]],
) -> None:
    from mlscale.export.half_precision import HALF
    from mlscale.export.write_servable import build_servable_document, write_servable
    from mlscale.runs.checkpoint_files.checkpoint_digest import verify_checkpoint

    # The checkpoint's digest is verified: a torn file must not become a servable.
    run, record = folder.run, verify_checkpoint(checkpoint).record
    stated = {"data": getattr(data, "licence", None)}
    if initial := run.get("init"):
        # Added to that of the data: pretrained weights may forbid uses that the data allows.
        stated["weights"] = initial.get("licence")  # of those that training started from
    about = build_servable_document(
        measured,
        name=str(run["name"]),
        run={"id": run["id"], "folder": folder.path.name, "config_hash": run["config_hash"]},
        checkpoint={"name": checkpoint.name, "step": record.step if record else None},
        data_version=cfg.derived.data_version,
        licences={**stated, **cfg.licences},
        compression=compressed.about if compressed else HALF if cfg.fp16 else None,
    )
    reference = measured.reference.finish(split="val", data_version=cfg.derived.data_version)
    shown = f"{len(reference.columns)} columns of {reference.about['samples']:,} samples"
    print_masked_lines([f"export  reference profile: {shown}"], masker)
    servable = write_servable(
        to,
        model=measured.model,
        parity=measured.parity.as_dict(),
        reference=reference,
        # The servable is copied to other machines: names and notes in it must hold no secret.
        document=masker.mask_tree(about),
        warmup=measured.warmup if cfg.warmup else (),
        replace=not cfg.to,
        add_files=add_files,
    )
    print_masked_lines([f"export  warm-up requests: {_describe_warmup(servable, is_wanted=cfg.warmup)}"], masker)


def _describe_warmup(servable: Servable, *, is_wanted: bool) -> str:
    from mlscale.export.warmup import WARMUP, read_warmup

    if not is_wanted:
        return "none, as warmup=false leaves the data's samples out; a server that switches to it can't compare answers"
    if (warmup := read_warmup(servable.folder / WARMUP)) is None:
        return "none, as no sample has a finite answer that a rounding error would not change"
    return f"{len(warmup.requests)} validation samples go along, with their answers; warmup=false leaves them out"


def build_export_result(
    folder: RunFolder,
    checkpoint: Path,
    target: Path,
    measured: ExportMeasurement,
    compressed: StoredInt8Model | None,
    built: Sequence[BuiltTarget],
    problems: list[str],
    seconds: float,
    *,
    half: bool = False,
) -> Result:
    """Return the result: what the exported model and each of its targets was measured to be."""
    parity, ratio, onnx = measured.parity, measured.times.ratio, measured.times.second
    precision = compressed.precision if compressed else "fp16" if half else "fp32"
    made = {} if problems else {"servable": str(target)}
    if problems:
        sentence = f"{checkpoint.name} of {folder.path.name} is not exported: {'; '.join(problems)}"
        sentence += "; compressed=false exports fp32" if compressed else ""
    else:
        near = (
            f"{format_percent(parity.agreement, 2)} of the predictions the same"
            if compressed and parity.agreement is not None
            else f"largest difference {parity.max_abs_error:.1e}"
        )
        sentence = (
            f"{checkpoint.name} of {folder.path.name} as ONNX in {precision}: {_format_metric(parity)}{near}; one "
            f"sample on one thread takes {onnx.cpu_ms:.3g} ms of CPU time, torch {ratio.value:.1f}× as long "
            f"({ratio.low:.1f} to {ratio.high:.1f})"
        )
        sentence += "".join(f"; {_describe_target(one, target)}" for one in built)
    return Result(
        command="export",
        ok=not problems,
        sentence=sentence,
        metrics={**_list_export_metrics(measured, built), "time_s": seconds},
        artifacts={"run": str(folder.path), "checkpoint": str(checkpoint), **made},
        details={"start": {one.target.name: _format_start(one, target) for one in built}} if built else {},
    )


def _list_export_metrics(measured: ExportMeasurement, built: Sequence[BuiltTarget]) -> dict[str, float]:
    parity, times = measured.parity, measured.times
    metrics: dict[str, float] = {}
    if parity.metric and parity.onnx_metric is not None and parity.torch_metric is not None:
        metrics = {
            f"onnx_val/{parity.metric}": parity.onnx_metric,
            f"torch_val/{parity.metric}": parity.torch_metric,
            f"{parity.metric}_drop": parity.metric_drop,
        }
    if parity.agreement is not None:
        metrics["agreement"] = parity.agreement
    return {
        **metrics,
        "max_abs_error": parity.max_abs_error,
        "relative_error": parity.relative_error,
        **{f"batch_{size}_max_abs_error": error for size, error in parity.batches.items()},
        "samples": parity.samples,
        "model_size_bytes": len(measured.model),
        "onnx_cpu_ms": times.second.cpu_ms,
        "torch_cpu_ms": times.first.cpu_ms,
        **times.list_wall_times("torch", "onnx"),
        "torch_latency_ratio": times.ratio.value,
        "torch_latency_ratio_low": times.ratio.low,
        "torch_latency_ratio_high": times.ratio.high,
        **{name: value for one in built for name, value in _list_target_metrics(one).items()},
    }


def _format_metric(parity: Parity) -> str:
    if parity.onnx_metric is None or parity.metric is None:
        return "no task type is stated, so only outputs are compared; "
    return f"{parity.metric.replace('_', ' ')} {parity.onnx_metric:.4f}, torch {parity.torch_metric:.4f}, "


def _describe_target(one: BuiltTarget, servable: Path) -> str:
    """Return a target in words: how near it is, who has approved it, and what starts it."""
    ratio = one.times.ratio
    words = f"{one.target.name}: largest difference {one.parity.max_abs_error:.1e}, torch {ratio.value:.1f}× as long"
    if one.check is not None:
        words += f", approved by {one.check.product} on {one.check.samples} raw samples"
    return f"{words}, started by {_format_start(one, servable)}"


def _format_start(one: BuiltTarget, servable: Path) -> str:
    return one.target.format_start_command(servable / TARGETS / one.target.name)


def _list_target_metrics(one: BuiltTarget) -> dict[str, float]:
    name, check = f"target_{one.target.name}", one.check
    metrics = {
        f"{name}_max_abs_error": one.parity.max_abs_error,
        f"{name}_relative_error": one.parity.relative_error,
        **({} if one.parity.agreement is None else {f"{name}_agreement": one.parity.agreement}),
        f"{name}_cpu_ms": one.times.second.cpu_ms,
        f"{name}_torch_latency_ratio": one.times.ratio.value,
    }
    if check is not None:
        metrics |= {f"{name}_server_samples": check.samples, f"{name}_server_relative_error": check.relative_error}
        metrics |= {f"{name}_server_p{100 * quantile:g}_ms": value for quantile, value in check.latency_ms.items()}
    return metrics
