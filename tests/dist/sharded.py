"""What each of two ranks does in the tests of FSDP: in a module, for the fork server imports it by name."""

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from mlscale.errors import MLScaleError
from mlscale.tasks import Classification
from mlscale.train import strategies
from mlscale.train.callbacks import EMA, Freeze, GradNorm, NonFinite, TrainMetrics
from mlscale.train.checkpoint.lightning_io import VerifiedCheckpointIO
from mlscale.train.strategies.full_state import get_local
from mlscale.train.strategies.wrapping import checkpoint_activations
from mlscale.train.trainer_patches import apply_trainer_patches
from tests.unit.fitting import At, batches, fit, trainer

CALLBACKS: dict[str, Any] = {
    "ema": partial(EMA, warmup="polyak", every=1),
    "freeze": partial(Freeze, modules=["model.blocks.0"], until_epoch=1),
    "metrics": TrainMetrics,
    "grad_norm": partial(GradNorm, per_layer=True),
    "nonfinite": NonFinite,
}
ADAM = partial(torch.optim.AdamW, lr=0.01)


class Block(nn.Module):
    """A residual block with dropout."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.wide, self.narrow = (
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.Linear(2 * width, width),
        )
        self.dropout = nn.Dropout(0.1)

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = h + self.dropout(self.narrow(torch.relu(self.wide(self.norm(h)))))
        return out


class Network(nn.Module):
    """An odd width, so that no tensor is cut evenly; BatchNorm, so that ranks have buffers."""

    def __init__(self, width: int = 7) -> None:
        super().__init__()
        # Without a bias: BatchNorm makes its gradient rounding alone, which Adam then takes steps by.
        self.stem, self.norm = nn.Linear(3, width, bias=False), nn.BatchNorm1d(width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(2))
        self.head = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.stem(x))
        for block in self.blocks:
            h = block(h)
        logits: Tensor = self.head(h)
        return logits


def task(model: nn.Module | None = None, optimizer: Any = ADAM) -> Classification:
    torch.manual_seed(0)
    return Classification(2, model=model or Network(), optimizer=optimizer)


def create_muon(parameters: Any) -> torch.optim.Optimizer:
    """timm's Muon, whose iterations are in float32 here: in bfloat16, ranks that share a matrix round it in another
    order."""
    from timm.optim import muon

    muon.zeropower_via_newtonschulz = partial(muon.zeropower_via_newtonschulz, dtype=torch.float32)
    return muon.Muon(parameters, lr=0.01)


def run(strategy: str, arguments: dict[str, Any] | None = None, **settings: Any) -> pl.Trainer:
    torch.set_num_threads(1)
    ranks = int(os.environ["WORLD_SIZE"])
    made = getattr(strategies, strategy)(world_size=ranks, timeout=60, **settings)
    made = trainer(devices=ranks, strategy=made, plugins=[VerifiedCheckpointIO()], **arguments or {})
    apply_trainer_patches(made)
    return made


def of_rank(data: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return data[int(os.environ["RANK"]) :: int(os.environ["WORLD_SIZE"])]


def losses(callbacks: Sequence[pl.Callback] = ()) -> tuple[list[float], list[pl.Callback]]:
    """A list that fills with each batch's loss, and the callbacks that fill it."""
    seen: list[float] = []
    return seen, [*callbacks, _Losses(seen)]


class _Losses(pl.Callback):
    def __init__(self, seen: list[float]) -> None:
        self.seen = seen

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
        self.seen.append(float(outputs["loss"]))


def curve(argument: str) -> dict[str, Any]:
    """Train and validate; the losses, and the weights at the end, whole. Words: a setting of the trainer or of the
    strategy, a callback, `recompute`."""
    strategy, *words = argument.split(" ")
    options: dict[str, Any] = {"max_epochs": 2, "gradient_clip_val": 0.5}
    settings: dict[str, Any] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name in ("accumulate_grad_batches", "precision"):
            options[name] = int(value) if value.isdigit() else value
        elif value:
            settings[name] = yaml.safe_load(value)
    seen, callbacks = losses([CALLBACKS[word]() for word in words if word in CALLBACKS])
    module = task(optimizer=create_muon if "muon" in words else ADAM)
    if "recompute" in words:
        assert len(checkpoint_activations(module)) == 2
    made = run(strategy, options | {"callbacks": callbacks}, **settings)
    fit(made, module, of_rank(batches(16)), of_rank(batches(4, seed=1)))
    whole = {name: _whole(value) for name, value in module.state_dict().items()}
    values = {name: value.item() for name, value in made.callback_metrics.items()}
    return {"losses": seen, "weights": whole, "metrics": values}


def _whole(tensor: Tensor) -> Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def save(argument: str) -> list[float]:
    """Train six batches and save after the third; the losses from then on."""
    strategy, path = argument.split(" ")

    def keep(trainer: pl.Trainer, module: Any, index: int) -> None:
        if index == 2:
            trainer.save_checkpoint(path)

    seen, callbacks = losses([At(keep)])
    fit(run(strategy, {"callbacks": callbacks}), task(), of_rank(batches(12)))
    return seen


def reload(argument: str) -> int:
    """Load a checkpoint and save it, without a step between; how often this rank has read it."""
    strategy, path, again = argument.split(" ")
    made = run(strategy, {"max_steps": 3})
    io: Any = made.strategy.checkpoint_io
    read, reads = io.load_checkpoint, list[str]()

    def read_and_note(*arguments: Any, **options: Any) -> Any:
        reads.append(path)
        return read(*arguments, **options)

    io.load_checkpoint = read_and_note
    made.fit(task(), of_rank(batches(12)), ckpt_path=path, weights_only=True)
    made.save_checkpoint(again)
    return len(reads)


def count_collectives(argument: str) -> dict[str, int]:
    """The collectives of FSDP in an epoch of eight batches, by name."""
    made = run("fsdp", {"accumulate_grad_batches": int(argument)})
    seen: dict[str, int] = {}
    earlier_names = {"all_gather_single": "all_gather_into_tensor", "reduce_scatter_single": "reduce_scatter_tensor"}
    for name, earlier in earlier_names.items():
        _count_calls(name, name if hasattr(torch.distributed, name) else earlier, seen)
    fit(made, task(), of_rank(batches(16)))
    return seen


def _count_calls(name: str, function: str, seen: dict[str, int]) -> None:
    call = getattr(torch.distributed, function)
    seen[name] = 0

    def count(*args: Any, **kwargs: Any) -> Any:
        seen[name] += 1
        return call(*args, **kwargs)

    setattr(torch.distributed, function, count)


def refused(argument: str) -> str:
    """The error of a module that FSDP can't train, or not with each of its layers gathered on its own."""
    settings: dict[str, Any] = {"wrap_min_params": 1} if argument == "others" else {}
    network: Network = ScaledNetwork() if argument == "scalar" else ReadByOthers()
    module = task(network)
    module.automatic_optimization = argument != "manual"
    try:
        fit(run("fsdp", **settings), module, of_rank(batches(4)))
    except MLScaleError as error:
        return str(error)
    return "nothing refused"


class ReadByOthers(Network):
    """Uses the weights of a layer itself, and not by the layer's forward pass."""

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = super().forward(x)
        first = next(part for part in self.modules() if isinstance(part, nn.Linear))
        return output + (x.flatten(1) @ first.weight.T).mean()


class ScaledNetwork(Network):
    """With a parameter that has no dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))


def memory(strategy: str) -> dict[str, int]:
    """Bytes that this rank holds after a step, by purpose: of each tensor's own storage."""
    made = run(strategy, {"max_steps": 2})
    module = task(Network(64))
    held: dict[str, int] = {}

    def note(trainer: pl.Trainer, module: Any, index: int) -> None:
        parameters = list(module.parameters())
        held["parameters"] = _count_bytes(parameters)
        held["gradients"] = _count_bytes([value.grad for value in parameters if value.grad is not None])
        state = trainer.optimizers[0].state.values()
        held["optimizer"] = _count_bytes([value for entry in state for value in entry.values() if value.dim()])

    made.callbacks.append(At(note))  # type: ignore[attr-defined]  # set by a connector
    fit(made, module, of_rank(batches(8)))
    return held


def list_placements(argument: str) -> list[str]:
    """The mesh and the placement of the parameters, where groups each hold a model."""
    module = task()
    fit(run("fsdp", replicate=2), module, of_rank(batches(16)))
    shards = [value for value in module.parameters() if isinstance(value, DTensor)]
    return sorted({f"{value.device_mesh.shape} {value.placements}" for value in shards})


def _count_bytes(tensors: list[Tensor]) -> int:
    # By address: gradients may share a bucket.
    storages = [get_local(tensor).untyped_storage() for tensor in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def tied(argument: str) -> dict[str, Any]:
    """Train a model that reads and writes by one matrix; its losses, and whether it is still one."""
    seen, callbacks = losses()
    model = TiedNetwork()
    settings = {"wrap_min_params": 10} if argument == "fsdp" else {}
    fit(run(argument, {"callbacks": callbacks}, **settings), task(model), of_rank(batches(8)))
    return {"losses": seen, "same": model.first.weight is model.second.weight}


class TiedNetwork(nn.Module):
    """Two layers that are the same matrix, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.relu(self.second(torch.relu(self.first(x)))))
        return logits
