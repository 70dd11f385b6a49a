"""Batches of a user's own map-style dataset: each sample by its number and a seed."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from mlscale.data.augmentations.augmentation import BatchAugment, preserve_global_generators, seed_generators
from mlscale.data.order.bad_samples import BadSample
from mlscale.data.order.batch_plan import Batch, BatchPlan
from mlscale.data.order.keyed_permutation import derive_sample_seeds
from mlscale.errors import MLScaleError


class DatasetStream:
    """Makes batches of a dataset's samples, in this process or in workers; the batches are the same."""

    def __init__(
        self, dataset: Dataset[Any], *, split: str, workers: int, augment: BatchAugment | None, seed: int
    ) -> None:
        self._samples = SeededDataset(dataset, split)
        self._split, self._workers, self._augment, self._seed = split, workers, augment, seed

    def __call__(self, plans: Iterable[BatchPlan]) -> Iterator[Batch | BadSample]:
        """Yield a batch for each plan; in its place a `BadSample`, if one of its samples fails to load."""
        if self._workers == 0:
            for plan in plans:
                with preserve_global_generators():
                    samples = [self._samples[request] for request in self._list_requests(plan)]
                yield self._finish_batch(plan, _collate_samples(samples))
            return
        # DataLoader takes the batches of its sampler in this process; the plans are needed again as results come.
        plan_list = list(plans)
        loader: DataLoader[Any] = DataLoader(
            self._samples,
            batch_sampler=[self._list_requests(plan) for plan in plan_list],
            num_workers=self._workers,
            collate_fn=_collate_samples,
            worker_init_fn=_forget_signals,
            generator=torch.Generator().manual_seed(0),  # else it draws its workers' seed from the global one
        )
        for plan, batch in zip(plan_list, loader, strict=True):
            yield self._finish_batch(plan, batch)

    def _list_requests(self, plan: BatchPlan) -> list[tuple[int, int]]:
        seeds = derive_sample_seeds(plan.positions, seed=self._seed, epoch=plan.epoch, stream=f"dataset {self._split}")
        return list(zip(plan.samples.tolist(), seeds.tolist(), strict=True))

    def _finish_batch(self, plan: BatchPlan, batch: dict[str, Any] | BadSample) -> Batch | BadSample:
        if isinstance(batch, BadSample):
            return batch
        x = batch["x"]
        if self._augment is not None:
            seeds = derive_sample_seeds(plan.positions, seed=self._seed, epoch=plan.epoch, stream="augment")
            x = self._augment(x, seeds)
        batch["x"] = x.float()
        batch["key"] = [f"{self._split}/{sample}" for sample in plan.samples.tolist()]
        if plan.weight is not None:
            batch["weight"] = torch.from_numpy(plan.weight)
        return batch


class SeededDataset(Dataset[dict[str, Any] | BadSample]):
    """A dataset that is indexed by (sample, seed). A sample that fails to load is replaced by its error."""

    def __init__(self, dataset: Dataset[Any], split: str) -> None:
        self._dataset, self._split, self._where = dataset, split, f"data.{split}"

    def __len__(self) -> int:
        return len(self._dataset)  # type: ignore[arg-type]

    def __getitem__(self, request: tuple[int, int]) -> dict[str, Any] | BadSample:
        index, seed = request
        seed_generators(seed)
        try:
            sample = self._dataset[index]
        except MLScaleError:
            raise
        except Exception as error:
            # The innermost frame: the line of the user's code, or of what it calls, that failed.
            frame = traceback.extract_tb(error.__traceback__)[-1]
            bad = BadSample(
                index,
                f"{self._split}/{index}",
                f"cannot be had from the dataset {type(self._dataset).__name__}",
                where=f"{self._where}; {frame.filename}:{frame.lineno}",
                why=f"{type(error).__name__}: {error}",
            )
            # By hand, because it is returned and not raised.
            bad.__cause__ = error
            return bad
        x, y = parse_pair(sample, self._where)
        extra = {k: v for k, v in sample.items() if k not in ("x", "y")} if isinstance(sample, Mapping) else {}
        return {"x": x, "y": torch.tensor(y), **extra}


def _collate_samples(samples: list[Any]) -> Any:
    """Return a batch, or the first error among the samples."""
    bad = next((sample for sample in samples if isinstance(sample, BadSample)), None)
    if bad is not None:
        return bad
    # What else a dataset's samples have, those of production lack.
    shared = set.intersection(*(set(sample) for sample in samples))
    return default_collate([{name: sample[name] for name in sample if name in shared} for sample in samples])


def parse_pair(sample: object, where: str) -> tuple[Tensor, int]:
    """Return x and y of a sample.

    Raises:
        MLScaleError: it is neither a pair nor a dict with x and y, x is not an array, or y not a whole number.
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
            f"the dataset's samples are {kind}",
            where=where,
            why="a sample is (x, y) or a dict with x and y: x a tensor, y a class number",
            fix="let the dataset return tensors (transform=torchvision.transforms.v2.ToImage()) and whole numbers\n"
            "or, for labels of another kind, data=webdataset, data=table, or a LightningDataModule of your own",
        )
    return (x.float() / 255 if x.dtype == torch.uint8 else x), y


def _forget_signals(_worker: int) -> None:
    """Reset signal handlers: a forked worker inherits the trainer's, and would act on signals meant for the trainer."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    # Ctrl-C reaches the whole process group; workers end when the trainer ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
