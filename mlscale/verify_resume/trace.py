"""Trace a run: digests of its entire state after every optimizer step. For `mlscale verify-resume`.

Stop a run at a kill point: it reports that it has stopped, and waits to be killed. For `mlscale verify-resume`.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pytorch_lightning import Callback, LightningModule, Trainer

from mlscale.runs.checkpoint_files.checkpoint_commit import AtomicCheckpointWriter
from mlscale.runs.host import processes as process
from mlscale.train.callbacks.train_metrics import get_detached_loss
from mlscale.train.checkpoint import lightning_io
from mlscale.train.checkpoint import random_states as generators
from mlscale.train.checkpoint import tensor_digests as digests
from mlscale.train.checkpoint.step_boundary import is_accumulating
from mlscale.verify_resume import object_attributes as attributes
from mlscale.verify_resume.stop_request import ORDER, get_stopped_path

if TYPE_CHECKING:
    from pytorch_lightning.loops.fetchers import _DataFetcher

_MAX_SAMPLE_KEYS = 64  # sample keys of a batch that are kept
_MACHINE_METRIC_SUFFIXES = ("_s", "_bytes", "_gib", "time", "memory")  # endings of metrics that depend on the machine


class Trace(Callback):
    """A callback that writes a line for every boundary of a run into `<folder>/rank<r>.jsonl`, and flushes it.

    A line holds digests (BLAKE2b, 8 bytes) of each parameter, buffer and tensor of the optimizer's state, the global
    random generators, and the plain attributes and generators of the run's objects (see `attributes.py`); losses and
    metrics as hexadecimal floats, which are exact; digests and sample keys of the batches. A resumed attempt writes the
    lines of repeated steps once more, below the line of its start.

    Its cost is to read all weights and the optimizer's state from the device and to hash them at each step, about a
    second per gigabyte.

    Args:
        folder: the folder to write to; every rank has its own file there. The order of `stop_request` is in it, too.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self._file: TextIO | None = None
        self._halt = KillPointHalt(self.folder)
        self._written = ("", -1)
        self._saved_at, self._saves = -1, 0  # the step of the last save, and the number of saves at it
        self._losses: list[str] = []
        self._batches: list[str] = []
        self._keys: list[str] = []

    # Hooks that write a line

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = (self.folder / f"rank{trainer.global_rank}.jsonl").open("a")
        self._file.write("\n")  # a kill may have cut the last line short
        self._write_record({"kind": "attempt"})
        epoch_loop = trainer.fit_loop.epoch_loop
        start = epoch_loop.on_run_start  # that of ExactResume, which loads batches again, and restores the generators

        def on_run_start(fetcher: _DataFetcher) -> None:
            began = time.perf_counter()
            kind = "resumed" if epoch_loop.batch_progress.current.ready else "begin"
            start(fetcher)
            self._write_state_line(kind, trainer, pl_module, seconds=time.perf_counter() - began)

        epoch_loop.on_run_start = on_run_start  # type: ignore[method-assign,assignment]  # for this trainer alone

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        self._halt.stop_at_phase("step", trainer)
        self._batches.append(str(digests.hash_value(_flatten_batch(batch))))
        keys = batch.get("key") if isinstance(batch, Mapping) else None
        self._keys += [str(key) for key in keys][:_MAX_SAMPLE_KEYS] if isinstance(keys, list | tuple) else []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        loss = get_detached_loss(outputs)
        # Hexadecimal: exact, which a rounded decimal number is not.
        self._losses.append("none" if loss is None else float(loss).hex())

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        if not trainer.sanity_checking:
            self._halt.stop_at_phase("validation", trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._write_record(
                {"kind": "validation", "step": trainer.global_step, "metrics": _collect_logged_metrics(trainer)}
            )

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write the line of a boundary before its checkpoint, if due: a checkpoint must not be ahead of the trace."""
        at_epoch = getattr(trainer.fit_loop, "_at_epoch_boundary", False)
        if self._losses or at_epoch:
            self._write_state_line("epoch" if at_epoch else "step", trainer, pl_module)
        self._write_record({"kind": "save", "step": trainer.global_step})
        self._saves = self._saves + 1 if trainer.global_step == self._saved_at else 1
        self._saved_at = trainer.global_step
        self._halt.stop_at_phase("save" if self._saves == 1 else "between", trainer)

    def on_step_boundary(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not is_accumulating(trainer):
            self._write_state_line("step", trainer, pl_module)

    def on_epoch_boundary(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write_state_line("epoch", trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write_state_line("end", trainer, pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    # Content of a line

    def _write_state_line(self, kind: str, trainer: Trainer, module: LightningModule, **more: object) -> None:
        # A save and the boundary's own hook may both write the line of a boundary.
        if self._written == (kind, trainer.global_step):
            return
        self._written = (kind, trainer.global_step)
        self._write_record(
            {
                "kind": kind,
                "step": trainer.global_step,
                "batches": self._batches,
                "keys": self._keys,
                "losses": self._losses,
                "metrics": _collect_logged_metrics(trainer),
                "tensors": _hash_tensors(module),
                "optimizer": _hash_optimizers(trainer, module),
                "generators": _hash_generators(trainer),
                "own": attributes.hash_object_attributes(trainer, module),
                **more,
            }
        )
        self._batches, self._keys, self._losses = [], [], []

    def _write_record(self, record: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(record, separators=(",", ":")) + "\n")
            self._file.flush()  # to the operating system: it is kept when the process is killed


def _hash_tensors(module: LightningModule) -> dict[str, str]:
    parameters = {f"parameter {name}": digests.hash_tensor(value) for name, value in module.named_parameters()}
    return parameters | {f"buffer {name}": digests.hash_tensor(value) for name, value in module.named_buffers()}


def _hash_optimizers(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    """Return digests of the state and settings of optimizers, schedulers and the loss scaler, by name."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    entries: dict[str, Any] = {}
    for number, optimizer in enumerate(trainer.optimizers):
        which = f"optimizer {number}" if len(trainer.optimizers) > 1 else "optimizer"
        for parameter, state in optimizer.state.items():
            target = f"of {names.get(id(parameter), 'a tensor that is not a parameter')}"
            _add_digests(entries, {f"{which}: {key} {target}": value for key, value in state.items()})
        for index, group in enumerate(optimizer.param_groups):
            _add_digests(
                entries, {f"{which}: {key} of group {index}": v for key, v in group.items() if key != "params"}
            )
    for number, config in enumerate(trainer.lr_scheduler_configs):
        _add_digests(
            entries, {f"scheduler {number}: {key}": value for key, value in config.scheduler.state_dict().items()}
        )
    _add_digests(entries, {f"precision: {key}": value for key, value in trainer.precision_plugin.state_dict().items()})
    return entries


def _add_digests(entries: dict[str, Any], values: dict[str, Any]) -> None:
    for name, value in values.items():
        digest = digests.hash_tensor(value) if hasattr(value, "untyped_storage") else digests.hash_value(value)
        if digest is not digests.NOTHING:
            entries[name] = digest


def _hash_generators(trainer: Trainer) -> dict[str, str]:
    return {
        name: str(digests.hash_value(state))
        for name, state in generators.collect_generator_states(trainer.strategy.root_device).items()
    }


def _collect_logged_metrics(trainer: Trainer) -> dict[str, str]:
    """Return the logged metrics, without times and memory."""
    return {
        name: float(value).hex() if value.is_floating_point() else str(value.item())
        for name, value in trainer.callback_metrics.items()
        if not name.endswith(_MACHINE_METRIC_SUFFIXES)
    }


def _flatten_batch(batch: object) -> Any:
    """Return a batch as containers of tensors; for a batch of another class, its attributes."""
    return batch if digests.hash_value(batch) is not digests.NOTHING else getattr(batch, "__dict__", None)


_POLL_SECONDS = 0.5


class KillPointHalt:
    """A stop at the point in `<folder>/order.json`: it creates `<folder>/there`, and waits to be killed.

    So a process is killed from outside at an exact step, whatever the speed of the machine. If the process that wrote
    the order ends, this one ends, too: no other process would kill it, or use its results. Without an order it does
    nothing.

    Args:
        folder: of the trace.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._phase: str | None = None
        self._step = 0
        if (folder / ORDER).is_file():
            order = json.loads((folder / ORDER).read_text())
            self._phase, self._step = order["place"], order["step"]
            _end_with_process(order["pid"], order["pid_start"])

    def stop_at_phase(self, phase: str, trainer: Trainer) -> None:
        """Stop if this is the ordered place: step (before a forward pass), validation (after its first batch), save, or
        between (the second save of a boundary)."""
        if phase != self._phase or trainer.global_step < self._step:
            return
        saves = phase in ("save", "between")
        if saves and isinstance(trainer.strategy.checkpoint_io, lightning_io.VerifiedCheckpointIO):
            # The one before may still be written in the background, and is not the one to interrupt.
            trainer.strategy.checkpoint_io.finish_save()
            _interrupt_next_checkpoint(self._wait_for_kill)
        # Checkpoints of Lightning's own I/O are written by rank 0 alone; at other places all ranks stop.
        elif not saves or trainer.is_global_zero:
            self._wait_for_kill()

    def _wait_for_kill(self) -> None:
        get_stopped_path(self._folder).touch()
        while True:
            time.sleep(_POLL_SECONDS)


def _end_with_process(pid: int, started: int | None) -> None:
    """End this process as soon as process `pid` has ended, which may be killed without a chance to end this one."""

    def watch_and_end() -> None:
        while process.is_alive(pid, started):
            time.sleep(_POLL_SECONDS)
        # An exception in this thread would not reach the main one.
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch_and_end, name="mlscale-verify-resume", daemon=True).start()


def _interrupt_next_checkpoint(then: Callable[[], None]) -> None:
    """Make the next checkpoint stop after its first block, and call `then`."""

    write = AtomicCheckpointWriter.write

    def write_and_stop(writer: AtomicCheckpointWriter, data: bytes | memoryview) -> int:
        write(writer, data)
        then()
        raise AssertionError("unreachable")

    # Of the class itself, wherever it is used; never restored: the process is killed before it writes another.
    AtomicCheckpointWriter.write = write_and_stop  # type: ignore[assignment,method-assign]
