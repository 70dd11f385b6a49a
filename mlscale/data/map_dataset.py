"""Users' own map-style datasets, unchanged, in mlscale's order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Unpack

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from mlscale.data.augmentations.augmentation import PerSampleAugment, preserve_global_generators, seed_generators
from mlscale.data.augmentations.device_augment import refuse_on_device
from mlscale.data.class_labels import compute_label_digest, encode_labels, find_classes, join_label_digests
from mlscale.data.data_facts import DataFacts
from mlscale.data.data_module import OrderedData
from mlscale.data.dataset_stream import DatasetStream, DatasetWork, SeededDataset, parse_pair
from mlscale.data.order import sample_weights as weights_of
from mlscale.data.order.bad_samples import BadSample, Stream
from mlscale.data.order.policy import Policy, TolerantPolicyArguments
from mlscale.data.windows.dataset_window import (
    DatasetPart,
    JoinedDataset,
    join_dataset_windows,
    write_dataset_window,
)
from mlscale.data.windows.window_folder import compute_window_mix, find_class_numbers
from mlscale.data.workers.sample_executor import SampleExecutor
from mlscale.errors import MLScaleError

# Samples whose values are part of the data version: to load all of a dataset could take as long as an epoch.
_PROBE_COUNT = 64


def read_all_labels(dataset: Dataset[Any], where: str) -> list[int | str]:
    """Return every label, without loading samples where the dataset has them as a list or a tensor."""
    if isinstance(dataset, TensorDataset) and len(dataset.tensors) == 2:
        y = dataset.tensors[1]
        if y.ndim == 1 and not y.is_floating_point():
            return [int(label) for label in y.tolist()]
    if isinstance(dataset, Subset):
        # A subset has no `targets`; those of the whole dataset need no loading.
        every = read_all_labels(dataset.dataset, where)
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


def probe_samples(dataset: Dataset[Any], where: str, *, skip_bad: bool) -> list[Tensor | None]:
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


def compute_dataset_version(labels: list[int | str], probed: list[Tensor | None]) -> str:
    """Return a digest of the labels and of the values of some samples."""
    total = hashlib.sha256(np.asarray(labels, "<i8").tobytes())
    for x in probed:
        total.update(b"unreadable" if x is None else x.contiguous().numpy().tobytes())
    return total.hexdigest()[:16]


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
        workers: processes that load, per rank, with `executor="process"`; see `Policy.executor`. The batches are the
            same.
        policy: see `Policy`; `augment` gets one x. The seed is also that of the dataset's own random numbers.
    """

    takes_windows: ClassVar[bool] = True

    def __init__(
        self,
        train: Dataset[Any],
        val: Dataset[Any],
        test: Dataset[Any] | None = None,
        workers: int | str = "auto",
        **policy: Unpack[TolerantPolicyArguments],
    ) -> None:
        super().__init__(workers=workers, policy=Policy(**policy))
        refuse_on_device(self.augment, "samples of a Dataset of your own are changed where they are loaded")
        if self.policy.executor != "process" and workers not in ("auto", 0):
            raise MLScaleError(
                f"data.workers={workers} has no effect with data.executor=thread",
                where="data.workers",
                why="a dataset draws from random generators that all threads share, so it is loaded by one of them",
                fix="data.executor=process\ndata.workers=auto",
            )
        self._datasets = {"train": train, "val": val, **({} if test is None else {"test": test})}
        self._joined: dict[str, JoinedDataset] = {}
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

    def write_window(self, folder: Path, samples: Sequence[Any], labels: Sequence[Any]) -> None:
        """Write samples as the model takes them, with their class numbers; see `Backend.write_window`."""
        facts = self.facts()
        names = facts.class_names or tuple(map(str, range(facts.num_classes or 0)))
        numbers = {str(name): number for number, name in enumerate(names)}
        write_dataset_window(folder, samples, np.array([numbers[str(label)] for label in labels], np.int64))

    def load_samples(self, split: str, *, newest_only: bool = False) -> Iterator[tuple[NDArray[Any], int]]:
        """Yield x as the model takes it and the class number of each sample, without augmentation.

        Args:
            split: 'train', 'val' or 'test'.
            newest_only: only those of the latest window.
        """
        _, count, _ = self._open_stream(split)
        dataset = SeededDataset(self._datasets[split], split)
        first = count - self._joined[split].newest if newest_only else 0
        for row in range(first, count):
            with preserve_global_generators():
                sample = dataset[row, 0]
            if isinstance(sample, BadSample):
                if not self.policy.skip:
                    raise sample
                continue
            yield sample["x"].float().numpy(), int(sample["y"])

    def list_origins(self, split: str) -> list[str]:
        """Return the origin of each sample: the original data, or the name of a window."""
        self.facts()
        return self._joined[split].list_origins() if split in self._joined else []

    def _join_windows(self, facts: DataFacts, labels: Mapping[str, NDArray[np.int64]]) -> DataFacts:
        parts = {name: DatasetPart(self._datasets[name], labels[name], self._versions[name]) for name in labels}
        relabelled = find_class_numbers(self.policy.relabelled, facts.class_names, facts.num_classes or 0)
        self._joined = join_dataset_windows(self.policy, parts, relabelled)
        for split, joined in self._joined.items():
            self._datasets[split], self._versions[split] = joined.dataset, joined.version
            self._digests_of_labels[split] = compute_label_digest(joined.labels, facts.class_names)
        self._train_labels = self._joined["train"].labels
        return replace(
            facts,
            train_samples=len(self._train_labels),
            val_samples=len(self._joined["val"].labels),
            version=hashlib.sha256("|".join(f"{k}={v}" for k, v in self._versions.items()).encode()).hexdigest()[:16],
            class_counts=tuple(np.bincount(self._train_labels, minlength=facts.num_classes or 0).tolist()),
            label_digest=join_label_digests(self._digests_of_labels),
        )

    def _get_source_mix(self) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        if not self.policy.windows:
            return None
        self.facts()
        train = self._joined["train"]
        left_out = sum(part.left_out for part in train.parts.values())
        return compute_window_mix(self.policy, len(train.labels) - train.newest, train.newest, left_out)

    def _resolve_workers(self) -> int:
        return super()._resolve_workers() if self.policy.executor == "process" else 0

    def _has_python_code(self) -> bool:
        return True

    def _build_executor(self, split: str) -> SampleExecutor | None:
        if (count := self._resolve_workers()) < 1:
            return None
        dataset = self._datasets[split]
        augment = self.augment if split == "train" and isinstance(self.augment, PerSampleAugment) else None
        executor = SampleExecutor(
            lambda: DatasetWork(SeededDataset(dataset, split), augment),
            name=f"the dataset {type(dataset).__name__}",
            count=count,
        )
        return self._executors.keep_executor(executor)

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
        labels = {split: read_all_labels(dataset, f"data.{split}") for split, dataset in self._datasets.items()}
        # Of training alone: what another split has in addition is an error, and no class.
        classes = find_classes(labels["train"], where="data.train")
        encoded = {split: encode_labels(labels[split], classes, where=f"data.{split}") for split in labels}
        self._digests_of_labels = {split: compute_label_digest(encoded[split], classes.names) for split in labels}
        self._train_labels = encoded["train"]
        for split, dataset in self._datasets.items():
            probed = probe_samples(dataset, f"data.{split}", skip_bad=self.policy.skip)
            self._versions[split] = compute_dataset_version(labels[split], probed)
            if split == "train":
                x = next(value for value in probed if value is not None)
        # Fewer than three dimensions are filled up by ones in front; of more, the last three count.
        channels, height, width = (*(1,) * (3 - x.ndim), *x.shape)[-3:] if x.ndim <= 3 else x.shape[-3:]
        version = hashlib.sha256("|".join(f"{k}={v}" for k, v in self._versions.items()).encode())
        facts = DataFacts(
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
        return self._join_windows(facts, encoded) if self.policy.windows else facts

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
        stream = DatasetStream(
            dataset,
            split=split,
            workers=self._resolve_workers(),
            augment=self.augment if split == "train" else None,
            seed=self.seed,
            executor=self._build_executor(split),
        )
        return stream, len(dataset), self._versions[split]  # type: ignore[arg-type]  # asked in _read
