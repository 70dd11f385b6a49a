"""Validation samples, raw and as the model sees them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import LightningDataModule
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from torch.utils.data import DataLoader, TensorDataset

from mlscale.data import Digits, ImageFolder, WebDataset
from mlscale.data.encoders.encoder import INPUT, TensorSpec
from mlscale.data.windows.window_folder import write_window_facts
from mlscale.errors import MLScaleError
from mlscale.export.reference_builder import ReferenceBuilder
from mlscale.export.validation_samples import (
    describe_sample_format,
    iterate_loader_batches,
    iterate_validation_batches,
)
from mlscale.reference.column_sketch import NumberSketch
from mlscale.task_types.registry import get_task_type
from mlscale.task_types.task_type import AnswerNames


def test_each_validation_image_once_beside_what_the_model_sees(digits: Digits) -> None:
    given = describe_sample_format(digits)
    assert (given.encoder.inputs, given.names) == ((TensorSpec(INPUT, "uint8", (1, 8, 8)),), AnswerNames())
    encoder = digits.encoder()
    batches = list(iterate_validation_batches(digits))
    raw, x = np.concatenate([each.raw for each in batches]), torch.cat([each.x for each in batches])
    assert (raw.shape, raw.dtype.name, raw.max()) == ((360, 1, 8, 8), "uint8", 255)
    assert all(np.array_equal(each.pack(encoder).tensors[INPUT], each.raw) for each in batches)  # from stored files
    np.testing.assert_allclose((raw - np.array(encoder.mean)) / np.array(encoder.std), x.numpy(), atol=1e-6)
    labels = np.concatenate([each.y for each in batches])
    assert np.bincount(labels).tolist() == np.bincount(digits.get_decoded_split("val").labels).tolist()


@pytest.mark.parametrize("limit", [1, 50, 51, 360, 1000])
def test_as_many_as_asked_for(digits: Digits, limit: int) -> None:
    assert sum(len(each.y) for each in iterate_validation_batches(digits, limit=limit)) == min(limit, 360)


def test_an_image_that_cannot_be_read_is_left_out_with_its_label(digits: Digits, tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        for shard in sorted((digits.folder / split).glob("*.tar")):
            (tmp_path / split / shard.name).write_bytes(shard.read_bytes())
    shard = tmp_path / "val" / "000.tar"
    content = bytearray(shard.read_bytes())
    at = content.index(b"\x89PNG", content.index(b"\x89PNG") + 1)  # the second image
    content[at : at + 8] = b"nothing!"
    shard.write_bytes(content)
    data = WebDataset(str(tmp_path / "train"), str(tmp_path / "val"), batch_size=50, workers=0, on_bad_sample="skip")
    data.setup("validate")
    batches, whole = list(iterate_validation_batches(data)), next(iterate_validation_batches(digits))
    assert sum(len(each.y) for each in batches) == 359
    assert batches[0].raw.tolist() == np.delete(whole.raw, 1, axis=0).tolist()
    assert batches[0].y.tolist() == np.delete(whole.y, 1).tolist()
    assert torch.equal(batches[0].x, torch.cat([whole.x[:1], whole.x[2:]]))


class Theirs(LightningDataModule):
    """Somebody's data module: pairs, normalised by themselves."""

    def __init__(self, samples: int = 7, loaders: int = 1) -> None:
        super().__init__()
        self.set = TensorDataset(torch.randn(samples, 3, dtype=torch.float64), torch.arange(samples) % 2)
        self.loaders = loaders

    def val_dataloader(self) -> list[DataLoader[tuple[torch.Tensor, ...]]]:
        return [DataLoader(self.set, batch_size=4) for _ in range(self.loaders)]


def test_anybodys_data_module_gives_what_its_model_takes() -> None:
    data = Theirs()
    given = describe_sample_format(data)
    assert given.encoder.inputs == (TensorSpec(INPUT, "float32", (3,)),)
    batches = list(iterate_validation_batches(data))
    assert [each.y.tolist() for each in batches] == [[0, 1, 0, 1], [0, 1, 0]]
    assert all(np.array_equal(each.raw, each.x.numpy()) and each.raw.dtype == np.float32 for each in batches)
    with pytest.raises(MLScaleError, match="no validation samples"):
        list(iterate_validation_batches(Theirs(samples=0)))


@pytest.mark.parametrize("nested", [tuple, list, lambda pair: {"left": pair[0], "more": pair}])
def test_nested_inputs_are_refused_with_the_form_to_give(nested: Callable[[Any], Any]) -> None:
    x, y = torch.zeros(2, 3), torch.zeros(2)
    with pytest.raises(MLScaleError, match="where a servable takes a tensor") as caught:
        next(iterate_loader_batches(iter([{"x": nested((x, x)), "y": y}]), "validation"))
    assert "forward(self, a, b)" in caught.value.fix


@pytest.mark.parametrize("form", [list, dict, CombinedLoader])
def test_of_several_loaders_the_first_counts_and_is_reported(
    form: Callable[[Any], Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlscale.data.shards.system_files._reported", set())
    data = Theirs()
    one, other = data.val_dataloader()[0], Theirs(samples=3).val_dataloader()[0]
    loaders = {"near": one, "far": other} if form is dict else form([one, other])
    monkeypatch.setattr(data, "val_dataloader", lambda: loaders)
    for _ in range(2):
        assert sum(len(batch.y) for batch in iterate_validation_batches(data)) == 7
    which = "'near', the first" if form is dict else "the first"
    assert capsys.readouterr().err == f"data      samples are those of {which} of 2 validation loaders\n"
    with pytest.raises(MLScaleError, match="has 2 train loaders"):
        next(iterate_loader_batches(loaders, "train"))


@pytest.mark.parametrize("has_facts", [True, False])
def test_a_profile_has_sizes_that_were_sent_and_none_of_the_model(tmp_path: Path, has_facts: bool) -> None:
    rng = np.random.default_rng(0)
    for number in range(40):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).save(path)
    before = ImageFolder(tmp_path / "photos", image_size=4, batch_size=10)
    for part in ("train", "held_out"):
        before.write_window(tmp_path / "w" / part, list(np.zeros((5, 3, 4, 4), np.uint8)), ["a"] * 5)
    sent = {"width": np.arange(100.0, 105), "height": np.arange(200.0, 205)}
    write_window_facts(tmp_path / "w", sent if has_facts else {})
    data = ImageFolder(
        tmp_path / "photos", image_size=4, batch_size=3, windows=[str(tmp_path / "w")], replay=0.5, epoch_samples=20
    )
    data.setup("validate")
    batches = list(iterate_validation_batches(data))
    task_type = get_task_type("classification")
    reference = ReferenceBuilder(data.encoder(), task_type, AnswerNames(("a", "b")))
    for batch in batches:
        outputs = {"logits": np.zeros((len(batch.y), 2), np.float32)}
        predictions = task_type.build_predictions(outputs, ("a", "b"))
        reference.add_batch(batch.pack(data.encoder()), predictions, None)
    columns = {column.name: column for column in reference.finish().columns}
    assert "input.brightness" in columns
    # A window of an earlier version does not say how large its photos were: no size is better than a wrong one.
    assert ("input.width" in columns) == has_facts
    if has_facts:
        width = columns["input.width"]
        assert isinstance(width, NumberSketch)
        assert (width.values.min(), width.values.max()) == (100, 104)
