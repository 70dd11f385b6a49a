"""Users' own map-style datasets, unchanged, in mlscale's order."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset, default_collate

from mlscale.data.augment import BatchAugment, global_generators_kept, seed_generators
from mlscale.data.facts import DataFacts
from mlscale.data.labels import encode_labels, find_classes
from mlscale.data.loader import Stream
from mlscale.data.module import OrderedData
from mlscale.data.order import sample_seeds
from mlscale.data.plan import Batch, Plan
from mlscale.errors import MLScaleError

_PROBED = 64


class DatasetData(OrderedData):
    """Any `torch.utils.data.Dataset` with a length, whose samples are (x, y), or dicts with `x` and `y`.

    x is a tensor: floats are taken as they are, uint8 images are divided by 255; normalising is the dataset's own
    business. y is a class number. Other entries of a dict are collated as torch does. Before a sample is asked for,
    torch's, Python's and numpy's global generators are set from (seed, position), so random transforms inside the
    dataset repeat, too, and they do not disturb the training loop's draws.

    Args:
        train: the training dataset.
        val: the validation dataset.
        test: the test dataset; None for none.
        batch_size: samples of one optimizer step, over all ranks and forward passes.
        workers: processes that load, per rank; auto is 0, in the training process itself. The batches are the same.
        seed: of order, augmentation and the dataset's own random numbers.
        augment: `Augment`, or a callable on one x; training only.
    """

    def __init__(
        self,
        train: Dataset[Any],
        val: Dataset[Any],
        test: Dataset[Any] | None = None,
        batch_size: int = 64,
        workers: int | str = "auto",
        seed: int = 0,
        augment: object = None,
    ) -> None:
        super().__init__(batch_size=batch_size, workers=workers, seed=seed, augment=augment)
        self._datasets = {"train": train, "val": val, **({} if test is None else {"test": test})}
        self._facts: DataFacts | None = None
        self._versions: dict[str, str] = {}

    def facts(self) -> DataFacts:
        """Class count, shape, samples, version. Labels come from `targets`, `labels` or tensors where the dataset has
        them, else every sample is asked for once.

        Raises:
            MLScaleError: a dataset has no length or is empty, its samples are of another kind, or labels are not 0 to
                n-1.
        """
        if self._facts is None:
            self._facts = self._read()
        return self._facts

    def _threads(self) -> int:
        return self.workers if isinstance(self.workers, int) else 0

    def _read(self) -> DataFacts:
        for split, dataset in self._datasets.items():
            if not hasattr(dataset, "__len__") or len(dataset) == 0:
                raise MLScaleError(
                    f"The dataset {type(dataset).__name__} "
                    + ("is empty." if hasattr(dataset, "__len__") else "has no length."),
                    where=f"data.{split}",
                    why="the order of samples is computed from how many there are",
                    fix="give it __len__ and __getitem__, or write it as shards",
                )
        labels = {split: _labels(dataset, f"data.{split}") for split, dataset in self._datasets.items()}
        classes = find_classes(labels["train"], where="data.train")
        for split in labels:
            encode_labels(labels[split], classes, where=f"data.{split}")
        for split, dataset in self._datasets.items():
            self._versions[split] = _digest(dataset, labels[split], f"data.{split}")
        with global_generators_kept():
            seed_generators(0)
            x, _ = as_pair(self._datasets["train"][0], "data.train")
        channels, height, width = (*(1,) * (3 - x.ndim), *x.shape)[-3:] if x.ndim <= 3 else x.shape[-3:]
        version = hashlib.sha256("|".join(f"{k}={v}" for k, v in self._versions.items()).encode())
        return DataFacts(
            num_classes=classes.count,
            channels=channels,
            height=height,
            width=width,
            train_samples=len(labels["train"]),
            val_samples=len(labels["val"]),
            version=version.hexdigest()[:16],
            class_counts=classes.samples,
        )

    def _stream(self, split: str) -> tuple[Stream, int, str]:
        self.facts()
        if split not in self._datasets:
            raise MLScaleError(f"This data has no {split} split.", where=f"data.{split}", fix="split=val")
        dataset = self._datasets[split]
        augment = self.augment if split == "train" else None
        stream = DatasetStream(dataset, split=split, workers=self._threads(), augment=augment, seed=self.seed)
        return stream, len(dataset), self._versions[split]  # type: ignore[arg-type]  # asked in _read


class DatasetStream:
    """Makes batches by asking a dataset, in this process or in others; the batches are the same."""

    def __init__(
        self, dataset: Dataset[Any], *, split: str, workers: int, augment: BatchAugment | None, seed: int
    ) -> None:
        self._samples = _Seeded(dataset, f"data.{split}")
        self._split, self._workers, self._augment, self._seed = split, workers, augment, seed

    def __call__(self, plans: Iterable[Plan]) -> Iterator[Batch]:
        if self._workers == 0:
            for plan in plans:
                with global_generators_kept():
                    samples = [self._samples[request] for request in self._requests(plan)]
                yield self._finish(plan, default_collate(samples))
            return
        # A sampler is asked for its batches once, in this process; the plans are needed again as results come.
        kept = list(plans)
        loader: DataLoader[Any] = DataLoader(
            self._samples,
            batch_sampler=[self._requests(plan) for plan in kept],
            num_workers=self._workers,
            worker_init_fn=_forget_signals,
            generator=torch.Generator().manual_seed(0),  # else it draws its workers' seed from the global one
        )
        for plan, batch in zip(kept, loader, strict=True):
            yield self._finish(plan, batch)

    def _requests(self, plan: Plan) -> list[tuple[int, int]]:
        seeds = sample_seeds(plan.positions, seed=self._seed, epoch=plan.epoch, stream=f"dataset {self._split}")
        return list(zip(plan.samples.tolist(), seeds.tolist(), strict=True))

    def _finish(self, plan: Plan, batch: dict[str, Any]) -> Batch:
        x = batch["x"]
        if self._augment is not None:
            seeds = sample_seeds(plan.positions, seed=self._seed, epoch=plan.epoch, stream="augment")
            x = self._augment(x, seeds)
        batch["x"] = x.float()
        batch["key"] = [f"{self._split}/{sample}" for sample in plan.samples.tolist()]
        if plan.weight is not None:
            batch["weight"] = torch.full((len(plan.samples),), plan.weight)
        return batch


class _Seeded(Dataset[dict[str, Any]]):
    """A dataset asked by (sample, seed)."""

    def __init__(self, dataset: Dataset[Any], where: str) -> None:
        self._dataset, self._where = dataset, where

    def __len__(self) -> int:
        return len(self._dataset)  # type: ignore[arg-type]

    def __getitem__(self, request: tuple[int, int]) -> dict[str, Any]:
        index, seed = request
        seed_generators(seed)
        sample = self._dataset[index]
        x, y = as_pair(sample, self._where)
        extra = {k: v for k, v in sample.items() if k not in ("x", "y")} if isinstance(sample, Mapping) else {}
        return {"x": x, "y": torch.tensor(y), **extra}


def as_pair(sample: Any, where: str) -> tuple[Tensor, int]:
    """x and y of a sample.

    Raises:
        MLScaleError: it is neither a pair nor a dict with x and y, x is no array, or y no whole number.
    """
    if isinstance(sample, Mapping):
        x, y = sample.get("x"), sample.get("y")
        kind = f"a dict of {', '.join(map(str, sample))}"
    elif isinstance(sample, tuple | list) and len(sample) == 2:
        x, y = sample
        kind = f"({type(x).__name__}, {type(y).__name__})"
    else:
        x, y, kind = None, None, type(sample).__name__
    if isinstance(x, np.ndarray):
        x = torch.from_numpy(x)
    if isinstance(y, Tensor | np.generic | np.ndarray) and np.asarray(y).size == 1:
        y = y.item()
    if not isinstance(x, Tensor) or isinstance(y, bool) or not isinstance(y, int):
        raise MLScaleError(
            f"The dataset's samples are {kind}.",
            where=where,
            why="a sample is (x, y) or a dict with x and y: x a tensor, y a class number",
            fix="let the dataset return tensors (transform=torchvision.transforms.v2.ToImage()) and whole numbers",
        )
    return (x.float() / 255 if x.dtype == torch.uint8 else x), y


def _labels(dataset: Any, where: str) -> list[int | str]:
    """Every label, the quick way where there is one."""
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) == 2:
        return [int(y) for y in dataset.tensors[1].tolist()]
    if isinstance(dataset, Subset):
        every = _labels(dataset.dataset, where)
        return [every[i] for i in dataset.indices]
    for name in ("targets", "labels"):
        values = getattr(dataset, name, None)
        if isinstance(values, Tensor | np.ndarray):
            values = values.tolist()
        if isinstance(values, list) and len(values) == len(dataset) and all(isinstance(y, int) for y in values):
            return list(values)
    with global_generators_kept():
        return [as_pair(dataset[i], where)[1] for i in range(len(dataset))]


def _digest(dataset: Any, labels: list[int | str], where: str) -> str:
    """Labels, and the values of some samples, evenly spread."""
    total = hashlib.sha256(np.asarray(labels, "<i8").tobytes())
    with global_generators_kept():
        for i in np.unique(np.linspace(0, len(labels) - 1, _PROBED).astype(int)).tolist():
            seed_generators(0)
            total.update(as_pair(dataset[i], where)[0].contiguous().numpy().tobytes())
    return total.hexdigest()[:16]


def _forget_signals(_worker: int) -> None:
    """A forked worker inherits the trainer's handlers, and would act on signals that are meant for the trainer."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
