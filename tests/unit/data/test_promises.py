"""What every kind of data promises, under every policy: order, resume, the same global batches on any layout."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import islice
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
    Promises,
    RandomCrop,
    TableFiles,
    TextFiles,
    TextTable,
    TFRecord,
    TokenFiles,
    WebDataset,
)
from mlscale.data.array_data import MemoryData
from mlscale.data.builtin import image_sets
from mlscale.data.builtin.image_sets import DEBIAN_FASHION_MNIST, split_digits
from mlscale.data.data_module import OrderedData
from mlscale.data.encoders.token_encoders import TokenDocumentEncoder
from mlscale.data.order.batch_plan import BatchLayout
from mlscale.data.tfrecord.record_writer import build_record
from mlscale.data.writing.write_shards import Part
from mlscale.data.writing.write_tokens import TokenSource, write_tokens
from mlscale.errors import MLScaleError
from tests.tokenizer_files import save_bpe
from tests.unit.data.conftest import picture, write_masked, write_shards, write_tar

BATCH = 24
LAYOUTS = [(2, 1), (3, 1), (1, 2), (2, 3)]  # (ranks, forward passes of a step)

Seen = list[tuple[list[str], Tensor, Tensor, Tensor | None]]
"""The global batches: keys, x, y and weights, in order."""


def webdataset(folder: Path, **policy: Any) -> WebDataset:
    if not (folder / "t").exists():
        write_shards(folder / "t", 100)
        write_shards(folder / "v", 9)
    return WebDataset(folder / "t", folder / "v", batch_size=BATCH, **policy)


def windowed(folder: Path, **policy: Any) -> WebDataset:
    if not (folder / "t").exists():
        write_shards(folder / "t", 100, shards=7)
        write_shards(folder / "v", 9)
    chosen: Any = {"order": "windowed", "shuffle_window": 2}
    return WebDataset(folder / "t", folder / "v", batch_size=BATCH, **chosen, **policy)


def mixed(folder: Path, **policy: Any) -> WebDataset:
    if not (folder / "a").exists():
        write_shards(folder / "a", 70)
        write_shards(folder / "b", 30)
        write_shards(folder / "v", 9)
    sources = {"a": folder / "a", "b": folder / "b"}
    return WebDataset(sources, folder / "v", batch_size=BATCH, mix={"a": 1, "b": 2}, **policy)


def masks(folder: Path, **policy: Any) -> WebDataset:
    if not (folder / "t").exists():
        write_masked(folder / "t", 100, size=(12, 10))
        write_masked(folder / "v", 9, size=(12, 10))
    # Classes are stated, or each process would look for them in every mask.
    chosen: Any = {"image_key": "png", "labels": "mask", "image_size": 8, "classes": 3}
    return WebDataset(folder / "t", folder / "v", batch_size=BATCH, **chosen, **policy)


def several(folder: Path, **policy: Any) -> WebDataset:
    if not (folder / "t").exists():
        write_masked(folder / "t", 100)
        write_masked(folder / "v", 9)
    return WebDataset(folder / "t", folder / "v", image_key="png", labels="several", batch_size=BATCH, **policy)


def imagefolder(folder: Path, **policy: Any) -> ImageFolder:
    for i in range(0 if (folder / "i").exists() else 110):
        path = folder / "i" / f"class{i % 4}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(i))
    return ImageFolder(folder / "i", image_size=None, batch_size=BATCH, **policy)


def tfrecord(folder: Path, **policy: Any) -> TFRecord:
    for name, count in (("t", 100), ("v", 9)):
        if not (path := folder / f"{name}.tfrecord").exists():
            folder.mkdir(parents=True, exist_ok=True)
            records = (build_record({"image": picture(i), "label": i % 3}) for i in range(count))
            path.write_bytes(b"".join(records))
    return TFRecord(folder / "t.tfrecord", folder / "v.tfrecord", image_size=None, batch_size=BATCH, **policy)


def image_table(folder: Path, **policy: Any) -> ImageTable:
    """Images in Parquet, as bytes: those that are files are read as a folder's are."""
    import pyarrow as pa
    from pyarrow import parquet

    if not (path := folder / "t.parquet").exists():
        folder.mkdir(parents=True, exist_ok=True)
        columns = {"image": [picture(i) for i in range(110)], "label": [i % 4 for i in range(110)]}
        parquet.write_table(pa.table(columns), path, row_group_size=17)
    return ImageTable(path, image_size=None, batch_size=BATCH, **policy)


def dali(folder: Path, **policy: Any) -> Dali:
    for name, count in (("t", 100), ("v", 9)):
        if not (folder / name).exists():
            # JPEGs, which DALI decodes itself.
            members = [(f"{i:04}.jpg", picture(i, size=(18, 14), kind="JPEG")) for i in range(count)]
            write_tar(
                folder / name / "0.tar",
                [m for i in range(count) for m in (members[i], (f"{i:04}.cls", b"%d" % (i % 3)))],
            )
    return Dali(str(folder / "t"), str(folder / "v"), image_size=8, batch_size=BATCH, **policy)


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
    return DatasetData(train, TensorDataset(x[:9], torch.arange(9) % 3), batch_size=BATCH, **policy)


def table(folder: Path, **policy: Any) -> TableFiles:
    """Rows of numbers and categories, some of them missing, with a class each."""
    lines = (f"{i * 0.7},{i % 5 or ''},{'abc'[i % 3]},{'no' if i % 4 else 'yes'}" for i in range(100))
    return TableFiles(*_written(folder, "rows.csv", "a,b,c,target", lines), batch_size=BATCH, **policy)


def numbers(folder: Path, **policy: Any) -> TableFiles:
    """Rows with two numbers to predict."""
    lines = (f"{i},{i * i},{i / 3},{-i}" for i in range(100))
    path, _ = _written(folder, "rows.csv", "a,b,u,v", lines)
    return TableFiles(path, ["u", "v"], target_type="number", batch_size=BATCH, **policy)


def texts(folder: Path, **policy: Any) -> TextTable:
    lines = (f"{'abc'[i % 3] * (i % 40 + 1)} {i},{i % 2}" for i in range(130))
    path, _ = _written(folder, "texts.csv", "text,label", lines)
    return TextTable(path, length=24, batch_size=BATCH, **policy)


def language(folder: Path, **policy: Any) -> TextFiles:
    path, _ = _written(folder, "long.txt", "", (f"line {i} of a text" for i in range(200)))
    return TextFiles(path, length=16, stride=12, batch_size=BATCH, **{"epoch_samples": 100, **policy})


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
    return TokenFiles(str(folder / "tokens"), batch_size=BATCH, **chosen, **{"epoch_samples": 100, **policy})


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


@pytest.fixture(scope="module")
def cached(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written once: what is bundled comes from scikit-learn and Debian."""
    return tmp_path_factory.mktemp("promises")


@pytest.fixture
def make(request: pytest.FixtureRequest, cached: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., OrderedData]:
    """A new data module of the case, as another process would build it."""
    backend, policy = request.param
    monkeypatch.setenv("MLSCALE_CACHE", str(cached / "cache"))
    monkeypatch.setattr(image_sets, "split_digits", some_digits)
    choices = dict(POLICIES[policy])

    def build(**changes: Any) -> OrderedData:
        folder = cached / backend.__name__
        if choices.get("sampling") == "weighted":
            choices["weights"] = str(_weights(backend(folder), cached / f"{backend.__name__}.csv"))
        data: OrderedData = backend(folder, **{**choices, **changes})
        data.setup("fit")
        return data

    return build


@pytest.fixture
def whole(request: pytest.FixtureRequest, make: Callable[..., OrderedData]) -> Seen:
    """Two epochs of one process, read once for all tests of a case: `test_order` shows that they repeat."""
    backend, policy = request.node.callspec.params["make"]
    case = (backend.__name__, policy)
    if case not in _WHOLE:
        _WHOLE[case] = epochs(make(), 2)
    return _WHOLE[case]


_WHOLE: dict[tuple[str, str], Seen] = {}


def _weights(data: OrderedData, path: Path) -> Path:
    if not path.exists():
        samples = data._open_stream("train")[1]
        keys = [f"train/{i}" for i in range(samples)] if isinstance(data, DatasetData) else _keys(data, samples)
        path.write_text("key,weight\n" + "".join(f"{key},{1 + i % 3}\n" for i, key in enumerate(keys)))
    return path


def _keys(data: Any, samples: int) -> list[str]:
    rows = data._splits["train"]
    if isinstance(data, MemoryData):
        return [rows.get_key(i) for i in range(samples)]
    return list(rows.list_keys(range(samples)))


def on(data: OrderedData, layout: BatchLayout, monkeypatch: pytest.MonkeyPatch) -> OrderedData:
    """The data as a rank of a layout has it; the layout comes from a trainer otherwise."""
    monkeypatch.setattr(data, "_build_layout", lambda: layout)
    return data


def rows(parts: list[dict[str, Any]]) -> tuple[list[str], Tensor, Tensor, Tensor | None]:
    """Parts of a batch put together; arrays are copied, since a loader may use them again."""
    weight = torch.cat([part["weight"] for part in parts]) if "weight" in parts[0] else None
    keys = [key for part in parts for key in part["key"]]
    return keys, torch.cat([part["x"] for part in parts]), torch.cat([part["y"] for part in parts]), weight


def epochs(data: OrderedData, count: int) -> Seen:
    loader = data.train_dataloader()
    return [rows([batch]) for _ in range(count) for batch in loader]


def same(a: Seen, b: Seen) -> bool:
    def equal(p: Tensor | None, q: Tensor | None) -> bool:
        return p is q is None or (p is not None and q is not None and torch.equal(p, q))

    return len(a) == len(b) and all(
        p[0] == q[0] and all(equal(s, t) for s, t in zip(p[1:], q[1:], strict=True)) for p, q in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("make", [*cases()], indirect=True)
class TestPromises:
    def test_order(self, make: Callable[..., OrderedData]) -> None:
        """The same to the bit for the same seed, whatever the workers; another for another seed and epoch."""
        data = make()
        assert data.promises == Promises(order=True, resume=True, elastic=True)
        first = epochs(data, 2)
        workers = {} if isinstance(data, MemoryData) else {"workers": 0 if isinstance(data, DatasetData) else 3}
        assert same(first, epochs(make(**workers), 2))
        half = len(first) // 2
        assert [keys for keys, *_ in first[:half]] != [keys for keys, *_ in first[half:]]
        assert [keys for keys, *_ in first] != [keys for keys, *_ in epochs(make(seed=1), 2)]

    def test_resume(self, make: Callable[..., OrderedData], whole: Seen) -> None:
        """From any batch, by a state of less than a kilobyte."""
        data, states = make(), list[dict[str, Any]]()
        loader = data.train_dataloader()
        while len(states) < len(whole):
            for _ in loader:
                states.append(data.state_dict())
                assert max(len(json.dumps(states[-1])), len(pickle.dumps(states[-1]))) < 1024
        for stop, state in enumerate(states[: len(whole) - 1], 1):
            resumed = make()
            resumed.load_state_dict(json.loads(json.dumps(state)))
            rest: Seen = []
            while len(rest) < len(whole) - stop:
                rest += epochs(resumed, 1)
            assert same(rest, whole[stop:])

    @pytest.mark.parametrize(("ranks", "passes"), LAYOUTS)
    def test_elastic(
        self, make: Callable[..., OrderedData], whole: Seen, monkeypatch: pytest.MonkeyPatch, ranks: int, passes: int
    ) -> None:
        """Put together, what ranks and forward passes see is the batch of one process, to the bit."""
        layouts = [BatchLayout(BATCH, ranks, rank, passes) for rank in range(ranks)]
        loaders = [on(make(), layout, monkeypatch).train_dataloader() for layout in layouts]
        seen: Seen = []
        for _ in range(2):
            for micro in batched(zip(*loaders, strict=True), passes):
                seen.append(rows([part for parts in micro for part in parts]))
        assert same(seen, whole)

    def test_from_two_ranks_to_one_and_back(
        self, make: Callable[..., OrderedData], whole: Seen, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        state, seen = make().state_dict(), list[list[str]]()
        for number in range(len(whole)):
            ranks = 1 + number % 2
            parts = []
            for rank in range(ranks):
                data = on(make(), BatchLayout(BATCH, ranks, rank), monkeypatch)
                data.load_state_dict(state)
                parts.append(next(iter(data.train_dataloader())))
                after = data.state_dict()
            state = after
            seen.append(rows(parts)[0])
        assert seen == [keys for keys, *_ in whole]


def batched(items: Iterator[Any], count: int) -> Iterator[list[Any]]:
    while part := list(islice(items, count)):
        yield part


def test_a_checkpoint_of_another_policy_is_refused(tmp_path: Path) -> None:
    state = webdataset(tmp_path, sampling="balanced").state_dict()
    data = webdataset(tmp_path)
    data.load_state_dict(state)
    with pytest.raises(MLScaleError, match="another order") as caught:
        data.train_dataloader()
    assert caught.value.where == "data.sampling"
    assert "its policy is balanced" in caught.value.why


def test_a_weighted_run_is_resumed_with_its_weights_alone(tmp_path: Path) -> None:
    weights, keys = tmp_path / "w.csv", set[str]()
    for batch in webdataset(tmp_path, last="pad").train_dataloader():
        keys |= set(batch["key"])
    weights.write_text("".join(f"{key},{1 + number % 3}\n" for number, key in enumerate(sorted(keys))))
    choices = {"sampling": "weighted", "weights": str(weights), "epoch_samples": 4 * BATCH}
    first = webdataset(tmp_path, **choices)
    whole = [batch["key"] for batch in first.train_dataloader()]
    state = {**first.state_dict(), "epoch": 0, "position": 2 * BATCH}
    again = webdataset(tmp_path, **choices)
    again.load_state_dict(state)
    assert [batch["key"] for batch in again.train_dataloader()] == whole[2:]
    for changed in (
        {"epoch_samples": 5 * BATCH},
        {"weights": _another(weights)},
        {"sampling": "balanced", "weights": None},
    ):
        other = webdataset(tmp_path, **{**choices, **changed})
        other.load_state_dict(state)
        with pytest.raises(MLScaleError, match="another order") as caught:
            other.train_dataloader()
        assert caught.value.where == "data.sampling"
        assert "its policy is weighted" in caught.value.why


def _another(weights: Path) -> str:
    """The same keys, one of them with another weight."""
    path = weights.with_name("another.csv")
    path.write_text(weights.read_text().replace(",1\n", ",2\n", 1))
    return str(path)


def test_a_checkpoint_from_before_policies_goes_on(tmp_path: Path) -> None:
    data = webdataset(tmp_path)
    state = data.state_dict()
    assert state.pop("policy") == "shuffle"
    data.load_state_dict(state)
    assert len(list(data.train_dataloader())) == 4


def test_weights_from_members(tmp_path: Path) -> None:
    """A member of each sample holds its weight."""
    members = [
        member
        for i in range(30)
        for member in (
            (f"{i:02}.png", picture(i)),
            (f"{i:02}.cls", str(i % 2).encode()),
            (f"{i:02}.weight", str(i % 3).encode()),
        )
    ]
    shard = write_tar(tmp_path / "0.tar", members)
    data = WebDataset(shard, shard, batch_size=30, sampling="weighted", weights="weight", epoch_samples=300)
    keys = [key for batch in data.train_dataloader() for key in batch["key"]]
    counts = [keys.count(f"0.tar/{i:02}") for i in range(30)]
    assert counts == [10 * (i % 3) for i in range(30)]
