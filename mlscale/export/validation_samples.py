"""Read samples of a split in three forms: raw, as a client sends them; encoded; and as training has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from torch import Tensor

from mlscale.data.data_module import OrderedData
from mlscale.data.encoders.document_encoder import SCORED, DocumentEncoder
from mlscale.data.encoders.encoder import INPUT, EncodedSamples, Encoder, TensorSpec
from mlscale.data.encoders.tensor_encoder import TensorEncoder
from mlscale.data.images.image_modules import ImageData
from mlscale.data.shards.system_files import report_once
from mlscale.data.text.token_blocks import IGNORED
from mlscale.data.windows.window_folder import SampleFacts, read_window_facts
from mlscale.errors import MLScaleError
from mlscale.task_types.task_type import AnswerNames
from mlscale.tasks.batch import unpack_batch

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule


@dataclass(frozen=True)
class SampleFormat:
    """What a data module says of its samples.

    Attributes:
        encoder: from a raw sample to tensors.
        names: of classes and targets; empty where the data has none.
        classes: of the labels; None where the data does not know their number.
    """

    encoder: Encoder
    names: AnswerNames = field(default_factory=AnswerNames)
    classes: int | None = None


class SampleBatch(NamedTuple):
    """A batch of n samples that could be read.

    Attributes:
        samples: as a client sends them, by the kind of encoder.
        tensors: encoded (`encoder.inputs`) by the data module that training reads from; images are not normalised.
        x: what training and evaluation pass to the model, (n, …).
        y: the truth, n first.
        keys: the samples' names; None where they have none.
        facts: of the samples when a client sent them, float64 (n,) by name; None where the samples show them.
    """

    samples: Sequence[Any]
    tensors: Mapping[str, NDArray[Any]]
    x: Any
    y: NDArray[Any]
    keys: list[str] | None = None
    facts: SampleFacts | None = None

    @property
    def raw(self) -> NDArray[Any]:
        """The first tensor, (n, …)."""
        return next(iter(self.tensors.values()))

    def take_first(self, count: int) -> SampleBatch:
        """Return the first samples."""
        tensors = {name: rows[:count] for name, rows in self.tensors.items()}
        x = {name: rows[:count] for name, rows in self.x.items()} if isinstance(self.x, Mapping) else self.x[:count]
        facts = self.facts and {name: values[:count] for name, values in self.facts.items()}
        return SampleBatch(self.samples[:count], tensors, x, self.y[:count], self.keys and self.keys[:count], facts)

    def pack(self, encoder: Encoder) -> EncodedSamples:
        """Return the samples as an exported graph takes them, encoded from their raw form."""
        if isinstance(encoder, DocumentEncoder):
            # A block of training text is no document, but has parts of several: the graph gets the same block.
            return EncodedSamples(encoder.pack_windows(self.tensors[INPUT], self.tensors[SCORED]), {})
        packed = encoder.pack_samples(self.samples)
        return packed if self.facts is None else packed._replace(facts={**(packed.facts or {}), **self.facts})


def describe_sample_format(data: LightningDataModule) -> SampleFormat:
    """Return the format of a data module's samples; `data` has been prepared and set up for validation."""
    if isinstance(data, OrderedData):
        facts = data.facts()
        labels = tuple(map(str, facts.class_names or ()))
        return SampleFormat(data.encoder(), AnswerNames(labels, data.describe_targets()), facts.num_classes)
    # A user's data module normalises by itself: the samples of its loader are what the model takes and a client sends.
    first = next(iterate_validation_batches(data, limit=1))
    specs = (TensorSpec(name, rows.dtype.name, rows.shape[1:]) for name, rows in first.tensors.items())
    return SampleFormat(TensorEncoder(tuple(specs)))


def iterate_validation_batches(data: LightningDataModule, *, limit: int | None = None) -> Iterator[SampleBatch]:
    """Yield the validation samples in their own order, each once; those that could not be read are left out.

    Args:
        data: the data module.
        limit: largest number of samples; None for all.

    Raises:
        MLScaleError: there is none.
    """
    count = 0
    for batch in iterate_split_batches(data, "val"):
        if limit is not None:
            batch = batch.take_first(limit - count)
        count += len(batch.y)
        if len(batch.y):
            yield batch
        if count == limit:
            break  # before the next batch is loaded
    if not count:
        raise MLScaleError(
            "no validation samples found",
            where="data",
            why="an export is compared on them",
            fix="data.val=<samples that can be read>",
        )


def iterate_split_batches(data: LightningDataModule, split: str) -> Iterator[SampleBatch]:
    """Yield the samples of a split, 'val' or 'test', in their own order; those that could not be read are left out.

    Raises:
        MLScaleError: a validation loader was not found.
    """
    loader = data.val_dataloader() if split == "val" else data.test_dataloader()
    return (
        _iterate_ordered_batches(data, split, loader)
        if isinstance(data, OrderedData)
        else iterate_loader_batches(loader, "validation" if split == "val" else split)
    )


def _iterate_ordered_batches(data: OrderedData, split: str, loader: Iterable[Any]) -> Iterator[SampleBatch]:
    start = 0
    for batch in loader:
        x, y, weight = unpack_batch(batch)
        rows = np.arange(start, start + len(y))
        start += len(y)
        # Weight 0: it fills up the batch, or takes the place of a sample that could not be read.
        is_readable = np.ones(len(y), np.bool_) if weight is None else weight.numpy() > 0
        if not is_readable.any():
            continue
        x, labels, rows = x[is_readable], y.numpy()[is_readable], rows[is_readable]
        tensors = encode_as_trained(data, split, rows, x, labels)
        # Where samples are tensors already a client sends the same.
        samples = data.read_raw_samples(split, rows) or list(tensors[INPUT])
        yield SampleBatch(samples, tensors, x, labels, data.list_keys(split, rows), _read_facts(data, split, rows))


def _read_facts(data: OrderedData, split: str, rows: NDArray[np.int64]) -> SampleFacts | None:
    """Return the facts that samples of production have lost; None where the samples are as they were sent."""
    names = data.encoder().fact_names
    # With windows the latest one is what is validated on.
    if split != "val" or not data.policy.windows or not names:
        return None
    return read_window_facts(data.policy.windows[-1], names, rows)


def encode_as_trained(
    data: OrderedData, split: str, rows: NDArray[np.int64], x: Tensor, y: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    """Return the tensors that the data module has encoded."""
    if isinstance(data, ImageData):
        # The graph normalises: it takes the pixels as they are decoded.
        decoded = data.get_decoded_split(split)
        return {INPUT: np.stack([decoded.get_sample(row) for row in rows.tolist()])}
    if isinstance(encoder := data.encoder(), DocumentEncoder):
        # A block of training text is scored at all of its positions but padding, which is at its end, unlike the
        # overlapping windows of a document.
        counts = (y != IGNORED).sum(1)
        scored = np.stack([np.zeros_like(counts), counts], 1).astype(np.int64)
        return {INPUT: np.concatenate([x.numpy()[:, :1], np.where(y == IGNORED, encoder.end, y)], 1), SCORED: scored}
    return {INPUT: (x.float() if x.is_floating_point() else x).numpy()}


def iterate_loader_batches(loader: Iterable[Any], split: str) -> Iterator[SampleBatch]:
    """Yield the samples of a user's loader, where a client sends the same that the model takes; of several loaders the
    first one's.

    Raises:
        MLScaleError: there are none, or several of training, whose batches belong together.
    """
    for batch in _choose_loader(loader, split):
        x, y, weight = unpack_batch(batch)
        if not isinstance(y, Tensor):
            raise MLScaleError(
                f"the labels of a validation batch are a {type(y).__name__}, and an export compares with one tensor",
                where="data",
                fix="data._target_=<your LightningDataModule, with batches (x, y), y a tensor>",
            )
        is_readable = np.ones(len(y), np.bool_) if weight is None else weight.numpy() > 0
        # Several inputs are a mapping by name. A servable takes float32 also where the data has another float.
        named = x if isinstance(x, Mapping) else {INPUT: x}
        if other := next((type(value).__name__ for value in named.values() if not isinstance(value, Tensor)), ""):
            raise MLScaleError(
                f"the inputs of a validation batch have a {other} where a servable takes a tensor",
                where="data",
                why="several inputs are tensors by name: a client sends them by these names",
                fix='let the dataset return ({"a": tensor, "b": tensor}, label), and define forward(self, a, b)',
            )
        taken = {
            str(name): value[is_readable].float() if value.is_floating_point() else value[is_readable]
            for name, value in named.items()
        }
        labels = y.numpy()[is_readable]
        tensors = {name: value.numpy() for name, value in taken.items()}
        samples: Any = (
            [dict(zip(tensors, row, strict=True)) for row in zip(*tensors.values(), strict=True)]
            if isinstance(x, Mapping)
            else tensors[INPUT]
        )
        yield SampleBatch(
            samples,
            tensors,
            taken if isinstance(x, Mapping) else taken[INPUT],
            labels.astype(np.int64) if labels.dtype.kind in "iub" else labels,
        )


def _choose_loader(loader: Any, split: str) -> Iterable[Any]:
    """Return a loader by itself, or the first one in a collection of any kind that Lightning takes, and report it."""
    loaders: Any = loader.iterables if isinstance(loader, CombinedLoader) else loader
    if not isinstance(loaders, list | tuple | dict):
        return loaders  # type: ignore[no-any-return]
    if not loaders or (split == "train" and len(loaders) > 1):
        raise MLScaleError(
            f"the data module has {len(loaders)} {split} loaders",
            where="data",
            fix=f"let its {'val' if split == 'validation' else split}_dataloader return one DataLoader",
        )
    name, first = next(iter(loaders.items() if isinstance(loaders, dict) else enumerate(loaders)))
    if len(loaders) > 1:
        which = f"{name!r}, the first" if isinstance(loaders, dict) else "the first"
        report_once(f"data      samples are those of {which} of {len(loaders)} {split} loaders")
    return first  # type: ignore[no-any-return]
