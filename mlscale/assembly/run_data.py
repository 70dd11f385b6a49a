"""The data module of a run, built once in a process: facts, probes and the fit share it."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import OmegaConf

from mlscale.config.composition.frozen import add_derived

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from omegaconf import DictConfig

_SEED_VARIABLES = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")  # which Lightning sets when it seeds


@dataclass(frozen=True)
class _BuiltModule:
    """A data module as it was built.

    Attributes:
        arguments: that it was built with, resolved.
        random_states: of the global generators after building, from the run's seed on.
    """

    arguments: dict[str, Any]
    module: pl.LightningDataModule | None
    random_states: dict[str, Any]


class DataDescription(NamedTuple):
    """What is known of the data before a run, as plain values: the data itself is not kept in memory.

    Attributes:
        facts: `DataFacts` as a mapping; None for data modules that report no facts.
        encoder: its document (contract `encoder`); None for data modules that have no encoder.
    """

    facts: dict[str, Any] | None
    encoder: dict[str, Any] | None


class RunData:
    """Builds the data module of a run at its first use, and returns the same one to whatever needs it later.

    What uses it before the fit leaves no trace in it: facts are read once and kept, batches come from a copy.
    """

    def __init__(self) -> None:
        self._built: _BuiltModule | None = None

    def build_module(self, cfg: DictConfig) -> pl.LightningDataModule | None:
        """Return the data module. A config with other data gets another one."""
        arguments = _resolve_arguments(cfg)
        if self._built is None or self._built.arguments != arguments:
            self._built = _build_seeded(cfg, arguments)
        return self._built.module

    def build_for_fit(self, cfg: DictConfig) -> pl.LightningDataModule | None:
        """Seed the global generators and return the data module: they continue as if it had just been built."""
        import pytorch_lightning as pl
        import torch

        from mlscale.train.checkpoint.random_states import restore_generator_states

        pl.seed_everything(cfg.seed, verbose=False)
        module = self.build_module(cfg)
        assert self._built is not None
        restore_generator_states(self._built.random_states, torch.device("cpu"))
        return module

    def prepare_module(self, cfg: DictConfig) -> Any | None:
        """Return the data module, prepared; None for one that reports no facts.

        Raises:
            MLScaleError: the data is not available.
        """
        from mlscale.assembly.run_parts import is_plain

        if is_plain(cfg.get("data")):
            return None
        # The batch size per device is derived later, from these facts: 1 is a placeholder.
        module = self.build_module(add_derived(cfg, {"per_device_batch": 1}))
        if module is None or not hasattr(module, "facts"):
            return None
        module.prepare_data()
        return module

    def collect_facts(self, cfg: DictConfig) -> dict[str, Any] | None:
        """Return `DataFacts` as a mapping, once the data is prepared; None for data modules that report no facts.

        Raises:
            MLScaleError: data that does not exist, is empty or corrupt, all of it at once.
        """
        return self.describe_data(cfg).facts

    def describe_data(self, cfg: DictConfig) -> DataDescription:
        """Return facts and encoder of the data, once it is prepared.

        Raises:
            MLScaleError: data that does not exist, is empty or corrupt, all of it at once.
        """
        module = self.prepare_module(cfg)
        if module is None:
            return DataDescription(None, None)
        # Costs little: building a data module has imported torch and Lightning already.
        from mlscale.data.data_module import OrderedData

        encoder = module.encoder().to_document() if isinstance(module, OrderedData) else None
        return DataDescription(asdict(module.facts()), encoder)

    def load_first_batches(self, cfg: DictConfig, count: int) -> list[Any]:
        """Return the first training batches of one process, as the loader yields them, on the CPU."""
        from mlscale.assembly.run_parts import build_task

        with _isolate_generators():
            module = self._copy_module(cfg)
            if module is not None:
                module.prepare_data()
                module.setup("fit")
            source: Any = module if module is not None else build_task(cfg)
            return list(islice(iter(source.train_dataloader()), count))

    def release_module(self) -> None:
        """Forget the data module, so that its memory is free where other processes build their own."""
        self._built = None

    def _copy_module(self, cfg: DictConfig) -> pl.LightningDataModule | None:
        """Return a data module of one process, whose use changes nothing of the run's."""
        from mlscale.assembly.run_parts import build_data
        from mlscale.data.data_module import OrderedData
        from mlscale.data.map_dataset import DatasetData

        module = self.build_module(cfg)
        copied: pl.LightningDataModule | None
        if isinstance(module, OrderedData) and not isinstance(module, DatasetData):
            # Its position is its own; what was read is shared, and loading does not change it.
            copied = copy.copy(module)
        else:
            # A user's module or data set may have a state of its own.
            try:
                copied = copy.deepcopy(module)
            except Exception:  # it holds an open file, a lock or the like
                copied = build_data(cfg)
        if isinstance(copied, OrderedData) and cfg.derived.per_device_batch:
            # Without a trainer it does not know that processes and accumulated passes share the global batch.
            copied.batch_size = cfg.derived.per_device_batch
        return copied


def _build_seeded(cfg: DictConfig, arguments: dict[str, Any]) -> _BuiltModule:
    """Build the data module from the run's seed on, without an effect on the global generators."""
    import pytorch_lightning as pl
    import torch

    from mlscale.assembly.run_parts import build_data
    from mlscale.train.checkpoint.random_states import collect_generator_states

    with _isolate_generators():
        # A user's data set may draw random numbers in its constructor: the same ones, wherever it is built first.
        pl.seed_everything(cfg.seed, verbose=False)
        module = build_data(cfg)
        return _BuiltModule(arguments, module, collect_generator_states(torch.device("cpu")))


@contextmanager
def _isolate_generators() -> Iterator[None]:
    """Restore the global generators, and Lightning's variables of the seed, when the block ends."""
    from pytorch_lightning.utilities.seed import isolate_rng

    before = {name: os.environ[name] for name in _SEED_VARIABLES if name in os.environ}
    try:
        with isolate_rng(include_cuda=False):
            yield
    finally:
        for name in _SEED_VARIABLES:
            os.environ.pop(name, None)
        os.environ.update(before)


def _resolve_arguments(cfg: DictConfig) -> dict[str, Any]:
    from mlscale.assembly.run_parts import takes_device_batch

    nodes = {name: cfg.get(name) for name in ("data", "augment")}
    arguments: dict[str, Any] = {
        name: OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
        for name, node in nodes.items()
    }
    if takes_device_batch(cfg.get("data")):
        arguments["per_device_batch"] = cfg.derived.per_device_batch
    return arguments
