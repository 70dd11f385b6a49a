"""`mlscale.data.Loader` in a plain loop: the batches of a run, on any number of ranks, from any position."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mlscale.data import Loader, RandomCrop, TarBackend, WebDataset
from mlscale.data.order.bad_samples import BadSample
from mlscale.errors import MLScaleError
from tests.unit.data.conftest import picture, write_shards, write_tar

BATCH = 24


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    write_shards(tmp_path / "t", 100)
    write_shards(tmp_path / "v", 9)
    return tmp_path


def open_shards(shards: Path, **settings: Any) -> TarBackend:
    chosen = {"batch_size": BATCH, "image_size": 6, "augment": RandomCrop(), "seed": 5, **settings}
    return TarBackend(shards / "t", shards / "v", **chosen)


def take(loader: Loader, epochs: int = 1) -> list[tuple[list[str], Tensor, Tensor]]:
    # Cloned, because the arrays of batches are used again.
    return [(batch["key"], batch["x"].clone(), batch["y"].clone()) for _ in range(epochs) for batch in loader]


def assert_equal(mine: list[tuple[list[str], Tensor, Tensor]], theirs: list[tuple[list[str], Tensor, Tensor]]) -> None:
    assert [keys for keys, _, _ in mine] == [keys for keys, _, _ in theirs]
    for (_, x, y), (_, other_x, other_y) in zip(mine, theirs, strict=True):
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)


def test_the_batches_are_those_of_a_run(shards: Path) -> None:
    module = WebDataset(shards / "t", shards / "v", batch_size=BATCH, image_size=6, augment=RandomCrop(), seed=5)
    loader = module.train_dataloader()
    expected = [(batch["key"], batch["x"].clone(), batch["y"].clone()) for _ in range(2) for batch in loader]
    assert_equal(take(Loader(open_shards(shards)), 2), expected)


@pytest.mark.parametrize("stop", [0, 1, 3, 4, 6, 7])
def test_a_loop_that_was_killed_goes_on_exactly(shards: Path, stop: int) -> None:
    whole, before = take(Loader(open_shards(shards)), 3), Loader(open_shards(shards))
    state, taken = before.state_dict(), 0
    while taken < stop:
        for _ in before:
            taken, state = taken + 1, before.state_dict()
            if taken == stop:
                break
    after = Loader(open_shards(shards))
    after.load_state_dict(json.loads(json.dumps(state)))
    assert after.epoch == stop // 4
    assert_equal(take(after, 3 - after.epoch), whole[stop:])


@pytest.mark.parametrize(("ranks", "accumulate"), [(2, 1), (4, 1), (1, 2), (2, 3)])
def test_global_batches_do_not_depend_on_the_layout(shards: Path, ranks: int, accumulate: int) -> None:
    whole = take(Loader(open_shards(shards)), 2)
    parts = [
        take(Loader(open_shards(shards), rank=rank, world_size=ranks, accumulate=accumulate), 2)
        for rank in range(ranks)
    ]
    for step, (keys, x, _) in enumerate(whole):
        rows = [parts[rank][step * accumulate + turn] for turn in range(accumulate) for rank in range(ranks)]
        assert [key for part, _, _ in rows for key in part] == keys
        assert torch.equal(torch.cat([part for _, part, _ in rows]), x)


def test_validation_is_each_sample_once(shards: Path) -> None:
    data = open_shards(shards)
    train, parts = Loader(data), [Loader(data, "val", rank=rank, world_size=2) for rank in range(2)]
    first = take(train)
    batches = [batch for part in parts for batch in part]
    pairs = [pair for batch in batches for pair in zip(batch["key"], batch["weight"].tolist(), strict=True)]
    seen = [key for key, weight in pairs if weight]
    assert len(set(seen)) == len(seen) == 9
    # Loaders of one backend do not disturb each other.
    assert_equal(take(train), take(Loader(open_shards(shards)), 2)[len(first) :])


def test_a_position_in_another_order_is_refused(shards: Path) -> None:
    state = Loader(open_shards(shards)).state_dict()
    other = Loader(open_shards(shards, seed=6))
    other.load_state_dict(state)
    with pytest.raises(MLScaleError, match="another order"):
        next(iter(other))
    with pytest.raises(MLScaleError, match="does not divide"):
        Loader(open_shards(shards), world_size=5, rank=0).__len__()
    with pytest.raises(MLScaleError, match="the split 'dev' is unknown"):
        Loader(open_shards(shards), "dev")


def test_it_imports_torch_numpy_and_decoders_alone(tmp_path: Path) -> None:
    jpeg = picture(0, kind="JPEG")
    for name in "tv":
        members = [(f"{i:03}.{kind}", content) for i in range(30) for kind, content in (("jpg", jpeg), ("cls", b"0"))]
        write_tar(tmp_path / name / "0.tar", members)
    code = f"""
import sys
for absent in ("PIL", "yaml", "braceexpand", "fsspec", "webdataset", "torchvision"):
    sys.modules[absent] = None  # as if it were not installed
from mlscale.data import FolderBackend, Loader, RandomCrop, TarBackend
data = TarBackend({str(tmp_path / "t")!r}, {str(tmp_path / "v")!r}, batch_size=24, image_size=6, augment=RandomCrop())
next(iter(Loader(data)))
names = ("pytorch_lightning", "lightning_fabric", "hydra", "omegaconf", "webdataset", "torchvision", "sklearn", "scipy")
print([name for name in names if sys.modules.get(name)])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def make_photo_tables(folder: Path, pictures: list[bytes]) -> Any:
    """Return the data of the page's source, of which each fifth picture validates."""
    page = (Path(__file__).parents[3] / "docs" / "loader.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[1]
    names: dict[str, Any] = {}
    exec(compile(code, "docs/loader.md", "exec"), names)
    with closing(sqlite3.connect(folder / "photos.db")) as base, base:
        base.execute("create table photos(split, name, label, image)")
        rows = [
            ("train" if i % 5 else "val", f"{i}", ("cat", "dog")[i % 2], content) for i, content in enumerate(pictures)
        ]
        base.executemany("insert into photos values (?, ?, ?, ?)", rows)
    return partial(names["PhotoTables"], folder / "photos.db", image_size=6, batch_size=8, seed=1)


def test_the_source_of_the_docs(tmp_path: Path) -> None:
    make = make_photo_tables(tmp_path, [picture(i, kind="JPEG") for i in range(60)])
    whole = take(Loader(make()), 2)
    assert len(whole) == 12
    after = Loader(make())
    after.load_state_dict({**Loader(make()).state_dict(), "position": 16})
    assert_equal(take(after, 2), whole[2:])


@pytest.mark.parametrize("shared", [0, 3])
def test_the_source_of_the_docs_starts_a_fit(shared: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = [picture(i, kind="JPEG") for i in range(60)]
    pictures[12] = b"not a picture"
    for number in range(shared):
        pictures[5 * number] = pictures[5 * number + 1]
    make_photo_tables(tmp_path, pictures)(on_bad_sample="skip").setup("fit")
    line = f"leak      {shared} of 12 validation samples are in the training data, too: 0 equals 1"
    assert (line in capsys.readouterr().err) == bool(shared)


def test_a_large_source_without_sizes_is_not_read_at_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlscale.data.inspection.shared_rows._MAX_READ_BYTES", 2000)
    pictures = [picture(i // 2 * 2, kind="JPEG") for i in range(60)]
    make_photo_tables(tmp_path, pictures)().setup("fit")
    assert "leak" not in capsys.readouterr().err


def test_what_a_source_can_not_read_is_a_bad_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = make_photo_tables(tmp_path, [picture(i, kind="JPEG") for i in range(60)])
    source = make.func.build_openers.__globals__["PhotoTable"]
    read = source.read_image

    def fail_for_some(self: Any, sample: int) -> tuple[str, bytes]:
        if self.get_key(sample) in ("5", "7"):
            raise zipfile.BadZipFile("Bad CRC-32")
        content: tuple[str, bytes] = read(self, sample)
        return content

    monkeypatch.setattr(source, "read_image", fail_for_some)
    with pytest.raises(BadSample, match="the sample 7 cannot be read") as caught:
        take(Loader(make()))
    assert caught.value.why == "BadZipFile: Bad CRC-32"
    data = make(on_bad_sample="skip")
    data.setup("fit")
    weights = torch.cat([batch["weight"].clone() for batch in Loader(data)])
    assert (len(weights), int((weights == 0).sum())) == (48, 1)
