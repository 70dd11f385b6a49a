"""The training step of one of several processes that share a sharded model, taken without the others.

torch's own `fully_shard` runs in a process group whose collectives send nothing. So what is gathered, prefetched, kept
and freed, and when, is not modelled: it is what a run does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
import torch.distributed as dist
import torch.distributed._tools.fake_collectives  # registers collectives for tensors without data
from pytorch_lightning import LightningModule
from torch._ops import OpOverload
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor._sharding_prop import ShardingPropagator
from torch.testing._internal.distributed.fake_pg import FakeStore

from mlscale.estimate.live_tensors import LiveTensorMode, iterate_tensors
from mlscale.estimate.step import PrepareTask, TakeStep
from mlscale.train.strategies.fsdp import create_mesh, share_buffers
from mlscale.train.strategies.sharding import ShardedSteps, ShardSettings, shard_module

# The purposes of arguments of `fully_shard`'s operations, by the position or the name of the argument.
_PURPOSES: Mapping[str, Mapping[int | str, str]] = {
    "fsdp::all_gather_copy_in": {1: "exchange_buffers"},
    "fsdp::split_with_sizes_copy": {"out": "gathered_weights"},
    "fsdp::chunk_cat": {0: "whole_gradients", "out": "exchange_buffers"},
}
# With CPU offload a reduced gradient goes to the host at once.
_OFFLOADED_PURPOSES: Mapping[str, Mapping[int | str, str]] = {
    **_PURPOSES,
    "c10d::_reduce_scatter_base_": {0: "gradients"},
}
_HOSTED = frozenset({"parameters", "gradients", "optimizer_state"})


@dataclass(frozen=True)
class Sharding:
    """Processes that share a model.

    Attributes:
        ranks: their number.
        settings: those of the strategy; CPU offload is for steps on a CUDA device.
        replicate: number of groups of processes that each hold a whole model.
    """

    ranks: int
    settings: ShardSettings = field(default_factory=ShardSettings)
    replicate: int = 1
    # By scripts/bench_estimate_fsdp.py: see docs/benchmarks.md.
    measured_error: ClassVar[str] = "off by −3.8 to +0.7 % in 22 runs of models that nothing was adjusted to"

    @contextlib.contextmanager
    def simulate_first(self, precision: str, live: LiveTensorMode) -> Iterator[PrepareTask]:
        """Yield a function that shards a task, in a process that is the first one in this block.

        No process has larger shards: what can't be divided evenly goes to the first ones.
        """
        live.purposes = _PURPOSES
        if self.settings.cpu_offload:
            live.purposes, live.hosted, live.scratch = _OFFLOADED_PURPOSES, _HOSTED, count_copied_shards
        # On a CPU, where nothing can be offloaded: its purpose shows what is on the host in a run.
        settings = replace(self.settings, cpu_offload=False)
        dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=self.ranks)
        try:
            mesh = create_mesh("cpu", self.ranks, self.replicate)
            with _count_resized_storages(live), _skip_sharding_propagation(live):
                yield lambda task: _shard_task(task, mesh, settings, precision, live)
        finally:
            dist.destroy_process_group()


def count_copied_shards(func: OpOverload, args: tuple[Any, ...], result: object) -> int:
    """Return the bytes of the shards that are copied from the host to the device, where the whole is gathered.

    Weights that are cast are copied to a buffer in any case.
    """
    if func._schema.name != "fsdp::all_gather_copy_in" or args[1].dtype != torch.float32:
        return 0
    return sum(shard.nbytes for shard in iterate_tensors(args[0]))


def _shard_task(
    task: LightningModule, mesh: DeviceMesh, settings: ShardSettings, precision: str, live: LiveTensorMode
) -> TakeStep:
    live.add_tensors([*task.parameters(), *task.buffers()])
    root: Any = ShardedSteps(task)
    shard_module(root, mesh, settings, precision)
    # Until here the process holds the whole model, which may be more than any of its steps does.
    live.restart_peak()

    def take_step(batch: object, number: int, is_last: bool) -> Any:
        # As in a run: accumulated gradients stay whole until the last pass.
        root.set_requires_gradient_sync(is_last)
        share_buffers(task)
        return root("training_step", batch, number)

    return take_step


@contextlib.contextmanager
def _count_resized_storages(live: LiveTensorMode) -> Iterator[None]:
    """Let `live` see that storages are resized: FSDP frees and allocates gathered weights so, without an operation."""
    resize = torch.UntypedStorage.resize_

    def resize_counted(storage: torch.UntypedStorage, size: int) -> Any:
        result = resize(storage, size)
        live.update_storage(storage)
        return result

    patched: Any = torch.UntypedStorage
    patched.resize_ = resize_counted
    try:
        yield
    finally:
        patched.resize_ = resize


@contextlib.contextmanager
def _skip_sharding_propagation(live: LiveTensorMode) -> Iterator[None]:
    """Let `live` skip the tensors by which a sharded tensor derives the shape of a result: they are whole, and fake."""
    # torch enters this around each such derivation.
    before = ShardingPropagator._fake_mode_lock
    patched: Any = ShardingPropagator
    patched._fake_mode_lock = live.pause
    try:
        yield
    finally:
        patched._fake_mode_lock = before
