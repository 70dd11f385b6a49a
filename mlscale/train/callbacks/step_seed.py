"""Seeds of the randomness inside a model: a function of the position in the run, whether or not it was resumed."""

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from mlscale.train.checkpoint.random_states import mix_seeds


class StepSeed(Callback):
    """A callback that seeds torch's default generators from (seed, epoch, batch, rank) before every forward pass.

    So dropout and the like are the same after a resume as without the interruption, and differ between ranks.
    A generator's own `manual_seed` takes 1 µs; `torch.manual_seed`, which seeds every backend, 100.

    Args:
        seed: the run's seed.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._generators: list[torch.Generator] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._generators = [torch.default_generator]
        device = trainer.strategy.root_device
        if device.type == "cuda":
            # Dropout on CUDA draws from the device's own generator.
            self._generators.append(torch.cuda.default_generators[device.index or 0])

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        value = mix_seeds(self.seed, trainer.current_epoch, batch_idx, trainer.global_rank)
        for generator in self._generators:
            generator.manual_seed(value)
