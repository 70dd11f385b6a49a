"""The kinds of data whose promises are tested: a small one of each, and the policies it is read with."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from mlscale.data import (
    Augment,
    Dali,
    DatasetData,
    Digits,
    FashionMNIST,
    ImageFolder,
    ImageTable,
    RandomCrop,
    TableFiles,
    TextFiles,
    TextTable,
    TFRecord,
    TokenFiles,
    WebDataset,
)
from mlscale.data.array_data import MemoryData
from mlscale.data.builtin.image_sets import DEBIAN_FASHION_MNIST, split_digits
from mlscale.data.data_module import OrderedData
from mlscale.data.encoders.token_encoders import TokenDocumentEncoder
from mlscale.data.images import labelled_images
from mlscale.data.images.decoded_cache import SampleShape
from mlscale.data.images.sample_probe import probe_shape
from mlscale.data.tfrecord.record_framing import build_record
from mlscale.data.writing.write_shards import Part
from mlscale.data.writing.write_tokens import TokenSource, write_tokens
from tests.tokenizer_files import save_bpe
from tests.unit.data.conftest import picture, write_masked, write_shards, write_tar

BATCH = 24

Seen = list[tuple[list[str], Tensor, Tensor, Tensor | None]]
"""The global batches: keys, x, y and weights, in order."""


def webdataset(folder: Path, **policy: Any) -> WebDataset:
    if not (folder / "t").exists():
        write_shards(folder / "t", 100)
        write_shards(folder / "v", 9)
    return WebDataset(folder / "t", folder / "v", **{"batch_size": BATCH, **policy})


def windowed(folder: Path, **policy: Any) -> WebDataset:
    if not (folder / "t").exists():
        write_shards(folder / "t", 100, shards=7)
        write_shards(folder / "v", 9)
    chosen: Any = {"order": "windowed", "shuffle_window": 2}
    return WebDataset(folder / "t", folder / "v", **chosen, **{"batch_size": BATCH, **policy})


def mixed(folder: Path, **policy: Any) -> WebDataset:
    if not (folder / "a").exists():
        write_shards(folder / "a", 70)
        write_shards(folder / "b", 30)
        write_shards(folder / "v", 9)
    sources = {"a": folder / "a", "b": folder / "b"}
    return WebDataset(sources, folder / "v", mix={"a": 1, "b": 2}, **{"batch_size": BATCH, **policy})


def masks(folder: Path, **policy: Any) -> WebDataset:
    if not (folder / "t").exists():
        write_masked(folder / "t", 100, size=(12, 10))
        write_masked(folder / "v", 9, size=(12, 10))
    # Classes are stated, or each process would look for them in every mask.
    chosen: Any = {"image_key": "png", "labels": "mask", "image_size": 8, "classes": 3}
    return WebDataset(folder / "t", folder / "v", **chosen, **{"batch_size": BATCH, **policy})


def several(folder: Path, **policy: Any) -> WebDataset:
    if not (folder / "t").exists():
        write_masked(folder / "t", 100)
        write_masked(folder / "v", 9)
    return WebDataset(folder / "t", folder / "v", image_key="png", labels="several", **{"batch_size": BATCH, **policy})


def imagefolder(folder: Path, **policy: Any) -> ImageFolder:
    for i in range(0 if (folder / "i").exists() else 110):
        path = folder / "i" / f"class{i % 4}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(i))
    return ImageFolder(folder / "i", image_size=None, **{"batch_size": BATCH, **policy})


def tfrecord(folder: Path, **policy: Any) -> TFRecord:
    for name, count in (("t", 100), ("v", 9)):
        if not (path := folder / f"{name}.tfrecord").exists():
            folder.mkdir(parents=True, exist_ok=True)
            records = (build_record({"image/encoded": picture(i), "image/class/label": i % 3}) for i in range(count))
            path.write_bytes(b"".join(records))
    return TFRecord(folder / "t.tfrecord", folder / "v.tfrecord", image_size=None, **{"batch_size": BATCH, **policy})


def image_table(folder: Path, **policy: Any) -> ImageTable:
    """Images in Parquet, as bytes: those that are files are read as a folder's are."""
    import pyarrow as pa
    from pyarrow import parquet

    if not (path := folder / "t.parquet").exists():
        folder.mkdir(parents=True, exist_ok=True)
        columns = {"image": [picture(i) for i in range(110)], "label": [i % 4 for i in range(110)]}
        parquet.write_table(pa.table(columns), path, row_group_size=17)
    return ImageTable(path, image_size=None, **{"batch_size": BATCH, **policy})


def dali(folder: Path, **policy: Any) -> Dali:
    for name, count in (("t", 100), ("v", 9)):
        if not (folder / name).exists():
            # JPEGs, which DALI decodes itself.
            members = [(f"{i:04}.jpg", picture(i, size=(18, 14), kind="JPEG")) for i in range(count)]
            write_tar(
                folder / name / "0.tar",
                [m for i in range(count) for m in (members[i], (f"{i:04}.cls", b"%d" % (i % 3)))],
            )
    return Dali(str(folder / "t"), str(folder / "v"), image_size=8, **{"batch_size": BATCH, **policy})


def digits(_: Path, **policy: Any) -> Digits:
    data = Digits(**{"batch_size": BATCH, "epoch_samples": 100, **policy})
    data.prepare_data()
    return data


def some_digits() -> Iterator[Any]:
    """A tenth of them: each process decodes all that there are."""
    return ((split, images[:150], labels[:150]) for split, images, labels in split_digits())


def fashion_mnist(_: Path, **policy: Any) -> FashionMNIST:
    data = FashionMNIST(**{"batch_size": BATCH, "epoch_samples": 100, **policy})
    data.prepare_data()
    return data


def dataset(_: Path, **policy: Any) -> DatasetData:
    x = torch.rand(100, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    train = TensorDataset(x, torch.arange(100) % 3)
    return DatasetData(train, TensorDataset(x[:9], torch.arange(9) % 3), **{"batch_size": BATCH, **policy})


def table(folder: Path, **policy: Any) -> TableFiles:
    """Rows of numbers and categories, some of them missing, with a class each."""
    lines = (f"{i * 0.7},{i % 5 or ''},{'abc'[i % 3]},{'no' if i % 4 else 'yes'}" for i in range(100))
    return TableFiles(*_written(folder, "rows.csv", "a,b,c,target", lines), **{"batch_size": BATCH, **policy})


def numbers(folder: Path, **policy: Any) -> TableFiles:
    """Rows with two numbers to predict."""
    lines = (f"{i},{i * i},{i / 3},{-i}" for i in range(100))
    path, _ = _written(folder, "rows.csv", "a,b,u,v", lines)
    return TableFiles(path, ["u", "v"], target_type="number", **{"batch_size": BATCH, **policy})


def texts(folder: Path, **policy: Any) -> TextTable:
    lines = (f"{'abc'[i % 3] * (i % 40 + 1)} {i},{i % 2}" for i in range(130))
    path, _ = _written(folder, "texts.csv", "text,label", lines)
    return TextTable(path, length=24, **{"batch_size": BATCH, **policy})


def language(folder: Path, **policy: Any) -> TextFiles:
    path, _ = _written(folder, "long.txt", "", (f"line {i} of a text" for i in range(200)))
    return TextFiles(path, length=16, stride=12, **{"batch_size": BATCH, "epoch_samples": 100, **policy})


def tokens(folder: Path, **policy: Any) -> TokenFiles:
    """Several files of tokens, whose sequences are filled with documents."""
    if not (folder / "tokens").exists():
        # What is only read once: files that change are those of tokens.
        path, _ = _written(
            folder / "cache", "a.jsonl", "", (json.dumps({"text": "a fox " * (i % 9 + 1)}) for i in range(400))
        )
        texts = TextFiles(path, text="text", tokenizer=save_bpe(folder / "cache" / "t.json"))
        encoder = texts.encoder()
        assert isinstance(encoder, TokenDocumentEncoder)
        source = TokenSource(texts.list_token_parts(3000), "text", 0.1, encoder, "TextFiles", texts.file_keys)
        write_tokens(source, folder / "tokens", shard_bytes=3000, licence=None, part=Part(), progress=lambda size: None)
    chosen: Any = {"packing": "documents", "length": 24}
    return TokenFiles(str(folder / "tokens"), **chosen, **{"batch_size": BATCH, "epoch_samples": 100, **policy})


def _written(folder: Path, name: str, heading: str, lines: Iterator[str]) -> tuple[str, str]:
    path = folder / name
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join((heading, *lines, "")))
    return str(path), "target"


BACKENDS: list[Callable[..., OrderedData]] = [
    webdataset, windowed, mixed, imagefolder, tfrecord, image_table, digits, dataset, masks, several, table, numbers,
    texts, language, tokens,
]  # fmt: skip
if find_spec("nvidia") and find_spec("nvidia.dali"):
    BACKENDS.append(dali)
if DEBIAN_FASHION_MNIST.is_dir():
    BACKENDS.append(fashion_mnist)

POLICIES: dict[str, dict[str, Any]] = {
    "plain": {},
    "augmented": {"augment": Augment(0.1, 10, 0.1, True)},
    "mixup": {"augment": Augment(0.1, flip=True, mixup=0.4, cutmix=1.0, block=4)},
    "balanced": {"sampling": "balanced", "last": "pad"},
    "weighted": {"sampling": "weighted"},
    "short epochs, padded": {"epoch_samples": 60, "last": "pad", "augment": Augment(0.1)},
    "skip": {"on_bad_sample": "skip"},
    "crop": {"augment": RandomCrop((0.2, 1.0))},
}
ONLY = {  # of the policies above, where not all
    "windowed": ("plain", "mixup", "short epochs, padded", "skip"),
    "mixed": ("plain", "augmented", "mixup", "short epochs, padded", "skip"),
    "dali": ("augmented", "mixup", "short epochs, padded", "skip", "crop"),
    "fashion_mnist": ("mixup",),
    "masks": ("plain", "augmented", "crop", "short epochs, padded", "skip"),
    "several": ("plain", "mixup", "weighted"),
    "image_table": ("plain", "mixup", "balanced", "weighted", "skip"),
    "table": ("plain", "balanced", "weighted", "skip"),  # no images: nothing of theirs is augmented
    "numbers": ("plain", "skip"),
    "texts": ("plain", "skip"),
    "language": ("plain", "weighted"),
    "tokens": ("plain", "weighted"),
}

# Each process reads its data anew, which takes most of the time; others have these policies, too.
SLOW = {
    ("digits", "augmented"), ("digits", "weighted"), ("digits", "short epochs, padded"), ("digits", "skip"),
    ("masks", "augmented"), ("masks", "short epochs, padded"),
}  # fmt: skip


def cases() -> Iterator[Any]:
    for backend in BACKENDS:
        for name in ONLY.get(backend.__name__, [name for name in POLICIES if name != "crop"]):
            # 70,000 images are written for Fashion-MNIST.
            slow = backend is fashion_mnist or (backend.__name__, name) in SLOW
            marks = pytest.mark.slow if slow else ()
            yield pytest.param((backend, name), id=f"{backend.__name__}-{name}", marks=marks)


def probe_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each data module of a test but the first take the shape of its samples as found by then.

    It is the same for the same version and settings, as `images/test_saved_probe.py` shows; to decode 64 samples for
    each of twenty ranks takes half of the time.
    """
    found: dict[Hashable, SampleShape] = {}

    def probe(source: Any, **settings: Any) -> SampleShape:
        key = (type(source), source.version, *sorted(settings.items()))
        if key not in found:
            found[key] = probe_shape(source, **settings)
        return found[key]

    monkeypatch.setattr(labelled_images, "probe_shape", probe)


def write_weights(data: OrderedData, path: Path) -> Path:
    """Write a weight for each sample of the training split, unless the file exists."""
    if not path.exists():
        samples = data._open_stream("train")[1]
        keys = [f"train/{i}" for i in range(samples)] if isinstance(data, DatasetData) else _list_keys(data, samples)
        path.write_text("key,weight\n" + "".join(f"{key},{1 + i % 3}\n" for i, key in enumerate(keys)))
    return path


def _list_keys(data: Any, samples: int) -> list[str]:
    rows = data._splits["train"]
    if isinstance(data, MemoryData):
        return [rows.get_key(i) for i in range(samples)]
    return list(rows.list_keys(range(samples)))


def rows(parts: list[dict[str, Any]]) -> tuple[list[str], Tensor, Tensor, Tensor | None]:
    """Parts of a batch put together; arrays are copied, since a loader may use them again."""
    weight = torch.cat([part["weight"] for part in parts]) if "weight" in parts[0] else None
    keys = [key for part in parts for key in part["key"]]
    return keys, torch.cat([part["x"] for part in parts]), torch.cat([part["y"] for part in parts]), weight


def same(a: Seen, b: Seen) -> bool:
    def equal(p: Tensor | None, q: Tensor | None) -> bool:
        return p is q is None or (p is not None and q is not None and torch.equal(p, q))

    return len(a) == len(b) and all(
        p[0] == q[0] and all(equal(s, t) for s, t in zip(p[1:], q[1:], strict=True)) for p, q in zip(a, b, strict=True)
    )
