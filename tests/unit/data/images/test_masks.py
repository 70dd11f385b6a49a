"""Masks beside images: moved as their images are, read from what masks come in, refused where they are none."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import v2

from mlscale.data import Augment, RandomCrop, WebDataset
from mlscale.data.images.masks import decode_mask
from mlscale.errors import MLScaleError
from tests.unit.data.conftest import picture, write_tar

SIDE = 48


def blocks(number: int) -> NDArray[np.uint8]:
    """Class numbers of an image made of squares of 12 pixels: grey level 80·c is class c."""
    random = np.random.RandomState(number).randint(0, 4, (4, 4), dtype=np.uint8)
    return random.repeat(12, 0).repeat(12, 1)


def encoded(array: NDArray[Any], mode: str | None = None, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(array)
    if mode == "P":
        image = Image.frombytes("P", (array.shape[1], array.shape[0]), array.tobytes())
        image.putpalette([5, 5, 5] * 256)  # colours say nothing: indices are the classes
    elif mode:
        image = image.convert(mode)
    image.save(stream, kind)
    return stream.getvalue()


def shards(folder: Path, mask: Callable[[int], bytes] = lambda i: encoded(blocks(i)), count: int = 12) -> Path:
    members = [
        member
        for i in range(count)
        for member in ((f"{i:03}.png", encoded(blocks(i) * 80)), (f"{i:03}.mask.png", mask(i)))
    ]
    return write_tar(folder / "0.tar", members)


def data(path: Path, **choices: Any) -> WebDataset:
    return WebDataset(path, path, image_key="png", labels="mask", batch_size=12, **choices)


def levels(made: WebDataset, x: torch.Tensor) -> torch.Tensor:
    """The image in units of a class, float (n, h, w)."""
    facts = made.facts()
    return (x[:, 0] * facts.std[0] + facts.mean[0]) / 80


@pytest.mark.parametrize(
    ("augment", "size"),
    [
        (None, None),
        (None, 32),
        (Augment(flip=True), None),
        (Augment(0.2, 30, 0.2, True), None),
        (RandomCrop((0.2, 0.8)), None),
        (RandomCrop((0.2, 0.8)), 32),
        (v2.RandomAffine(20, (0.2, 0.2)), None),
        (v2.RandomHorizontalFlip(), 32),
    ],
)
def test_a_mask_moves_as_its_image(tmp_path: Path, augment: Any, size: int | None) -> None:
    """Where a pixel of the changed image has a level of its own and its neighbours have it too, the mask says so."""
    made = data(shards(tmp_path), augment=augment, image_size=size)
    (batch,) = made.train_dataloader()
    grey, masks = levels(made, batch["x"]), batch["y"]
    assert masks.dtype == torch.uint8
    assert masks.shape == grey.shape == (12, size or SIDE, size or SIDE)
    near = torch.nn.functional.unfold(grey[:, None], 5, padding=2).reshape(len(grey), 25, *grey.shape[1:])
    flat = (near.amax(1) - near.amin(1)) < 0.05
    outside = masks == 255
    assert flat.float().mean() > 0.2
    agree = (grey.round() == masks)[flat & ~outside]
    assert agree.float().mean() == 1
    assert (grey[outside & flat].abs() < 0.05).all()
    if isinstance(augment, Augment) and augment.shift:
        assert outside.any()


def test_masks_come_in_several_kinds(tmp_path: Path) -> None:
    classes = blocks(1)
    array = io.BytesIO()
    np.save(array, classes.astype(np.int64))
    kinds = {
        "png": [encoded(classes), encoded(classes, "P"), encoded(classes.astype(np.uint16))],
        "tif": [encoded(classes, kind="TIFF")],
        "npy": [array.getvalue()],
    }
    for extension, contents in kinds.items():
        for content in contents:
            assert np.array_equal(decode_mask(content, f"mask.{extension}"), classes), extension
    assert np.array_equal(decode_mask(encoded(classes > 1), "png"), classes > 1)


@pytest.mark.parametrize(
    ("content", "extension", "why"),
    [
        (picture(0), "png", "Pillow's type 'RGB'"),
        (picture(0, mode="L", kind="JPEG"), "jpg", "does not keep class numbers"),
        (encoded(np.full((4, 4), 300, np.uint16)), "png", "300"),
        (b"no picture", "png", "not an image of a known format"),
    ],
)
def test_what_is_no_mask(content: bytes, extension: str, why: str) -> None:
    with pytest.raises(Exception, match=why):
        decode_mask(content, extension)


def test_classes_are_counted_or_stated(tmp_path: Path) -> None:
    path = shards(tmp_path)
    facts = data(path).facts()
    expected = np.bincount(np.concatenate([blocks(i).ravel() for i in range(12)]))
    assert (facts.num_classes, facts.class_counts, facts.class_names) == (4, tuple(expected.tolist()), None)
    assert facts.sample == (1, SIDE, SIDE)
    stated = data(path, classes=["paper", "a", "b", "c", "d"]).facts()
    assert (stated.num_classes, stated.class_counts) == (5, ())
    assert stated.class_names == ("paper", "a", "b", "c", "d")
    assert data(path, classes=7).facts().num_classes == 7
    with pytest.raises(MLScaleError, match="the masks have 1 class") as caught:
        data(shards(tmp_path / "one", lambda i: encoded(blocks(i) * 0))).facts()
    assert caught.value.where == "data.train"


def test_a_class_that_there_is_not_is_named_or_skipped(tmp_path: Path) -> None:
    path = shards(tmp_path)
    with pytest.raises(MLScaleError, match=r"0.tar/\d+ has a mask that cannot be used") as caught:
        list(data(path, classes=3).train_dataloader())
    assert "has class 3, and there are 3" in caught.value.why
    broken = shards(tmp_path / "broken", lambda i: b"" if i == 5 else encoded(blocks(i)))
    made = data(broken, on_bad_sample="skip")
    (batch,) = made.train_dataloader()
    assert batch["weight"].sum() == 11
    with pytest.raises(MLScaleError, match=r"0\.tar/005 has a mask that cannot be used"):
        data(broken).facts()


@pytest.mark.parametrize("size", [None, 32])
def test_a_mask_of_another_size_than_its_image(tmp_path: Path, size: int | None) -> None:
    path = shards(tmp_path, lambda i: encoded(blocks(i)[:24] if i == 3 else blocks(i)))
    with pytest.raises(MLScaleError, match=r"0\.tar/003 has a mask") as caught:
        list(data(path, image_size=size).train_dataloader())
    assert "it has 48×24 pixels, and its image 48×48" in caught.value.why


def test_memory_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlscale.data.images import labelled_images as images

    path = shards(tmp_path)
    epochs = []
    for kept in (images.KEPT_BYTES, 12 * SIDE * SIDE, 0):
        monkeypatch.setattr(images, "KEPT_BYTES", kept)
        made = data(path, augment=Augment(0.2, 30), workers=2)
        epochs.append([batch["y"] for _ in range(2) for batch in made.train_dataloader()])
    for other in epochs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(epochs[0], other, strict=True))


@pytest.mark.parametrize(
    ("choices", "reported", "where"),
    [
        ({"augment": Augment(mixup=0.2)}, "images with masks are not mixed", "augment.mixup, augment.cutmix"),
        ({"augment": RandomCrop(cutmix=1.0)}, "images with masks are not mixed", "augment.mixup, augment.cutmix"),
        ({"augment": lambda x: x.flip(-1)}, "takes an image alone", "augment"),
        ({"sampling": "balanced"}, "does not go with data.labels=mask", "data.sampling"),
        ({"labels": "masks"}, "data.labels is 'masks'", "data.labels"),
    ],
)
def test_what_does_not_go_with_masks(tmp_path: Path, choices: dict[str, Any], reported: str, where: str) -> None:
    with pytest.raises(MLScaleError, match=reported) as caught:
        WebDataset(tmp_path, tmp_path, **{"labels": "mask", **choices})
    assert caught.value.where == where
    assert caught.value.fix


def test_shards_without_masks(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", [("a.png", picture(0)), ("a.cls", b"1")])
    with pytest.raises(MLScaleError, match=r"no label '\.mask\.png'") as caught:
        data(path).facts()
    assert "data.label_key" in str(caught.value)


def test_it_is_not_clear_which_member_is_the_image(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", [("a.png", picture(0)), ("a.mask.png", picture(0)), ("a.json", b"[0, 1]")])
    with pytest.raises(MLScaleError, match="not clear which member is the image") as caught:
        WebDataset(path, path, labels="several").facts()
    assert "fix:   data.image_key=png\n" in f"{caught.value}\n"
