"""What each of two ranks does in the tests of manual optimization under FSDP: a GAN as in Lightning's examples, a
classifier, and steps that FSDP can't run."""

from copy import deepcopy
from functools import partial
from typing import Any, cast

import pytorch_lightning as pl
import torch
import yaml
from torch import Tensor, nn
from torch.distributed.fsdp import register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.nn import functional as F

from mlscale.errors import MLScaleError
from mlscale.train.callbacks.checkpoints import Checkpoints
from mlscale.train.checkpoint.exact_resume import ExactResume
from tests.dist.sharded import CALLBACKS, Block, Network, _whole, of_rank, run
from tests.unit.fitting import Loader, batches, fit

ADAM = partial(torch.optim.Adam, lr=2e-3, betas=(0.5, 0.999))
Losses = list[tuple[float, ...]]


class Net(nn.Module):
    """A network of blocks without dropout: its steps draw noise, and ranks would draw it in another order."""

    def __init__(self, features: int, outputs: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Linear(features, width, bias=False)
        self.norm = nn.BatchNorm1d(width) if outputs > 1 else nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(2))
        self.head = nn.Linear(width, outputs)
        for block in self.blocks:
            block.dropout = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.norm(self.stem(x)))
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.head(h)
        return out


class Gan(pl.LightningModule):
    """Clipping, an average of the generator, a dictionary that has no forward pass, and toggled optimizers with two
    passes of the critic for an update; or neither of these two."""

    def __init__(self, is_plain: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.automatic_optimization, self.is_plain = False, is_plain
        self.generator = Net(5, 3, 33)
        self.critics = nn.ModuleDict({"main": Net(3, 1, 31)})
        self.average = deepcopy(self.generator).requires_grad_(False)
        self.losses: Losses = []

    def forward(self, noise: Tensor) -> Tensor:
        made: Tensor = self.generator(noise)
        return made

    def compare(self, real: Tensor, made: Tensor) -> Tensor:
        if not self.is_plain:
            return (self.criticise(real, 1.0) + self.criticise(made, 0.0)) / 2
        logits = self.critics["main"](torch.cat([real, made]))
        return F.binary_cross_entropy_with_logits(logits, (torch.arange(len(logits)) < len(real)).to(logits)[:, None])

    def criticise(self, x: Tensor, label: float) -> Tensor:
        logits = self.critics["main"](x)
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))

    def training_step(self, batch: Any, index: int) -> None:
        real, optimizers = batch["x"], cast(Any, self.optimizers())
        first, second = optimizers
        noise = torch.randn(
            len(real), 5, generator=torch.Generator().manual_seed(2 * self.global_step + self.global_rank)
        )
        if not self.is_plain:
            self.toggle_optimizer(first)
        fooled = self.criticise(self(noise), 1.0)
        self.manual_backward(fooled)
        self.clip_gradients(first, gradient_clip_val=0.5, gradient_clip_algorithm="norm")
        first.step()
        first.zero_grad()
        if not self.is_plain:
            self.untoggle_optimizer(first)
            self.toggle_optimizer(second)
        else:
            second.zero_grad()
        with torch.no_grad():
            for average, weight in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                average.lerp_(weight, 0.1)
        separated = self.compare(real, self(noise).detach())
        self.manual_backward(separated)
        second.step()
        second.zero_grad()
        if not self.is_plain:
            self.untoggle_optimizer(second)
        self.losses.append((fooled.item(), separated.item()))
        self.log("train/separated", separated.detach(), sync_dist=True)

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("val/loss", self.criticise(batch["x"], 1.0), sync_dist=True)
        self.log("val/average", self.average(torch.ones(2, 5)).mean(), sync_dist=True)

    def configure_optimizers(self) -> Any:
        return ADAM(self.generator.parameters()), ADAM(self.critics.parameters())


class Step(pl.LightningModule):
    """A classifier that optimizes manually, every second batch; its subclasses do what FSDP can't."""

    def __init__(self, model: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.automatic_optimization = False
        self.model: Any = model or Network()
        self.losses: Losses = []

    def compute_loss(self, batch: Any) -> Tensor:
        return F.cross_entropy(self.model(batch["x"]), batch["y"])

    def training_step(self, batch: Any, index: int) -> Tensor:
        optimizer: Any = self.optimizers()
        loss = self.compute_loss(batch)
        self.manual_backward(loss)
        if index % 2:
            self.clip_gradients(optimizer, gradient_clip_val=0.5, gradient_clip_algorithm="norm")
            optimizer.step()
            optimizer.zero_grad()
        self.losses.append((loss.item(),))
        return loss.detach()

    def validation_step(self, batch: Any, index: int) -> None:
        # Of the first rank alone: with DDP, other ranks have their own statistics of BatchNorm.
        self.log("val/loss", self.compute_loss(batch))

    def configure_optimizers(self) -> Any:
        return ADAM(self.parameters())


class Coder(nn.Module):
    """A model that is used by other methods than `forward`."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Block(3), nn.Linear(3, 2)

    def encode(self, x: Tensor) -> Tensor:
        code: Tensor = self.encoder(x)
        return code

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.decoder(self.encoder(x))
        return logits


class Own(Step):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))


class Shared(Step):
    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Linear(7, 2)
        self.second.weight = self.model.head.weight


class Method(Step):
    def __init__(self, is_registered: bool = False) -> None:
        super().__init__(Coder())
        self.is_registered = is_registered

    def on_fit_start(self) -> None:
        if self.is_registered:
            register_fsdp_forward_method(self.model, "encode")

    def compute_loss(self, batch: Any) -> Tensor:
        return F.cross_entropy(self.model.encode(batch["x"]), batch["y"])


class Inner(Step):
    def __init__(self) -> None:
        super().__init__(Coder())

    def compute_loss(self, batch: Any) -> Tensor:
        return F.cross_entropy(self.model.encoder(batch["x"]), batch["y"])


class Penalty(Step):
    def compute_loss(self, batch: Any) -> Tensor:
        x = batch["x"].requires_grad_()
        (gradient,) = torch.autograd.grad(self.model(x).sum(), x, create_graph=True)
        penalty: Tensor = gradient.square().mean()
        return penalty


class Late(Step):
    def compute_loss(self, batch: Any) -> Tensor:
        loss, optimizer = super().compute_loss(batch), cast(Any, self.optimizers())
        if torch.is_grad_enabled():
            self.manual_backward(super().compute_loss(batch))
            optimizer.step()
        return loss


def create(kind: str) -> Any:
    kinds: dict[str, Any] = {"gan": Gan, "plain_gan": partial(Gan, is_plain=True), "classifier": Step}
    kinds |= {"own": Own, "shared": Shared, "method": Method, "inner": Inner, "penalty": Penalty, "late": Late}
    return kinds[kind]() if kind != "registered" else Method(is_registered=True)


def curve(argument: str) -> dict[str, Any]:
    """Train and validate. Words: a strategy, a kind of module, batches; callbacks, settings of strategy and trainer."""
    strategy, kind, count, *words = argument.split()
    if "float64" in words:
        torch.set_default_dtype(torch.float64)
    options, settings = dict[str, Any](max_epochs=2), dict[str, Any]()
    for word in words:
        name, _, value = word.partition("=")
        if name in ("precision", "max_epochs"):
            options[name] = int(value) if value.isdigit() else value
        elif value:
            settings[name] = yaml.safe_load(value)
        elif word in CALLBACKS:
            options.setdefault("callbacks", []).append(CALLBACKS[word]())
    if strategy == "ddp":
        settings = {"find_unused_parameters": True}  # those of the optimizer that is not toggled
    module, made = create(kind), run(strategy, options, **settings)
    data, checks = (
        [batch | {"x": batch["x"].to(torch.get_default_dtype())} for batch in of_rank(batches(number, seed=seed))]
        for number, seed in ((int(count), 0), (4, 1))
    )
    fit(made, module, data, checks)
    weights = {name: _whole(value) for name, value in module.state_dict().items()}
    metrics = {name: value.item() for name, value in made.callback_metrics.items()}
    metrics.pop("train/peak_memory_gib", None)
    sharded = sum(isinstance(value, DTensor) for value in module.parameters())
    return {"losses": module.losses, "weights": weights, "metrics": metrics, "sharded": sharded}


def explain(kinds: str) -> list[str]:
    """The errors of modules that can't be trained."""
    errors = []
    for kind in kinds.split(" "):
        try:
            fit(run("fsdp"), create(kind), of_rank(batches(4)))
        except MLScaleError as error:
            errors.append(f"{error}")
        else:
            errors.append(f"{kind} was trained")
    return errors


def resume(argument: str) -> Losses:
    """Train two epochs of a GAN with a checkpoint every fourth step, from one if it is named; the losses."""
    strategy, folder, resumed, *words = argument.split(" ")
    callbacks = [ExactResume(0), Checkpoints(folder, save_top_k=0, every_n_steps=4, keep=-1)]
    options = {"callbacks": callbacks, "max_epochs": 2, "enable_checkpointing": True}
    made, module = run(strategy, options, **dict.fromkeys(words, True)), create("gan")
    path = None if resumed == "-" else resumed
    made.fit(module, Loader(of_rank(batches(10))), Loader(batches(1)), ckpt_path=path, weights_only=True)
    losses: Losses = module.losses
    return losses
