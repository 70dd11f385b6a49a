"""Turn a run's checkpoint into a servable: ONNX that takes raw samples, proof of parity, and a reference profile."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlscale.config.derive import derive
from mlscale.config.frozen import with_derived
from mlscale.errors import MLScaleError
from mlscale.export.needs import need
from mlscale.launch.start import say
from mlscale.report import Result, keep
from mlscale.runs.find import find
from mlscale.runs.mask import Masker, masked_output
from mlscale.verbs.evaluate import as_trained, checkpoint_path, load_weights

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.export.measure import Measured
    from mlscale.runs.folder import RunFolder


def run(cfg: DictConfig) -> Result:
    """Build the run's model with the checkpoint's weights, export, compare on validation samples, and write the folder.

    Nothing is written when a bound does not hold; the result says so, and the command line ends with exit code 4.

    Raises:
        MLScaleError: no such run or checkpoint, other data than the run's, a model that ONNX can't express, a place
            that is taken, or the extra 'export' is not installed.
    """
    need("export", "onnx", "onnxscript", "onnxruntime")
    from mlscale.export.write import check_free

    folder = find(cfg.run, cfg.runs_dir)
    masker = Masker.of(cfg)
    checkpoint = checkpoint_path(folder.path, cfg.checkpoint, cfg.metric, cfg.mode)
    target = Path(cfg.to).expanduser().absolute() if cfg.to else folder.path / "servable"
    check_free(target, replace=not cfg.to)
    with masked_output(masker):
        start = time.perf_counter()
        ready = _as_it_was_trained(cfg, folder)
        say([f"export  {folder.path.name}: {checkpoint.name} to ONNX, compared on validation samples"], masker)
        data, measured = _measure(ready, checkpoint)
        problems = measured.parity.problems(tolerance=cfg.tolerance, min_agreement=cfg.min_agreement)
        if not problems:
            _write(ready, folder, checkpoint, target, data, measured, masker)
        result = _result(folder, checkpoint, target, measured, problems, time.perf_counter() - start)
    return keep(result, folder)


def _as_it_was_trained(cfg: DictConfig, folder: RunFolder) -> DictConfig:
    """The run's config on one device, with what its data says.

    Raises:
        MLScaleError: the data is not what the run was trained on; its mean and deviation go into the model.
    """
    from mlscale.launch.facts import data_facts
    from mlscale.launch.machine import this_machine

    cfg = cfg.copy()
    cfg.trainer.devices, cfg.trainer.accumulate_grad_batches = 1, 1
    cfg.logger, cfg.callbacks = {}, {}
    facts, trained = data_facts(cfg), folder.derived
    names = {"version": "data_version", "height": "height", "width": "width"}
    for name, derived in names.items():
        if facts is not None and trained.get(derived) not in (None, facts[name]):
            raise MLScaleError(
                "the data is not what the run was trained on",
                where="data",
                why=f"its {name} is {facts[name]}, the run's {trained[derived]}; a model keeps its normalisation",
                fix="leave data.* as the run has it, and the data as it was",
            )
    values = derive(cfg, as_trained(facts, trained), this_machine())
    return with_derived(cfg, {**values, "run_dir": str(folder.path), "name": folder.path.name})


def _measure(cfg: DictConfig, checkpoint: Path) -> tuple[Any, Measured]:
    """The data module, and the exported model with its numbers."""
    import torch

    from mlscale.export.measure import measure
    from mlscale.train.assemble import build_data, build_task
    from mlscale.train.quiet import quiet

    quiet()
    torch.set_num_threads(cfg.derived.threads)
    data, task = build_data(cfg), build_task(cfg)
    if data is None:
        raise MLScaleError("there is no data", where="data", why="an export is compared on validation samples")
    load_weights(task, checkpoint)
    data.prepare_data()
    data.setup("validate")
    return data, measure(task, data, samples=cfg.samples)


def _write(
    cfg: DictConfig,
    folder: RunFolder,
    checkpoint: Path,
    target: Path,
    data: Any,
    measured: Measured,
    masker: Masker,
) -> None:
    from mlscale.export.document import document
    from mlscale.export.write import write
    from mlscale.runs.checkpoints import verify

    run, record = folder.run, verify(checkpoint).record
    stated = {"data": getattr(data, "licence", None)}
    about = document(
        measured,
        name=str(run["name"]),
        run={"id": run["id"], "folder": folder.path.name, "config_hash": run["config_hash"]},
        checkpoint={"name": checkpoint.name, "step": record.step if record else None},
        data_version=cfg.derived.data_version,
        licences={**stated, **cfg.licences},
    )
    reference = measured.profile.finish(split="val", data_version=cfg.derived.data_version)
    write(
        target,
        model=measured.model,
        parity=measured.parity.as_dict(),
        reference=reference,
        document=masker.mask_tree(about),
        replace=not cfg.to,
    )


def _result(
    folder: RunFolder, checkpoint: Path, target: Path, measured: Measured, problems: list[str], seconds: float
) -> Result:
    parity, ratio = measured.parity, measured.torch_latency_ms / measured.onnx_latency_ms
    made = {} if problems else {"servable": str(target)}
    if problems:
        sentence = f"{checkpoint.name} of {folder.path.name} is not exported: {'; '.join(problems)}"
    else:
        sentence = (
            f"{checkpoint.name} of {folder.path.name} as ONNX: accuracy {parity.onnx_accuracy:.4f}, torch "
            f"{parity.torch_accuracy:.4f}, largest difference {parity.max_abs_error:.1e}; one sample on one thread "
            f"takes {measured.onnx_latency_ms:.3g} ms, torch {ratio:.1f}× as long"
        )
    return Result(
        verb="export",
        ok=not problems,
        sentence=sentence,
        metrics={
            "onnx_val/accuracy": parity.onnx_accuracy,
            "torch_val/accuracy": parity.torch_accuracy,
            "agreement": parity.agreement,
            "max_abs_error": parity.max_abs_error,
            "relative_error": parity.relative_error,
            **{f"batch_{size}_max_abs_error": error for size, error in parity.batches.items()},
            "samples": parity.samples,
            "model_size_bytes": len(measured.model),
            "onnx_latency_ms": measured.onnx_latency_ms,
            "torch_latency_ms": measured.torch_latency_ms,
            "torch_latency_ratio": ratio,
            "time_s": seconds,
        },
        artifacts={"run": str(folder.path), "checkpoint": str(checkpoint), **made},
    )
