"""The samples that the tour sends: those of the model's own data, in the form that a client sends."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlscale.data.decoding.image_files import find_image_suffix
from mlscale.loadtest.load_samples import RequestSamples

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.data.data_module import OrderedData
    from mlscale.export.servable import Servable

_MAX_HELD_OUT = 2000
_BATCH = 256


@dataclass(frozen=True, eq=False)
class LabelledSamples:
    """n samples with their truth.

    Attributes:
        raw: as a client sends them: rows by column, texts and image files as bytes, images as arrays.
        truth: in the form of the task type, n first: class numbers, labels (n, k), masks (n, h, w), numbers
            (n, targets); zeros where samples have no labels.
    """

    raw: Sequence[Any]
    truth: NDArray[Any]

    def __len__(self) -> int:
        return len(self.raw)

    def select_samples(self, numbers: NDArray[np.int64]) -> LabelledSamples:
        """Return some of the samples, in this order."""
        return LabelledSamples([self.raw[number] for number in numbers.tolist()], self.truth[numbers])

    def iterate_batches(self) -> Iterator[tuple[Sequence[Any], NDArray[Any]]]:
        """Yield raw samples and their truth, a few hundred at once: decoded images need memory."""
        for start in range(0, len(self), _BATCH):
            yield self.raw[start : start + _BATCH], self.truth[start : start + _BATCH]


@dataclass(frozen=True, eq=False)
class LifecycleSamples:
    """The samples of a tour.

    Attributes:
        traffic: training samples: shifted, they are what production sends, and the retraining learns from.
        held_out: validation samples. Shifted, they are never trained on: the proofs use them.
    """

    traffic: LabelledSamples
    held_out: LabelledSamples


def load_lifecycle_samples(cfg: DictConfig, servable: Servable, traffic: int) -> LifecycleSamples:
    """Return samples of the config's data that the model takes.

    Args:
        cfg: of a training run.
        servable: the model; classes are numbered alike.
        traffic: how many training samples, at most.
    """
    data = build_prepared_data(cfg)
    return LifecycleSamples(
        _read_samples(data, "train", traffic, servable), _read_samples(data, "val", _MAX_HELD_OUT, servable)
    )


def build_prepared_data(cfg: DictConfig) -> OrderedData:
    """Return the config's data module, with its splits opened."""
    from mlscale.assembly.run_parts import build_data
    from mlscale.config.composition.frozen import add_derived
    from mlscale.data.data_module import OrderedData

    data = build_data(add_derived(cfg, {"per_device_batch": 1}))
    assert isinstance(data, OrderedData)  # checked before the first step
    data.prepare_data()
    data.setup("validate")
    return data


def _read_samples(data: OrderedData, split: str, most: int, servable: Servable) -> LabelledSamples:
    rows = _choose_rows(_list_usable_rows(data, split), most)
    raw = data.read_raw_samples(split, rows)
    assert raw is not None  # only a user's own samples are tensors already
    truth = _read_truth(data, split, rows) if servable.task_type.needs_label else np.zeros(len(rows), np.int64)
    # What training skips as corrupt would be refused by the server, too.
    bad = servable.pack_samples(raw).bad
    taken = np.array([number for number in range(len(rows)) if number not in bad], np.int64)
    return LabelledSamples(raw, truth).select_samples(taken)


def _choose_rows(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return rows of the whole split, in a random order that is always the same: data sets are often sorted by class,
    and production is not."""
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(np.int64))]
    return np.random.default_rng(0).permutation(chosen)


def _list_usable_rows(data: OrderedData, split: str) -> NDArray[np.int64]:
    from mlscale.data.array_data import MemoryData
    from mlscale.data.images.image_modules import ImageData

    if isinstance(data, ImageData):
        return np.arange(len(data.get_decoded_split(split)), dtype=np.int64)
    assert isinstance(data, MemoryData)
    rows = data.get_rows(split)
    return np.setdiff1d(np.arange(len(rows), dtype=np.int64), list(rows.bad))


def _read_truth(data: OrderedData, split: str, rows: NDArray[np.int64]) -> NDArray[Any]:
    from mlscale.data.array_data import MemoryData
    from mlscale.data.images.image_modules import ImageData

    if isinstance(data, ImageData):
        decoded = data.get_decoded_split(split)
        if decoded.masks is not None:
            return np.stack([decoded.masks.get_mask(row) for row in rows.tolist()])
        labels: NDArray[Any] = decoded.labels[rows]
        # Several labels are targets of a loss, and so floats, wherever training has them.
        return labels.astype(np.int64) if labels.ndim == 1 else labels.astype(np.float32)
    assert isinstance(data, MemoryData)
    return data.get_rows(split).take_samples(rows)[1]


def pack_request_samples(raw: Sequence[Any], servable: Servable) -> RequestSamples:
    """Return raw samples as a load test sends them."""
    kind = servable.encoder.kind
    if kind == "table":
        return RequestSamples("rows", raw=raw, form="row")
    if kind in ("text", "document"):
        return RequestSamples("texts", raw=raw, form="text")
    if isinstance(raw[0], bytes):
        return RequestSamples("images", raw=raw, form="image")
    return RequestSamples("arrays", {servable.input.name: np.stack(list(raw))})


def save_request_samples(samples: RequestSamples, folder: Path) -> Path:
    """Write what `mlscale loadtest samples=…` reads, in a folder that is created; return its path or that of a file."""
    # To fail where it exists: files of an earlier call would be sent, too.
    folder.mkdir()
    if samples.form == "row":
        path = folder / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in samples.raw), encoding="utf-8")
        return path
    if samples.tensors:
        path = folder / "arrays.npz"
        np.savez(path, raw=next(iter(samples.tensors.values())))
        return path
    # A file each: texts have lines and bytes of any kind.
    for number, content in enumerate(samples.raw):
        suffix = ".txt" if samples.form == "text" else find_image_suffix(content, ".tif")
        (folder / f"{number:05}{suffix}").write_bytes(content)
    return folder
