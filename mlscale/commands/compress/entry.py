"""Make a run's checkpoint smaller and faster, and keep the result only if measurements confirm that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlscale.assembly.run_data import RunData
from mlscale.assembly.trained_model.rebuild import find_checkpoint_file, rebuild_data_and_task, restore_training_config
from mlscale.atomic_files import report_run_folder
from mlscale.errors import MLScaleError
from mlscale.export.required_extras import require_extra
from mlscale.launch.start_notices import print_masked_lines
from mlscale.report import Result
from mlscale.secrets.mask import Masker, mask_output
from mlscale.versions.model_reference import resolve_reference

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run(cfg: DictConfig) -> Result:
    """Build the run's model with the checkpoint's weights, compress it, compare on validation samples, and write
    `<run>/compressed/`, whether it is kept or not.

    Raises:
        MLScaleError: no such run or checkpoint, nothing chosen to compress by, other data than the run's, a model that
            can't be expressed, or the extra 'compress' is not installed.
    """
    require_extra("compress", "onnx", "onnxscript", "onnxruntime")
    model = resolve_reference(cfg.ref, runs_dir=cfg.runs_dir, checkpoint=cfg.checkpoint, quiet=True)
    folder = model.open_run()
    masker = Masker.create_for_run(cfg)
    checkpoint = find_checkpoint_file(folder.path, str(model.checkpoint), cfg.metric, cfg.mode)
    name, method = _choose_compression(cfg)
    with mask_output(masker), report_run_folder(folder.path):
        run_data = RunData()
        resolved_cfg = restore_training_config(cfg, folder, run_data)
        print_masked_lines(
            [f"compress  {folder.path.name}: {checkpoint.name} to {name}, judged on validation samples"], masker
        )
        # "fit" sets up the training split, too: static quantization is calibrated on it, and judged on validation
        # samples.
        data, task = rebuild_data_and_task(resolved_cfg, checkpoint, "fit", run_data)
        result: Result = method.carry_out(task, data, folder, checkpoint, list(cfg.derived.overrides or ()))
    return result


def _choose_compression(cfg: DictConfig) -> tuple[str, Any]:
    """Return the one way of compression that the config names.

    Raises:
        MLScaleError: none or several are chosen, or one that is a part of training alone.
    """
    from mlscale.assembly.build import build_each

    built = build_each(cfg.get("compress"), "compress")
    if len(built) != 1:
        raise MLScaleError(
            "nothing to compress by is chosen" if not built else f"{' and '.join(built)} are chosen, one at a time",
            where="compress",
            fix=f"mlscale compress {cfg.ref} compress=int8",
        )
    ((name, method),) = built.items()
    # Some ways of compression are callbacks of a training run only.
    if not hasattr(method, "carry_out"):
        raise MLScaleError(
            f"compress.{name} works in a training run alone",
            where=f"compress.{name}._target_",
            fix=f"mlscale compress {cfg.ref} compress=int8",
        )
    return name, method
