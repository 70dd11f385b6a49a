"""Users' own map-style datasets, unchanged, in mlscale's order."""

from __future__ import annotations

import hashlib
import signal
import traceback
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset, default_collate

from mlscale.data.augmentations.augmentation import BatchAugment, preserve_global_generators, seed_generators
from mlscale.data.class_labels import compute_label_digest, encode_labels, find_classes, join_label_digests
from mlscale.data.data_facts import DataFacts
from mlscale.data.data_module import OrderedData
from mlscale.data.order import sample_weights as weights_of
from mlscale.data.order.bad_samples import BadSample, Stream
from mlscale.data.order.batch_plan import Batch, BatchPlan
from mlscale.data.order.keyed_permutation import derive_sample_seeds
from mlscale.data.order.policy import Policy, TolerantPolicyArguments
from mlscale.errors import MLScaleError

# Samples whose values are part of the data version: to load all of a dataset could take as long as an epoch.
_PROBE_COUNT = 64


class DatasetData(OrderedData):
    """Any `torch.utils.data.Dataset` with a length, whose samples are (x, y), or dicts with `x` and `y`.

    x is a tensor: floats are taken as they are, uint8 images are divided by 255; normalising is left to the
    dataset. y is a class number. Other entries of a dict are collated as torch does. Before a sample is loaded,
    torch's, Python's and numpy's global generators are set from (seed, position), so random transforms inside the
    dataset repeat, too, and they do not disturb the training loop's draws.

    Args:
        train: the training dataset.
        val: the validation dataset.
        test: the test dataset; None for none.
        workers: processes that load, per rank; auto is 0, in the training process itself. The batches are the same.
        policy: see `Policy`; `augment` gets one x. The seed is also that of the dataset's own random numbers.
    """

    def __init__(
        self,
        train: Dataset[Any],
        val: Dataset[Any],
        test: Dataset[Any] | None = None,
        workers: int | str = "auto",
        **policy: Unpack[TolerantPolicyArguments],
    ) -> None:
        super().__init__(
            workers=workers,
            policy=Policy(**policy),
        )
        self._datasets = {"train": train, "val": val, **({} if test is None else {"test": test})}
        self._facts: DataFacts | None = None
        self._versions: dict[str, str] = {}
        self._digests_of_labels: dict[str, str] = {}
        self._train_labels = np.empty(0, np.int64)

    def facts(self) -> DataFacts:
        """Return class count, shape, samples and version. Labels come from `targets`, `labels` or tensors if the
        dataset has them, else every sample is loaded once.

        Raises:
            MLScaleError: a dataset has no length or is empty, its samples are of another kind, or labels are not 0 to
                n-1.
        """
        if self._facts is None:
            self._facts = self._read_facts()
        return self._facts

    def list_splits(self) -> list[str]:
        """Return the names of the splits: 'train', 'val', and 'test' where there is one."""
        return list(self._datasets)

    def list_keys(self, split: str, rows: NDArray[np.int64]) -> list[str]:
        """Return the names of samples: the split, and the number in the data set."""
        return [f"{split}/{row}" for row in rows.tolist()]

    def _resolve_workers(self) -> int:
        return self.workers if isinstance(self.workers, int) else 0

    def _read_facts(self) -> DataFacts:
        for split, dataset in self._datasets.items():
            if not hasattr(dataset, "__len__") or len(dataset) == 0:
                raise MLScaleError(
                    f"the dataset {type(dataset).__name__} "
                    + ("is empty" if hasattr(dataset, "__len__") else "has no length"),
                    where=f"data.{split}",
                    why="the order of samples is computed from how many there are",
                    fix="give it __len__ and __getitem__, or write it as shards",
                )
        labels = {split: _read_all_labels(dataset, f"data.{split}") for split, dataset in self._datasets.items()}
        classes = find_classes(labels["train"], where="data.train")
        for split in labels:
            encoded = encode_labels(labels[split], classes, where=f"data.{split}")
            self._digests_of_labels[split] = compute_label_digest(encoded, classes.names)
            if split == "train":
                self._train_labels = encoded
        for split, dataset in self._datasets.items():
            probed = _probe_samples(dataset, f"data.{split}", skip_bad=self.policy.skip)
            self._versions[split] = _compute_version(labels[split], probed)
            if split == "train":
                x = next(value for value in probed if value is not None)
        # Fewer than three dimensions are filled up by ones in front; of more, the last three count.
        channels, height, width = (*(1,) * (3 - x.ndim), *x.shape)[-3:] if x.ndim <= 3 else x.shape[-3:]
        version = hashlib.sha256("|".join(f"{k}={v}" for k, v in self._versions.items()).encode())
        return DataFacts(
            sample=tuple(x.shape),
            num_classes=classes.count,
            channels=channels,
            height=height,
            width=width,
            train_samples=len(labels["train"]),
            val_samples=len(labels["val"]),
            version=version.hexdigest()[:16],
            class_counts=classes.samples,
            label_digest=join_label_digests(self._digests_of_labels),
        )

    def _get_label_digests(self) -> Mapping[str, str]:
        self.facts()
        return self._digests_of_labels

    def _read_class_numbers(self) -> NDArray[np.int64]:
        self.facts()
        return self._train_labels

    def _read_weights(self, named: str) -> NDArray[np.float64]:
        self.facts()
        return weights_of.read_weights_file(named, [f"train/{sample}" for sample in range(len(self._train_labels))])

    def _open_stream(self, split: str) -> tuple[Stream, int, str]:
        self.facts()
        if split not in self._datasets:
            raise MLScaleError(f"this data has no {split} split", where=f"data.{split}", fix="split=val")
        dataset = self._datasets[split]
        augment = self.augment if split == "train" else None
        stream = DatasetStream(dataset, split=split, workers=self._resolve_workers(), augment=augment, seed=self.seed)
        return stream, len(dataset), self._versions[split]  # type: ignore[arg-type]  # asked in _read


class DatasetStream:
    """Makes batches of a dataset's samples, in this process or in workers; the batches are the same."""

    def __init__(
        self, dataset: Dataset[Any], *, split: str, workers: int, augment: BatchAugment | None, seed: int
    ) -> None:
        self._samples = _SeededDataset(dataset, split)
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


class _SeededDataset(Dataset[dict[str, Any] | BadSample]):
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
    return default_collate(samples) if bad is None else bad


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


def _read_all_labels(dataset: Dataset[Any], where: str) -> list[int | str]:
    """Return every label, without loading samples where the dataset has them as a list or a tensor."""
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) == 2:
        y = dataset.tensors[1]
        if y.ndim == 1 and not y.is_floating_point():
            return [int(label) for label in y.tolist()]
    if isinstance(dataset, Subset):
        # A subset has no `targets`; those of the whole dataset need no loading.
        every = _read_all_labels(dataset.dataset, where)
        return [every[i] for i in dataset.indices]
    count = len(dataset)  # type: ignore[arg-type]  # asked in _read
    for name in ("targets", "labels"):
        values = getattr(dataset, name, None)
        if isinstance(values, Tensor | np.ndarray):
            values = values.tolist()
        if isinstance(values, list) and len(values) == count and all(isinstance(y, int) for y in values):
            return list(values)
    # Loading a sample may draw random numbers, which must not shift those of training.
    with preserve_global_generators():
        return [parse_pair(dataset[i], where)[1] for i in range(count)]


def _probe_samples(dataset: Dataset[Any], where: str, *, skip_bad: bool) -> list[Tensor | None]:
    """Return x of some samples, evenly spread; None for one that cannot be loaded.

    Raises:
        Exception: the dataset's own, from a sample that fails to load; with `skip_bad` only if all fail.
    """
    probed: list[Tensor | None] = []
    failure: Exception | None = None
    with preserve_global_generators():
        # Small datasets give a number more than once.
        last = len(dataset) - 1  # type: ignore[arg-type]  # asked in _read
        for i in np.unique(np.linspace(0, last, _PROBE_COUNT).astype(int)).tolist():
            # A fixed seed, so that random transforms inside the dataset give the same version in every run.
            seed_generators(0)
            try:
                probed.append(parse_pair(dataset[i], where)[0])
            except Exception as error:
                if not skip_bad or isinstance(error, MLScaleError):
                    raise
                probed.append(None)
                failure = error
    if failure is not None and all(value is None for value in probed):
        raise failure
    return probed


def _compute_version(labels: list[int | str], probed: list[Tensor | None]) -> str:
    """Return a digest of the labels and of the values of some samples."""
    total = hashlib.sha256(np.asarray(labels, "<i8").tobytes())
    for x in probed:
        total.update(b"unreadable" if x is None else x.contiguous().numpy().tobytes())
    return total.hexdigest()[:16]


def _forget_signals(_worker: int) -> None:
    """Reset signal handlers: a forked worker inherits the trainer's, and would act on signals meant for the trainer."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    # Ctrl-C reaches the whole process group; workers end when the trainer ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
