"""Record the samples and losses of every optimizer step, outside the run folder. For `mlscale drill`."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from mlscale.train.callbacks.train_metrics import get_detached_loss
from mlscale.train.checkpoint import tensor_digests as digests
from mlscale.verify_resume.step_records import DrillOrder, get_reached_path, get_record_path, get_sent_path

_POLL_SECONDS = 0.02
_MAX_WAIT_SECONDS = 60.0  # for the signal: a drill that has died must not keep the run for ever
_STEPS_AFTER_SAVE = 2  # so that a platform without a grace period loses something


class StepRecorder(Callback):
    """A callback that writes a line for every optimizer step of a rank, and waits where the order in `folder` says so.

    Its cost is a digest of every sample (BLAKE2b, 8 bytes), about a second per gigabyte of batches.

    Args:
        folder: for the records; not in the run folder, which a platform may lose.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._order = DrillOrder.read_from(self._folder)
        self._file: TextIO | None = None
        self._rank = 0
        self._step = -1  # of the batches that are collected
        self._saved_step: int | None = None
        self._samples: list[str] = []
        self._losses: list[str] = []
        self._has_waited = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._rank = trainer.global_rank
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = get_record_path(self._folder, self._order.attempt, self._rank).open("a")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        # Here and not in `setup`: a resumed trainer has its step only once the checkpoint is loaded.
        if self._step < 0:
            self._step = trainer.global_step
            self._write_record(
                {"kind": "begin", "step": self._step, "world": trainer.world_size, "host": socket.gethostname()}
            )
        self._samples += _hash_samples(batch)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        loss = get_detached_loss(outputs)
        # Hexadecimal: exact, which a rounded decimal number is not.
        self._losses.append("none" if loss is None else float(loss).hex())
        if trainer.global_step == self._step:  # gradients still accumulate
            return
        self._step = trainer.global_step
        self._write_record(
            {"kind": "step", "step": self._step, "samples": sorted(self._samples), "losses": self._losses}
        )
        self._samples, self._losses = [], []
        if self._order.last_step is not None and self._step >= self._order.last_step:
            self._write_record({"kind": "weights", "step": self._step, "digest": _hash_parameters(pl_module)})
            self._report_and_wait(None)
        if self._order.awaits_signal and not self._has_waited and self._is_signal_due():
            self._has_waited = True
            self._report_and_wait(get_sent_path(self._folder, self._order.attempt))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # Of all ranks, though one writes: each must wait at the same step.
        if self._saved_step is None:
            self._saved_step = trainer.global_step

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _is_signal_due(self) -> bool:
        if self._order.signal_step is not None:
            return self._step >= self._order.signal_step
        return self._saved_step is not None and self._step >= self._saved_step + _STEPS_AFTER_SAVE

    def _report_and_wait(self, awaited: Path | None) -> None:
        """Report that this rank has come to its place; wait for the file `awaited`, or to be killed."""
        get_reached_path(self._folder, self._order.attempt, self._rank).touch()
        deadline = time.monotonic() + _MAX_WAIT_SECONDS
        while time.monotonic() < deadline and (awaited is None or not awaited.exists()):
            time.sleep(_POLL_SECONDS)

    def _write_record(self, record: Mapping[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(record, separators=(",", ":")) + "\n")
            self._file.flush()  # to the operating system: it is kept when the process is killed


def _hash_samples(batch: object) -> list[str]:
    """Return a digest for each sample of a batch; one for all where its tensors do not have as many rows each."""
    tensors = [tensor.detach().cpu() for tensor in _iterate_tensors(batch)]
    # By rows, so that the same samples are recognised in batches of another number of processes.
    rows = {tensor.shape[0] if tensor.ndim else -1 for tensor in tensors}
    if len(rows) != 1 or -1 in rows:
        return [str(digests.hash_value([digests.hash_tensor(tensor) for tensor in tensors]))]
    return [
        str(digests.hash_value([digests.hash_tensor(tensor[row]) for tensor in tensors])) for row in range(rows.pop())
    ]


def _iterate_tensors(value: object) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _iterate_tensors(part)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for part in value:
            yield from _iterate_tensors(part)


def _hash_parameters(module: LightningModule) -> str:
    return str(digests.hash_value({name: digests.hash_tensor(value) for name, value in module.state_dict().items()}))
