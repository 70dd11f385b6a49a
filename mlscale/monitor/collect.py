"""Collects the reference profile of a run in its own validation passes, so that no extra pass is needed.

Inputs are summarised as clients send them, predictions as the task makes them. A profile belongs to one checkpoint,
which was saved after that validation; it holds the checkpoint's digest.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn

from mlscale.data.images.labelled_images import ImageData
from mlscale.data.order.loader import EvalLoader
from mlscale.errors import MLScaleError
from mlscale.export import collected_profile as collected
from mlscale.export.reference_profile import ProfileBuilder, compute_spread_edges, compute_value_edges
from mlscale.export.servable import compute_softmax
from mlscale.export.validation_samples import iterate_validation_batches, restore_raw_samples
from mlscale.runs.checkpoint_files.checkpoint_digest import read_checkpoint_metadata, read_content_digest
from mlscale.tasks.batch import Batch, unpack_batch
from mlscale.train.after_fit import AfterFitResult, hide_trainer, load_best_checkpoint, locate_best_checkpoint
from mlscale.train.lightning.trainer_parts import get_data_module


class CollectReference(Callback):
    """Writes `<run>/reference/`: the profile of inputs and predictions at the best checkpoint.

    Predictions are taken from the task's own forward pass; if its validation does not call `forward`, they are computed
    once more. Samples of weight 0 are left out. The profiles of all ranks are merged.

    Training is not changed, and a profile that can't be collected does not end the run. Where the best checkpoint has
    no profile at the end (a run that was killed between the two, a validation in the middle of an accumulation) the
    first rank collects it then.
    """

    def __init__(self) -> None:
        self._profile: ProfileBuilder | None = None
        self._logits: Tensor | None = None
        self._hook: Any = None
        self._seen = 0
        self._pending: tuple[int, ProfileBuilder | None] | None = None
        self._fresh = False
        self._failed = ""

    # During a validation.

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._profile, self._pending, self._seen = None, None, 0
        if _is_counted_pass(trainer) and not self._failed:
            # A hook, not a second forward pass: validation costs next to nothing more.
            self._hook = pl_module.register_forward_hook(self._record_logits)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._hook is None or self._failed:
            return
        try:
            if dataloader_idx:
                raise MLScaleError(
                    "the run has several validation loaders", fix="one validation loader, or monitor=none"
                )
            self._add_batch(trainer, pl_module, unpack_batch(batch), batch_idx)
        except MLScaleError as error:
            # Later validations would fail as well: the collection ends, the run does not.
            self._failed, self._profile = error.what, None

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._remove_hook()
        if _is_counted_pass(trainer):
            # The checkpoint is saved after this hook, so the profile waits for the step boundary.
            self._pending, self._fresh = (trainer.global_step, self._profile), True

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._remove_hook()

    def _remove_hook(self) -> None:
        if self._hook is not None:
            self._hook.remove()
        self._hook = self._logits = None

    def _record_logits(self, module: nn.Module, arguments: object, output: object) -> None:
        self._logits = output if isinstance(output, Tensor) else None

    def _add_batch(self, trainer: Trainer, module: LightningModule, batch: Batch, number: int) -> None:
        rows = self._compute_indices(trainer, number, len(batch.y))
        self._seen += len(batch.y)
        # Samples of weight 0 are padding, which gives all ranks as many batches.
        is_counted = np.ones(len(batch.y), np.bool_) if batch.weight is None else (batch.weight > 0).cpu().numpy()
        logits = self._compute_logits(trainer, module, batch)[is_counted]
        raw = restore_raw_samples(get_data_module(trainer), batch.x, rows, is_counted)
        if self._profile is None:
            self._profile = ProfileBuilder(logits.shape[1], _share_bin_edges(trainer, batch.x))
        if is_counted.any():
            self._profile.add_batch(
                raw, compute_softmax(logits), batch.y.cpu().numpy()[is_counted].astype(np.int64), rows[is_counted]
            )

    def _compute_logits(self, trainer: Trainer, module: LightningModule, batch: Batch) -> NDArray[np.float32]:
        """Return the logits of a batch, float32 (n, classes)."""
        logits, self._logits = self._logits, None
        if logits is None or logits.ndim != 2 or len(logits) != len(batch.y):
            # Under the precision of validation, so that these logits equal those of its own forward pass.
            with trainer.precision_plugin.val_step_context():
                logits, self._logits = module(batch.x), None
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(batch.y):
            raise MLScaleError(
                "the task gives no logits, (n, classes)",
                fix="return logits (n, classes) from the forward of the task, or monitor=none",
            )
        values: NDArray[np.float32] = logits.detach().float().cpu().numpy()
        return values

    def _compute_indices(self, trainer: Trainer, number: int, count: int) -> NDArray[np.int64]:
        """Return the indices of a batch's samples among those of all ranks, int64 (n,)."""
        loader = trainer.val_dataloaders
        if isinstance(loader, EvalLoader):
            rows = np.array(loader.list_batch_rows(number), np.int64)
            return rows if len(rows) else np.zeros(count, np.int64)  # a single sample of weight 0
        # The order of Lightning's DistributedSampler.
        indices: NDArray[np.int64] = (self._seen + np.arange(count)) * trainer.world_size + trainer.global_rank
        return indices

    # After a validation, once checkpoints are saved.

    def on_step_boundary(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._fresh:  # the boundary right after the validation
            self._fresh = False
            self._write_pending(trainer)

    def on_epoch_boundary(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write_pending(trainer)
        self._pending = None

    def _write_pending(self, trainer: Trainer) -> None:
        """Write the pending profile if the best checkpoint is of the same validation. All ranks must call this."""
        # Broadcast: all ranks must take the same branch, since the gather below is collective.
        if self._pending is None or not trainer.strategy.broadcast(self._has_matching_checkpoint(trainer)):
            return
        (_, profile), self._pending = self._pending, None
        parts: list[ProfileBuilder | None] = [profile]
        if trainer.world_size > 1:
            parts = [None] * trainer.world_size
            dist.all_gather_object(parts, profile)
        if trainer.is_global_zero and (whole := _merge_profiles(parts)) is not None:
            _write_profile(trainer, whole, trainer.precision)

    def _has_matching_checkpoint(self, trainer: Trainer) -> bool:
        """Return whether the best checkpoint was saved at the step of the pending profile; the first rank decides."""
        path = locate_best_checkpoint(trainer) if trainer.is_global_zero else None
        if path is None or self._pending is None:
            return False
        record = read_checkpoint_metadata(path).record
        return (
            record is not None
            and record.step == self._pending[0]
            and not collected.has_collected_profile(_get_run_folder(trainer), path)
        )

    # After the fit.

    def after_fit(self, trainer: Trainer, pl_module: LightningModule) -> AfterFitResult:
        """Make sure that the best checkpoint has its profile, and report the number of its samples."""
        try:
            path = locate_best_checkpoint(trainer)
            if self._failed or path is None:
                raise MLScaleError(
                    self._failed or "the run has saved no checkpoint",
                    fix="callbacks=default, which saves the best and the last; or monitor=none",
                )
            if not collected.has_collected_profile(_get_run_folder(trainer), path):
                print(f"monitor   collects the reference profile of {path.name}", file=sys.stderr, flush=True)
                self._collect_profile(trainer, pl_module)
            reference = collected.read_collected_profile(_get_run_folder(trainer))
        except MLScaleError as error:
            # A run that has trained must not fail by its profile: the reason is reported in place of it.
            return AfterFitResult({}, f"no reference profile: {error.what}")
        return AfterFitResult({"reference_samples": reference.about["samples"]})

    def _collect_profile(self, trainer: Trainer, module: LightningModule) -> None:
        load_best_checkpoint(trainer, module)
        task, data, profile = module.cpu().float().eval(), get_data_module(trainer), None
        if data is None:
            raise MLScaleError(
                "the run has no data module to collect it from again",
                fix="a data module instead of loaders of the task, or monitor=none",
            )
        with hide_trainer(data):
            for samples in iterate_validation_batches(data):
                with torch.no_grad():
                    probabilities = compute_softmax(task(samples.x).float().numpy())
                profile = profile or ProfileBuilder(probabilities.shape[1], _derive_bin_edges(data))
                profile.add_batch(samples.raw, probabilities, samples.y)
        assert profile is not None  # `iterate_validation_batches` raises if there are no samples
        _write_profile(trainer, profile, "32-true")


def _is_counted_pass(trainer: Trainer) -> bool:
    return trainer.state.fn == "fit" and not trainer.sanity_checking


def _get_run_folder(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir)


def _merge_profiles(parts: list[ProfileBuilder | None]) -> ProfileBuilder | None:
    """Return the merged profile of all ranks; None where one has no profile, or there are no samples."""
    first, *others = parts
    for other in others:
        # The profile of some ranks would be that of some samples only.
        if first is None or other is None:
            return None
        first.merge_counts(other)
    return first if first is not None and first.samples else None


def _share_bin_edges(trainer: Trainer, x: Tensor) -> NDArray[np.float64] | None:
    """Return the same bins on every rank: those of the data, or of the first rank's first batch."""
    data = get_data_module(trainer)
    if isinstance(data, ImageData):
        return _derive_bin_edges(data)
    # Bins must be equal on all ranks before profiles can be merged.
    edges: NDArray[np.float64] = trainer.strategy.broadcast(compute_value_edges(x.detach().float().cpu().numpy()))
    return edges


def _derive_bin_edges(data: LightningDataModule) -> NDArray[np.float64] | None:
    """Return bins over four deviations around the mean of the training data; None for bytes, whose bins are fixed."""
    shape = data.get_decoded_split("val").shape if isinstance(data, ImageData) else None
    if shape is None or shape.dtype == np.uint8:
        return None
    return compute_spread_edges(np.array(shape.mean), np.array(shape.std))


def _write_profile(trainer: Trainer, profile: ProfileBuilder, precision: str) -> None:
    path = locate_best_checkpoint(trainer)
    assert path is not None
    data = get_data_module(trainer)
    facts = data.facts() if isinstance(data, ImageData) else None
    record = read_checkpoint_metadata(path).record
    collected.write_collected_profile(
        _get_run_folder(trainer),
        profile.finish(
            split="val",
            data_version=facts.version if facts else None,
            checkpoint={
                "name": path.name,
                "step": record.step if record else None,
                "sha256": read_content_digest(path),
            },
            predictions={"by": "torch", "precision": precision},
        ),
    )
