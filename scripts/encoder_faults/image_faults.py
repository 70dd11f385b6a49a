"""Faults of an image's encoder: other code before the graph, or another normalisation inside of it."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mlscale.data.decoding.image_decoder import decode_image
from mlscale.data.decoding.resample import Box, find_middle_box, resize_region
from mlscale.data.encoders.encoder import INPUT, Encoder
from mlscale.data.encoders.image_encoder import ImageEncoder
from scripts.encoder_faults.altered_servable import Fault
from scripts.encoder_faults.changed_constants import change_constants

Pixels = NDArray[Any]


@dataclass(frozen=True)
class OtherImageEncoder(ImageEncoder):
    """Decodes by a function of the file and the shape."""

    decode: Callable[[bytes, tuple[int, int, int]], Pixels] = lambda raw, shape: np.zeros(shape, np.uint8)

    def encode_sample(self, raw: bytes | Pixels) -> dict[str, Pixels]:
        assert isinstance(raw, bytes)
        return {INPUT: np.ascontiguousarray(self.decode(raw, self.shape))}


def _alter_images(encoder: Encoder, content: bytes, what: str, decode: Any) -> Fault:
    assert isinstance(encoder, ImageEncoder)
    fields = {field.name: getattr(encoder, field.name) for field in dataclasses.fields(encoder)}
    return Fault(f"code: {what}", ("channel", "shape"), OtherImageEncoder(**fields, decode=decode), content)


def _decode(raw: bytes, shape: tuple[int, int, int]) -> Pixels:
    return decode_image(raw, shape[1:], shape[0])


def _decode_whole(raw: bytes, channels: int) -> Pixels:
    return decode_image(raw, None, channels).transpose(1, 2, 0)


def _find_middle(whole: Pixels, size: tuple[int, int]) -> Box:
    height, width, _ = whole.shape
    return find_middle_box(height, width, size)


def plant_channel_order(draw: random.Random, encoder: Encoder, content: bytes) -> Fault:
    return _alter_images(encoder, content, "BGR", lambda raw, shape: _decode(raw, shape)[::-1])


def plant_normalisation(draw: random.Random, encoder: Encoder, content: bytes) -> Fault:
    assert isinstance(encoder, ImageEncoder)
    mean, std = (np.array(values)[:, None, None] for values in (encoder.mean, encoder.std))
    what, other = draw.choice(
        (
            ("ImageNet's", (123.7 * np.ones_like(mean), 57.8 * np.ones_like(std))),
            ("of pixels from 0 to 1", (mean / 255, std / 255)),
            ("another deviation", (mean, std * draw.uniform(1.05, 1.5))),
            ("another mean", (mean + draw.uniform(2, 20), std)),
        )
    )

    def change(name: str, value: NDArray[Any]) -> NDArray[Any] | None:
        return other[("mean", "std").index(name)] if name in ("mean", "std") else None

    altered = change_constants(content, change)
    return Fault(f"graph: mean and deviation {what}", ("channel",), encoder, altered)


def plant_resize_filter(draw: random.Random, encoder: Encoder, content: bytes) -> Fault:
    name = draw.choice(("NEAREST", "BICUBIC", "LANCZOS", "not antialiased"))

    def decode(raw: bytes, shape: tuple[int, int, int]) -> Pixels:
        whole = _decode_whole(raw, shape[0])
        box = _find_middle(whole, (shape[1], shape[2]))
        part = whole[box.top : box.top + box.height, box.left : box.left + box.width]
        if name == "not antialiased":
            tensor = torch.from_numpy(part.transpose(2, 0, 1).copy())[None]
            resized: Pixels = torch.nn.functional.interpolate(tensor, shape[1:], mode="bilinear")[0].numpy()
            return resized
        image = Image.fromarray(part[..., 0] if shape[0] == 1 else part)
        array = np.asarray(image.resize((shape[2], shape[1]), Image.Resampling[name]))
        return array.reshape(*shape[1:], shape[0]).transpose(2, 0, 1)

    return _alter_images(encoder, content, f"resize {name}", decode)


def plant_crop(draw: random.Random, encoder: Encoder, content: bytes) -> Fault:
    what = draw.choice(("squeezed", "corner", "7/8", "mirrored", "as stored"))

    def decode(raw: bytes, shape: tuple[int, int, int]) -> Pixels:
        size = (shape[1], shape[2])
        if what == "mirrored":
            return _decode(raw, shape)[:, :, ::-1]
        if what == "as stored":
            import io

            with Image.open(io.BytesIO(raw)) as image:
                picture = np.asarray(image.convert("L" if shape[0] == 1 else "RGB"))
            whole = picture.reshape(*picture.shape[:2], shape[0])
            return resize_region(whole, _find_middle(whole, size), size).transpose(2, 0, 1)
        whole = _decode_whole(raw, shape[0])
        middle = _find_middle(whole, size)
        box = {
            "squeezed": Box(0, 0, *whole.shape[:2]),
            "corner": Box(0, 0, middle.height, middle.width),
            "7/8": Box(
                middle.top + middle.height // 16,
                middle.left + middle.width // 16,
                middle.height - middle.height // 8,
                middle.width - middle.width // 8,
            ),
        }[what]
        return resize_region(whole, box, size).transpose(2, 0, 1)

    return _alter_images(encoder, content, what, decode)
