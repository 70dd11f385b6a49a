"""Batches by DALI against those of the loader: the same samples, the same random numbers, nearly the same pixels."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torchvision.transforms import InterpolationMode, v2

from mlscale.data import Augment, DaliBackend, Loader, RandomCrop, TarBackend
from mlscale.data.order.bad_samples import BadSample
from mlscale.errors import MLScaleError
from tests.unit.data.conftest import picture, write_tar

pytest.importorskip("nvidia.dali", reason="DALI is not installed: pip install 'mlscale[dali]'")
IMAGES = Path(__file__).parents[3] / "images"
NEAREST, BILINEAR = InterpolationMode.NEAREST, InterpolationMode.BILINEAR


def photo(number: int, size: tuple[int, int], kind: str = "JPEG", **options: Any) -> bytes:
    """A part of a photograph, of (width, height)."""
    image = Image.fromarray(load_sample_images().images[number % 2])
    left, top = (37 * number) % (640 - size[0]), (23 * number) % (427 - size[1])
    stream = io.BytesIO()
    part = image.crop((left, top, left + size[0], top + size[1])).convert(options.pop("mode", "RGB"))
    part.save(stream, kind, **{"quality": 95, **options} if kind == "JPEG" else options)
    return stream.getvalue()


def write(folder: Path, contents: Sequence[bytes], extension: str = "jpg") -> str:
    members = [
        (f"{i:04}.{kind}", content)
        for i, image in enumerate(contents)
        for kind, content in ((extension, image), ("cls", str(i % 3).encode()))
    ]
    write_tar(folder / "000.tar", members)
    return str(folder)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Photographs of the size that the model gets: decoded bit by bit alike, nothing is resized."""
    return write(tmp_path_factory.mktemp("small"), [photo(i, (64, 48)) for i in range(48)])


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> str:
    sizes = [(90 + 7 * (i % 9), 80 + 5 * (i % 7)) for i in range(48)]
    return write(tmp_path_factory.mktemp("large"), [photo(i, size) for i, size in enumerate(sizes)])


def differences(folder: str, augment: object, **chosen: Any) -> tuple[float, float]:
    """The largest and the mean difference of an epoch's pixels, in levels of 0 to 255."""
    policy = {"batch_size": 16, "workers": 1, "seed": 3, "augment": augment, **chosen}
    ours, dali = TarBackend(folder, folder, **policy), DaliBackend(folder, folder, **policy)
    std = torch.tensor(ours.facts().std)[:, None, None]
    found = []
    for expected, batch in zip(Loader(ours), Loader(dali), strict=True):
        assert batch["key"] == expected["key"]
        assert torch.equal(batch["y"], expected["y"])
        assert batch["x"].dtype == torch.float32
        found.append(((batch["x"] - expected["x"]) * std).abs())
    levels = torch.cat(found)
    assert len(levels) == 48
    return float(levels.max()), float(levels.mean())


# Each operator with the largest and the mean difference that it may have; the mean is what the documentation states.
OPERATORS = {
    "decode, normalise": (None, 1e-4, 1e-5),
    "flip": (Augment(flip=True), 1e-4, 1e-5),
    "shift, turn, scale": (Augment(0.1, 10, 0.1, True), 0.1, 0.01),
    "hflip": (v2.RandomHorizontalFlip(), 1e-4, 1e-5),
    "vflip": (v2.RandomVerticalFlip(), 1e-4, 1e-5),
    "brightness": (v2.ColorJitter(brightness=0.4), 1.001, 0.01),
    "contrast": (v2.ColorJitter(contrast=0.4), 1.001, 0.02),
    "saturation": (v2.ColorJitter(saturation=0.4), 2.001, 0.02),
    "grey": (v2.RandomGrayscale(0.5), 1.001, 0.01),
    "sharpness": (v2.RandomAdjustSharpness(2.0, 0.5), 2.001, 0.01),
    "posterize": (v2.RandomPosterize(3), 1e-4, 1e-5),
    "solarize": (v2.RandomSolarize(100), 1e-4, 1e-5),
    "autocontrast": (v2.RandomAutocontrast(), 1.001, 0.02),
    "invert": (v2.RandomInvert(), 1e-4, 1e-5),
    "equalize": (v2.RandomEqualize(), 80, 6),
    "affine": (v2.RandomAffine(20, (0.1, 0.1), (0.8, 1.2), 10, interpolation=BILINEAR), 1.001, 0.01),
    "rotate": (v2.RandomRotation(20, interpolation=BILINEAR), 1.001, 0.01),
    "rotate, nearest": (v2.RandomRotation(20, interpolation=NEAREST), 255, 0.05),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators(small: str, name: str) -> None:
    augment, most, mean = OPERATORS[name]
    found = differences(small, augment)
    print(f"{name}: largest {found[0]:.4f}, mean {found[1]:.6f}")
    assert found[0] <= most
    assert found[1] <= mean


def without_equalize(augment: v2.Transform) -> v2.Transform:
    """The same, without the operator that DALI has in another form."""
    augment._AUGMENTATION_SPACE = {k: v for k, v in augment._AUGMENTATION_SPACE.items() if k != "Equalize"}
    return augment


@pytest.mark.parametrize(
    ("augment", "mean"),
    [
        (v2.Compose([v2.RandomHorizontalFlip(), v2.ColorJitter(0.4, 0.4, 0.4), v2.RandomRotation(5)]), 0.1),
        (without_equalize(v2.RandAugment()), 0.1),
        (without_equalize(v2.TrivialAugmentWide()), 0.1),
        (v2.RandAugment(), 5),
        (v2.AutoAugment(), 8),
        (v2.RandomApply([v2.RandomChoice([v2.RandomInvert(1), v2.RandomOrder([v2.RandomPosterize(4)])])]), 0.01),
    ],
    ids=lambda value: type(value).__name__,
)
def test_compositions(small: str, augment: v2.Transform, mean: float) -> None:
    """Operators in the order and with the numbers of each sample."""
    found = differences(small, augment)
    print(f"{type(augment).__name__}: largest {found[0]:.4f}, mean {found[1]:.6f}")
    assert found[1] < mean


@pytest.mark.parametrize("size", [16, 32, 56])
@pytest.mark.parametrize("augment", [None, RandomCrop(), v2.RandomHorizontalFlip()], ids=lambda a: type(a).__name__)
def test_resized(large: str, augment: object, size: int) -> None:
    most, mean = differences(large, augment, image_size=size)
    assert most < 25
    assert mean < 0.5


def test_grey_images_and_other_formats(tmp_path: Path) -> None:
    """What is no plain JPEG is decoded by mlscale: turned, grey, PNG, and what only its decoder takes."""
    turned = Image.Exif()
    turned[0x112] = 6
    contents = [
        photo(0, (80, 60), exif=turned), photo(1, (60, 80), "PNG"), photo(2, (60, 80), mode="L"),
        photo(3, (60, 80), "GIF"), photo(4, (60, 80), mode="CMYK"), photo(5, (60, 80), progressive=True),
        (IMAGES / "arithmetic.jpg").read_bytes(), photo(7, (60, 80)),
    ]  # fmt: skip
    folder = write(tmp_path, [*contents * 6])
    most, mean = differences(folder, RandomCrop((0.5, 1)), image_size=48)
    assert most < 25
    assert mean < 0.5


def test_grey_data(tmp_path: Path) -> None:
    folder = write(tmp_path, [photo(i, (64, 48), mode="L") for i in range(48)])
    assert differences(folder, v2.ColorJitter(0.3, 0.3, 0.3))[1] < 0.02


def test_bad_samples_are_named_and_replaced(tmp_path: Path) -> None:
    """A file that is cut off, and one that is no JPEG but for its mark: the same ones as without DALI."""
    contents = [photo(i, (64, 48)) for i in range(48)]
    contents[5] = contents[5][: len(contents[5]) // 2]
    contents[20] = contents[20][:2] + b"no image" + contents[20][-2:]
    folder = write(tmp_path, contents)
    policy: dict[str, Any] = {"batch_size": 16, "image_size": None, "workers": 1}
    with pytest.raises(BadSample, match=r"the sample 000\.tar/00(05|20) cannot be decoded"):
        list(Loader(DaliBackend(folder, folder, **policy)))
    policy["on_bad_sample"] = "skip"
    expected = list(Loader(TarBackend(folder, folder, **policy)))
    found = list(Loader(DaliBackend(folder, folder, **policy)))
    assert [batch["key"] for batch in found] == [batch["key"] for batch in expected]
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one["weight"], other["weight"])
        torch.testing.assert_close(one["x"], other["x"], atol=1e-5, rtol=0)
    assert sum(int((batch["weight"] == 0).sum()) for batch in found) == 2


def test_a_corrupt_jpeg_is_found_by_verify(tmp_path: Path) -> None:
    """DALI fills up what is missing in the middle of a file; the strict decoder reads what is verified."""
    contents = [photo(i, (64, 48)) for i in range(12)]
    contents[7] = contents[7][: len(contents[7]) // 2] + b"\xff\xd9"
    folder = write(tmp_path, contents)
    data = DaliBackend(folder, folder, batch_size=4, workers=1, on_bad_sample="skip")
    results = list(data.iterate_stored_samples("train"))
    assert [isinstance(result, BadSample) for result in results] == [i == 7 for i in range(12)]
    assert len(list(Loader(data))) == 3


def test_an_epoch_that_was_left_is_begun_again(small: str) -> None:
    """What computes a batch that nobody took is not used again."""
    data = DaliBackend(small, small, batch_size=16, workers=1)
    for _ in range(3):
        next(iter(data.train_dataloader()))
    loader = Loader(data)
    assert len(list(loader)) + len(list(loader)) >= 3


def test_a_transform_without_a_counterpart_is_an_error(small: str) -> None:
    for augment, name in ((v2.GaussianBlur(3), "gaussian_blur"), (lambda x: x.clone(), "function")):
        with pytest.raises(MLScaleError, match=f"{name} has no counterpart in DALI"):
            list(Loader(DaliBackend(small, small, batch_size=16, workers=1, augment=augment)))


def test_arrays_are_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, np.zeros((3, 8, 8), np.float32))
    folder = write(tmp_path, [stream.getvalue()] * 6, "npy")
    with pytest.raises(MLScaleError, match="the samples are float32 of 3 channels"):
        list(Loader(DaliBackend(folder, folder, batch_size=2)))


def test_validation_is_that_of_predict_and_serve(large: str) -> None:
    chosen: dict[str, Any] = {"batch_size": 16, "image_size": 56, "workers": 1}
    ours, dali = (Loader(kind(large, large, **chosen), "val") for kind in (TarBackend, DaliBackend))
    for expected, batch in zip(ours, dali, strict=True):
        assert torch.equal(batch["x"], expected["x"])


def test_settings(small: str) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"labels": "mask"}, "data.labels is 'mask'"),
        ({"device": "tpu"}, "data.device is 'tpu'"),
    ]
    for chosen, message in wrong:
        with pytest.raises(MLScaleError, match=message):
            DaliBackend(small, small, **chosen)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("augment", [RandomCrop(), v2.RandAugment()], ids=lambda augment: type(augment).__name__)
def test_on_a_gpu(large: str, augment: object) -> None:
    chosen: dict[str, Any] = {"batch_size": 16, "image_size": 56, "workers": 1, "augment": augment}
    on_cpu, on_gpu = (DaliBackend(large, large, device=device, **chosen) for device in ("cpu", "gpu"))
    for expected, batch in zip(Loader(on_cpu), Loader(on_gpu), strict=True):
        assert batch["x"].is_cuda
        assert batch["key"] == expected["key"]
        assert float((batch["x"].cpu() - expected["x"]).abs().mean()) < 0.05


def test_png_of_the_promises() -> None:
    """Their pictures are decoded by mlscale: pixels as PNM."""
    from mlscale.data.dali.batch_inputs import encode_pixels

    pixels = np.asarray(Image.open(io.BytesIO(picture(3, size=(9, 7)))))
    again = np.asarray(Image.open(io.BytesIO(encode_pixels(pixels.transpose(2, 0, 1)).tobytes())))
    assert np.array_equal(again, pixels)
