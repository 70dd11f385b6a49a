"""Data sets that need no account and no hub: written once, as WebDataset shards, into the cache."""

from __future__ import annotations

import gzip
import io
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Unpack

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from mlscale.data.cache_folder import get_cache_dir, write_aside
from mlscale.data.data_facts import DataFacts
from mlscale.data.images.image_modules import WebDataset
from mlscale.data.order.policy import TolerantPolicyArguments
from mlscale.data.shards.secure_webdataset import TarWriter
from mlscale.errors import Exit, MLScaleError

Samples = tuple[int, Iterator[dict[str, Any]]]
"""The number of samples, and the members of each by extension."""

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


class BundledImages(WebDataset):
    """A data set that `prepare_data` writes.

    The shards hold uncompressed PNGs and no times, so that every machine writes the same bytes and finds the same data
    version, whatever its compression library.

    Args:
        root: the folder to keep the set in; None for the cache.
        image_size: see `ImageBackend`.
        workers: threads that decode, per process.
        policy: see `Policy`.
    """

    set_name: ClassVar[str]
    """Of the folder; with a number that changes with what is written."""
    option: ClassVar[str]
    """Of the group `data`."""
    shard_size: ClassVar[int]
    licence: ClassVar[str]
    """Of the data: an SPDX identifier."""
    shard_options: Mapping[str, Any] = MappingProxyType({})
    """A subclass's options of its shards: image_key, label_key, labels, classes; see `WebDataset`. Not an argument: a
    signature with `**options` would accept every mistyped option."""

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        image_size: int | None = None,
        workers: int | str = "auto",
        **policy: Unpack[TolerantPolicyArguments],
    ) -> None:
        self.folder = (get_cache_dir() if root is None else Path(root).expanduser()) / self.set_name
        super().__init__(
            train=self.folder / "train",
            val=self.folder / "val",
            image_size=image_size,
            workers=workers,
            **self.shard_options,
            **policy,
        )

    def prepare_data(self) -> None:
        """Write the set unless it is there. Several processes may do so at once.

        Raises:
            MLScaleError: the set cannot be obtained, or the folder not be written.
        """
        # A folder that exists is complete: `write_aside` renames it at the end.
        if self.folder.exists():
            return
        # All at once, because a source may be in a temporary folder that is deleted when the iterator ends.
        splits = dict(self._load_samples())
        with write_aside(self.folder) as aside:
            total = sum(count for count, _ in splits.values())
            with tqdm(total=total, desc=f"writing {self.set_name}", unit=" images", leave=False, disable=None) as bar:
                for split, (count, samples) in splits.items():
                    (aside / split).mkdir()
                    for number, start in enumerate(range(0, count, self.shard_size)):
                        part = list(islice(samples, self.shard_size))
                        _write_shard(aside / split / f"{number:03}.tar", part, start)
                        bar.update(len(part))

    def _load_samples(self) -> Iterator[tuple[str, Samples]]:
        """Yield the name and the samples of train and val."""
        raise NotImplementedError

    def facts(self) -> DataFacts:
        """See `ImageData.facts`.

        Raises:
            MLScaleError: the set has not been written yet.
        """
        if not self.folder.exists():
            raise MLScaleError(
                f"the data set {self.set_name} is not there",
                where="data.root",
                why=f"{str(self.folder)!r} does not exist",
                fix=f"mlscale prepare data={self.option}",
                exit=Exit.ENVIRONMENT,
            )
        return super().facts()


class Digits(BundledImages):
    """Handwritten digits, 8×8 grey, of scikit-learn (from UCI's Optical Recognition of Handwritten Digits; CC BY 4.0).

    1,437 to train, 360 to validate: a stratified split that is always the same.
    """

    set_name = "digits-1"
    option = "digits"
    shard_size = 500
    licence = "CC-BY-4.0"

    def _load_samples(self) -> Iterator[tuple[str, Samples]]:
        for split, images, labels in split_digits():
            # 0 to 16 in the source; 0 to 255 in an image.
            yield split, build_labelled_samples(np.round(images * (255 / 16)).astype(np.uint8), labels)


class FashionMNIST(BundledImages):
    """Fashion-MNIST, 28×28 grey (Zalando, MIT): 60,000 to train, and the official test set of 10,000 to validate.

    From Debian's package dataset-fashion-mnist where it is installed, else from torchvision's mirror.
    """

    set_name = "fashion-mnist-1"
    option = "fashion_mnist"
    shard_size = 10_000
    licence = "MIT"

    def _load_samples(self) -> Iterator[tuple[str, Samples]]:
        if DEBIAN_FASHION_MNIST.is_dir():
            yield from _read_fashion_mnist(DEBIAN_FASHION_MNIST)
        else:
            with tempfile.TemporaryDirectory() as folder:
                yield from _read_fashion_mnist(_download_fashion_mnist(Path(folder)))


def split_digits() -> Iterator[tuple[str, NDArray[np.float64], NDArray[np.int64]]]:
    """Yield scikit-learn's digits: train and val, images (n, 8, 8) of values from 0 to 16, and labels (n,)."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    rows = np.arange(len(digits.images))
    # A fixed seed and not the run's: every run validates on the same digits.
    train, val = train_test_split(rows, test_size=360, stratify=digits.target, random_state=0)
    yield "train", digits.images[train], digits.target[train]
    yield "val", digits.images[val], digits.target[val]


def build_labelled_samples(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Samples:
    """Return images (n, H, W) and their classes (n,) as members `png` and `cls`."""
    pairs = zip(images, labels, strict=True)
    return len(labels), ({"png": encode_png(image), "cls": int(label)} for image, label in pairs)


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """Return an image (H, W) as an uncompressed PNG."""
    content = io.BytesIO()
    # Compression libraries differ in their bytes; uncompressed data is the same everywhere.
    Image.fromarray(image).save(content, "PNG", compress_level=0)
    return content.getvalue()


def _download_fashion_mnist(folder: Path) -> Path:
    from torchvision.datasets import FashionMNIST as Mirror

    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)  # torchvision's download would wait for ever
    try:
        return Path(Mirror(str(folder), download=True).raw_folder)
    except Exception as error:
        raise MLScaleError(
            "Fashion-MNIST is neither installed nor can it be downloaded",
            where="data=fashion_mnist",
            why=f"{DEBIAN_FASHION_MNIST} does not exist, and torchvision's mirror did not answer: "
            + " ".join(str(error).split()),
            fix="apt install dataset-fashion-mnist   (Debian, Ubuntu)\n"
            "or run `mlscale prepare data=fashion_mnist` once where there is a network",
            exit=Exit.ENVIRONMENT,
        ) from error
    finally:
        socket.setdefaulttimeout(patience)


def _read_fashion_mnist(folder: Path) -> Iterator[tuple[str, Samples]]:
    for split, prefix in (("train", "train"), ("val", "t10k")):
        images = _read_idx(folder / f"{prefix}-images-idx3-ubyte.gz")
        labels = _read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")
        yield split, build_labelled_samples(images, labels.astype(np.int64))


def _read_idx(path: Path) -> NDArray[np.uint8]:
    """Read LeCun's IDX format: two zeros, 8 for unsigned bytes, number of dimensions, each big-endian, values."""
    with gzip.open(path) as stream:
        content = stream.read()
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape.tolist())


def _write_shard(path: Path, samples: Sequence[dict[str, Any]], first: int) -> None:
    """Write the members of each sample, under keys counted from `first`."""
    # webdataset's writer is given an open file: in secure mode it opens none itself.
    with open(path, "wb") as stream, TarWriter(stream, mtime=0) as writer:
        for number, sample in enumerate(samples, first):
            writer.write({"__key__": f"{number:06}", **sample})
