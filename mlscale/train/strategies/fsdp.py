"""Fully sharded training: each process holds a part of the weights, gradients and optimizer state (FSDP2)."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.distributed as dist
from lightning_fabric.utilities.optimizer import _optimizers_to_device
from pytorch_lightning.strategies import ModelParallelStrategy, Strategy
from pytorch_lightning.trainer.states import TrainerFn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.distributed_c10d import _get_default_group

from mlscale.config.checks.strategy_support import create_replicate_error
from mlscale.train.checkpoint.lightning_io import VerifiedCheckpointIO
from mlscale.train.strategies import full_state
from mlscale.train.strategies.full_state import is_placeholder, read_on_first_rank
from mlscale.train.strategies.sharding import ShardedSteps, ShardSettings, assert_sharded, shard_module
from mlscale.train.torch_compile import get_uncompiled_name

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from torch.optim import Optimizer

_ROOT = "_mlscale_sharded_steps"
_BUCKET_BYTES = 250 * 1024 * 1024  # DDP's, for what is broadcast


def fsdp(
    world_size: int,
    wrap: Sequence[str] | None = None,
    wrap_min_params: int | None = None,
    reduce_dtype: Literal["fp32", "bf16"] = "fp32",
    reshard_after_forward: bool = True,
    cpu_offload: bool = False,
    replicate: int = 1,
    timeout: float = 1800,
    sharded_checkpoint: bool = False,
) -> Strategy | str:
    """Return fully sharded training (torch's `fully_shard`): gloo between CPUs, NCCL between CUDA devices.

    Args:
        world_size: processes that train together; they run already, with torchrun's or SLURM's environment.
        wrap: classes of modules that are gathered one at a time; None for the model's repeated blocks.
        wrap_min_params: wrap modules of so many parameters or more.
        reduce_dtype: of gradients while they are added up over ranks, where the precision is mixed.
        reshard_after_forward: free gathered weights between the forward and the backward pass.
        cpu_offload: keep weights, gradients and optimizer state in the host's memory, on CUDA.
        replicate: groups of processes that each hold the whole model, such as one per node; 1 shards over all.
        timeout: seconds a collective waits for a missing rank.
        sharded_checkpoint: write a folder with each process's part, instead of one file by the first.

    Raises:
        MLScaleError: `replicate` does not divide the number of processes.
    """
    if world_size == 1:
        return "auto"
    if replicate < 1 or world_size % replicate or replicate == world_size:
        raise create_replicate_error(replicate, world_size)
    settings = ShardSettings(tuple(wrap or ()), wrap_min_params, reduce_dtype, reshard_after_forward, cpu_offload)
    return FullySharded(world_size, settings, replicate, timeout, sharded_checkpoint)


class FullySharded(ModelParallelStrategy):
    """Lightning's ModelParallelStrategy with an explicit mesh, sharded by this class and not by the user's module.

    Checkpoints have the same form as without FSDP: the first rank gathers one tensor at a time and writes one file; or
    each rank writes its part into a folder, which is read as the same state. They are loaded before the model is
    sharded, so that other strategies' checkpoints, and those of other numbers of processes, load as well.

    Args:
        world_size: number of processes.
        settings: how the model is sharded.
        replicate: groups that each hold a whole model.
        timeout: seconds a collective waits.
        sharded_checkpoint: whether each rank writes its part.
    """

    def __init__(
        self,
        world_size: int,
        settings: ShardSettings,
        replicate: int = 1,
        timeout: float = 1800,
        sharded_checkpoint: bool = False,
    ) -> None:
        backend = "cpu:gloo,cuda:nccl" if settings.cpu_offload and torch.cuda.is_available() else None
        super().__init__(
            data_parallel_size=world_size,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            process_group_backend=backend,
            timeout=timedelta(seconds=timeout),
        )
        self.settings, self.replicate = settings, replicate
        self.sharded_checkpoint = sharded_checkpoint
        self._checkpoint_group: dist.ProcessGroup | None = None

    # Starting.

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """False: weights are loaded into the model while it is whole."""
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        """True: the optimizer's state is loaded by `load_optimizer_state_dict`."""
        return True

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        return {"num_replicas": self.world_size, "rank": self.global_rank}

    def setup_environment(self) -> None:
        self._setup_distributed()
        self._device_mesh = create_mesh(self.root_device.type, self.world_size, self.replicate)
        assert self.lightning_module is not None
        self.lightning_module._device_mesh = self._device_mesh

    def setup(self, trainer: pl.Trainer) -> None:
        """Shard the model, and make its optimizers for the shards.

        Raises:
            MLScaleError: the module can't be sharded.
        """
        assert self.model is not None
        assert self.accelerator is not None
        self.accelerator.setup(trainer)
        module = self.lightning_module
        assert module is not None
        # A module that an earlier call of the trainer has sharded stays as it is.
        root: Any = module.__dict__.get(_ROOT)
        if root is None:
            self.model = self.precision_plugin.convert_module(self.model)
            self._share_first_weights()
            root = ShardedSteps(module)
            shard_module(root, self.device_mesh, self.settings, self.precision_plugin.precision)
            # Not as an attribute: the module would hold a module that holds it.
            module.__dict__[_ROOT] = root
        self.model = root
        assert_sharded(root, self.device_mesh)
        if not self.settings.cpu_offload:
            # What FSDP does not move, such as the states of metrics.
            self.model_to_device()
        # Before its first pass: FSDP reads the dtype of what is trained, which a step may have frozen then.
        root._get_fsdp_state()._lazy_init()
        self.barrier()
        if trainer.state.fn == TrainerFn.FITTING:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()
        if trainer.state.fn == TrainerFn.FITTING and not self.settings.cpu_offload:
            _optimizers_to_device(self.optimizers, self.root_device)

    @property
    def _root(self) -> Any:
        """The module whose class `fully_shard` has extended."""
        return self.model

    def _share_first_weights(self) -> None:
        """Give every rank the first one's weights and buffers, as DDP does; one tensor at a time is on the device."""
        assert self.model is not None
        for tensor in [*self.model.parameters(), *self.model.buffers()]:
            moved = tensor.detach().to(self.root_device).contiguous()
            dist.broadcast(moved, src=0)
            tensor.data.copy_(moved)

    # Steps: through the root's `forward`, around which FSDP gathers and frees the weights.

    def training_step(self, *args: object, **kwargs: object) -> Any:
        with self.precision_plugin.train_step_context():
            return self._run_step("training_step", *args, **kwargs)

    def validation_step(self, *args: object, **kwargs: object) -> Any:
        with self.precision_plugin.val_step_context():
            return self._run_step("validation_step", *args, **kwargs)

    def test_step(self, *args: object, **kwargs: object) -> Any:
        with self.precision_plugin.test_step_context():
            return self._run_step("test_step", *args, **kwargs)

    def predict_step(self, *args: object, **kwargs: object) -> Any:
        with self.precision_plugin.predict_step_context():
            return self._run_step("predict_step", *args, **kwargs)

    def _run_step(self, name: str, *args: object, **kwargs: object) -> Any:
        root = self._root
        share_buffers(root.task)
        output = root(name, *args, **kwargs)
        if output is None or not torch.is_grad_enabled():
            # No backward pass will free the root's weights, and they must not be taken for those of a later step.
            root.reshard()
        return output

    @contextmanager
    def block_backward_sync(self) -> Generator[None, None, None]:
        """Keep the gradients of an accumulated pass on their rank: they are added up over ranks at the last one."""
        self._root.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self._root.set_requires_gradient_sync(True)

    def teardown(self) -> None:
        super().teardown()
        # Lightning's own leaves it out: the save in flight must be waited for after a fit that failed, too.
        self.checkpoint_io.teardown()

    # Checkpoints.

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return Strategy.lightning_module_state_dict(self)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        return Strategy.optimizer_state(self, optimizer)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: object = None) -> None:
        """Gather the shards, and write one file on the first rank; or let each rank write its own. A collective."""
        io = self.checkpoint_io
        if self.sharded_checkpoint and isinstance(io, VerifiedCheckpointIO) and "://" not in str(filepath):
            if self._checkpoint_group is None:
                # Of its own: a thread uses it while the training uses the others.
                self._checkpoint_group = dist.new_group(backend="gloo", timeout=self._timeout)
            io.save_sharded(checkpoint, filepath, self._checkpoint_group)
            return
        whole = full_state.gather_tensors(checkpoint, keep=self.is_global_zero)
        if self.is_global_zero:
            self.checkpoint_io.save_checkpoint(whole, filepath, storage_options=storage_options)

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Read a checkpoint on the first rank; others have placeholders for what they get when it is loaded. A
        collective."""
        module = self.lightning_module
        parameters = {get_uncompiled_name(name) for name, _ in module.named_parameters()} if module is not None else ()
        return read_on_first_rank(lambda: Strategy.load_checkpoint(self, checkpoint_path, weights_only), parameters)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        module = self.lightning_module
        assert module is not None
        own = module.state_dict()
        state = full_state.shard_like(checkpoint["state_dict"], own)
        for name in state:
            # Before the model is sharded: `setup` gives every rank the first one's weights, and replaces these.
            if is_placeholder(state[name]) and name in own:
                state[name] = own[name]
        module.load_state_dict(state, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        states = [
            full_state.shard_optimizer_state(state, optimizer)
            for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True)
        ]
        Strategy.load_optimizer_state_dict(self, {"optimizer_states": states})


def create_mesh(device: str, ranks: int, replicate: int) -> DeviceMesh:
    """Return the mesh of `ranks` processes, in `replicate` groups that each hold a whole model."""
    if replicate > 1:
        return init_device_mesh(device, (replicate, ranks // replicate), mesh_dim_names=("replicate", "shard"))
    return init_device_mesh(device, (ranks,), mesh_dim_names=("shard",))


def share_buffers(module: pl.LightningModule) -> None:
    """Give every rank the first one's buffers before a step, as DDP does; derived tables, which are not saved, are
    the same everywhere."""
    buffers = [
        value
        for part in module.modules()
        for name, value in part._buffers.items()
        if name not in part._non_persistent_buffers_set and value is not None
    ]
    if buffers:
        dist._broadcast_coalesced(_get_default_group(), buffers, _BUCKET_BYTES, 0)  # type: ignore[attr-defined]  # DDP calls it, too
