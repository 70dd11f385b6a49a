"""Plant faults into servables' encoders, and see whether `export` names the place and the cause.

    python -m scripts.bench_encoder_faults --seed 1

Twelve faults of different classes in the encoder's document, in its code, or in its part of the graph, in data that
the seed draws; then twenty clean exports of other such data, which must give none. Every comparison is the one that
`mlscale export` makes: training's data module against the servable's encoder, on raw validation samples.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image

from mlscale.data.data_module import OrderedData
from mlscale.data.decoding.image_decoder import decode_image
from mlscale.data.decoding.resample import Box, find_middle_box, resize_region
from mlscale.data.encoders.encoder import INPUT, Encoder
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.data.encoders.table_columns import CategoryColumn, NumberColumn
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.encoders.text_encoder import TextEncoder, convert_to_bytes
from mlscale.export.encoder_parity import Cause, EncoderComparison, EncoderDifference
from mlscale.export.graphs.encoder_graph import build_encoder_graph
from mlscale.export.onnx_export import export_onnx
from mlscale.export.served_module import build_served_module
from mlscale.export.validation_samples import iterate_validation_batches
from mlscale.task_types.registry import get_task_type
from mlscale.tasks import Classification
from scripts.encoder_fault_data import make_images, make_table, make_texts

CLEAN = (make_table, make_images, make_texts)
Pixels = NDArray[Any]
Kind = TypeVar("Kind", NumberColumn, CategoryColumn)


@dataclass(frozen=True)
class Fault:
    """An altered servable.

    Attributes:
        what: was altered, in words.
        causes: that are right.
        places: one of which the named place must hold; empty for any.
        stored: the servable's encoder.
        content: its model.
    """

    what: str
    causes: tuple[Cause, ...]
    places: tuple[str, ...]
    stored: Encoder
    content: bytes


def main() -> None:
    """Plant the faults, print a row for each, and the number of those that were named right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--clean", type=int, default=20)
    options = parser.parse_args()
    draw, right = random.Random(options.seed), 0
    for name, make, plant in FAULTS:
        data = _make(make, draw)
        # Grey images have no order of channels: nothing would be planted.
        while plant is plant_channel_order and data.encoder().inputs[0].shape[0] == 1:
            data = _make(make, draw)
        encoder = data.encoder()
        fault = plant(draw, encoder, export_encoder(encoder))
        found = compare(data, fault.stored, fault.content)
        is_right = found is not None and found.cause in fault.causes
        is_right &= not fault.places or any(place in str(found and found.position) for place in fault.places)
        right += is_right
        print(
            f"{'right' if is_right else 'WRONG':5}  {name:22} {fault.what}\n       {found or 'nothing found'}",
            flush=True,
        )
    named = 0
    for number in range(options.clean):
        data = _make(CLEAN[number % len(CLEAN)], draw)
        found = compare(data, data.encoder(), export_encoder(data.encoder()))
        if found is not None:
            named += 1
            print(f"WRONG  clean export {number}: {found}", flush=True)
    print(f"seed {options.seed}: {right} of {len(FAULTS)} faults named right; {named} of {options.clean} clean named")


def _make(make: Callable[[random.Random, Path], OrderedData], draw: random.Random) -> OrderedData:
    # The folder is read by the data module as long as the process runs.
    return make(draw, Path(tempfile.mkdtemp(prefix="encoder-faults-", dir=_FOLDER.name)))


def compare(data: OrderedData, stored: Encoder, content: bytes) -> EncoderDifference | None:
    """Return the difference between training's encoding and the servable's."""
    comparison = EncoderComparison(data.encoder(), content, stored)
    for batch in iterate_validation_batches(data):
        comparison.add_batch(batch, batch.pack(data.encoder()))
    return comparison.find_difference()


def export_encoder(encoder: Encoder) -> bytes:
    """Return the encoder's graph; of images that of a small model behind its normalisation."""
    if (built := build_encoder_graph(encoder)) is not None:
        return bytes(built[0].SerializeToString())
    channels = encoder.inputs[0].shape[0]
    model = torch.nn.Sequential(torch.nn.Conv2d(channels, 2, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    return export_onnx(build_served_module(Classification(2, model=model), get_task_type("classification"), encoder))


def change_constants(content: bytes, change: Callable[[str, NDArray[Any]], NDArray[Any] | None]) -> bytes:
    """Return a model with other constants."""
    model = onnx.load_from_string(content)
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if (changed := change(tensor.name, value)) is not None:
            tensor.CopyFrom(numpy_helper.from_array(changed.astype(value.dtype), tensor.name))
    return bytes(model.SerializeToString())


# Tables: an altered document; the graph is made of it, or it is the graph alone that is altered.


def _alter_table(
    draw: random.Random,
    encoder: Encoder,
    content: bytes,
    what: str,
    cause: Cause,
    columns: Mapping[str, Any],
) -> Fault:
    assert isinstance(encoder, TableEncoder)
    altered = TableEncoder(tuple(columns.get(column.name, column) for column in encoder.columns))
    in_graph = draw.random() < 0.5 and len(altered.feature_names) == len(encoder.feature_names)
    stored = encoder if in_graph else altered
    where = "graph" if in_graph else "document"
    return Fault(f"{where}: {what}", (cause,), tuple(columns), stored, export_encoder(altered))


def _pick(draw: random.Random, encoder: Encoder, kind: type[Kind], **wanted: object) -> Kind:
    assert isinstance(encoder, TableEncoder)
    columns = [column for column in encoder.columns if isinstance(column, kind)]
    return draw.choice(
        [c for c in columns if all(getattr(c, name) == value for name, value in wanted.items())] or columns
    )


def plant_category_order(draw: random.Random, encoder: Encoder, content: bytes) -> Fault:
    column = _pick(draw, encoder, CategoryColumn)
    values = list(column.values)
    while tuple(values) == column.values:
        draw.shuffle(values)
    changed = {column.name: replace(column, values=tuple(values))}
    return _alter_table(draw, encoder, content, f"{column.name} sorted otherwise", Cause.CATEGORY_ORDER, changed)


def plant_missing_value(draw: random.Random, encoder: Encoder, content: bytes) -> Fault:
    column = _pick(draw, encoder, NumberColumn, indicator=True)
    if draw.random() < 0.5:
        changed, what = replace(column, median=0.0), "filled with 0"
    else:
        changed, what = replace(column, indicator=not column.indicator), "without its flag"
    return _alter_table(draw, encoder, content, f"{column.name} {what}", Cause.MISSING_VALUE, {column.name: changed})


def plant_statistics(draw: random.Random, encoder: Encoder, content: bytes) -> Fault:
    column = _pick(draw, encoder, NumberColumn)
    changed = replace(
        column,
        mean=column.mean + draw.choice((0, 0.3, -1)) * column.std,
        std=column.std * draw.uniform(1.05, 2),
    )
    return _alter_table(
        draw, encoder, content, f"statistics of {column.name}", Cause.MEAN_OR_STD, {column.name: changed}
    )


def plant_unit(draw: random.Random, encoder: Encoder, content: bytes) -> Fault:
    column = _pick(draw, encoder, NumberColumn)
    factor = draw.choice((10, 0.1, 25.4, 1000, 1 / 60))
    changed = replace(column, mean=column.mean / factor, std=column.std / factor)
    return _alter_table(draw, encoder, content, f"{column.name} times {factor:.4g}", Cause.UNIT, {column.name: changed})


def plant_other_column(draw: random.Random, encoder: Encoder, content: bytes) -> Fault:
    assert isinstance(encoder, TableEncoder)
    kind = draw.choice(("number", "category"))
    first, second = draw.sample([column for column in encoder.columns if column.type == kind], 2)
    names = {first.name: second.name, second.name: first.name}
    columns = tuple(replace(c, name=names.get(c.name, c.name)) for c in encoder.columns)
    what = f"{first.name} and {second.name} swapped"
    return Fault(f"document: {what}", (Cause.OTHER_COLUMN,), tuple(names), TableEncoder(columns), content)


# Images: other code before the graph; normalisation inside of it.


@dataclass(frozen=True)
class OtherImageEncoder(ImageEncoder):
    """Decodes by a function of the file and the shape."""

    decode: Callable[[bytes, tuple[int, int, int]], Pixels] = lambda raw, shape: np.zeros(shape, np.uint8)

    def encode_sample(self, raw: bytes | Pixels) -> dict[str, Pixels]:
        assert isinstance(raw, bytes)
        return {INPUT: np.ascontiguousarray(self.decode(raw, self.shape))}


def _alter_images(encoder: Encoder, content: bytes, what: str, cause: Cause, decode: Any) -> Fault:
    assert isinstance(encoder, ImageEncoder)
    fields = {field.name: getattr(encoder, field.name) for field in dataclasses.fields(encoder)}
    return Fault(f"code: {what}", (cause,), ("channel", "size"), OtherImageEncoder(**fields, decode=decode), content)


def _decode(raw: bytes, shape: tuple[int, int, int]) -> Pixels:
    return decode_image(raw, shape[1:], shape[0])


def _decode_whole(raw: bytes, channels: int) -> Pixels:
    return decode_image(raw, None, channels).transpose(1, 2, 0)


def _find_middle(whole: Pixels, size: tuple[int, int]) -> Box:
    height, width, _ = whole.shape
    return find_middle_box(height, width, size)


def plant_channel_order(draw: random.Random, encoder: Encoder, content: bytes) -> Fault:
    return _alter_images(encoder, content, "BGR", Cause.CHANNEL_ORDER, lambda raw, shape: _decode(raw, shape)[::-1])


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
    return Fault(f"graph: mean and deviation {what}", (Cause.NORMALISATION,), ("channel",), encoder, altered)


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

    return _alter_images(encoder, content, f"resize {name}", Cause.RESIZE_FILTER, decode)


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

    cause = Cause.ORIENTATION if what in ("mirrored", "as stored") else Cause.CROP
    return _alter_images(encoder, content, what, cause, decode)


# Texts: other code, or other constants of the graph.


@dataclass(frozen=True)
class OtherTextEncoder(TextEncoder):
    """Makes tokens by a function of the text and the length."""

    tokenize: Callable[[bytes, int], Sequence[int]] = lambda text, length: ()
    pad: int = 0
    in_front: bool = False

    def encode_sample(self, raw: str | bytes) -> dict[str, NDArray[Any]]:
        tokens = list(self.tokenize(convert_to_bytes(raw), self.length))[: self.length]
        padding = [self.pad] * (self.length - len(tokens))
        return {INPUT: np.array(padding + tokens if self.in_front else tokens + padding, np.int64)}


def _alter_texts(encoder: Encoder, content: bytes, what: str, cause: Cause, **changes: Any) -> Fault:
    assert isinstance(encoder, TextEncoder)
    changes.setdefault("tokenize", lambda text, length: [byte + 1 for byte in text])
    stored = OtherTextEncoder(encoder.length, **changes)
    return Fault(f"code: {what}", (cause,), ("token",), stored, content)


def plant_characters(draw: random.Random, encoder: Encoder, content: bytes) -> Fault:
    def tokenize(text: bytes, length: int) -> Iterator[int]:
        return (min(ord(character), 255) + 1 for character in text.decode(errors="replace"))

    return _alter_texts(encoder, content, "a token for a character", Cause.BYTE_OR_CHARACTER, tokenize=tokenize)


def plant_offset(draw: random.Random, encoder: Encoder, content: bytes) -> Fault:
    choice = draw.choice(("offset", "padding", "in front", "graph offset", "graph padding"))
    if choice.startswith("graph"):
        name, number = f"encoder/{choice.split()[1]}", draw.choice((2, 3, 256))

        def change(constant: str, value: NDArray[Any]) -> NDArray[Any] | None:
            return np.array(number) if constant == name else None

        cause = Cause.OFFSET if "offset" in choice else Cause.PADDING
        return Fault(f"{choice} {number}", (cause,), ("token",), encoder, change_constants(content, change))
    if choice == "offset":
        more = draw.choice((0, 2, 3))
        return _alter_texts(
            encoder, content, f"offset {more}", Cause.OFFSET, tokenize=lambda text, length: [b + more for b in text]
        )
    changes: dict[str, Any] = {"in_front": True} if choice == "in front" else {"pad": draw.choice((1, 256))}
    return _alter_texts(encoder, content, choice, Cause.PADDING, **changes)


def plant_length(draw: random.Random, encoder: Encoder, content: bytes) -> Fault:
    assert isinstance(encoder, TextEncoder)
    length = encoder.length - draw.randint(1, encoder.length // 2)
    if draw.random() < 0.5:
        shorter = TextEncoder(length)
        return Fault(f"document: length {length}", (Cause.LENGTH,), ("token",), shorter, export_encoder(shorter))
    return _alter_texts(
        encoder,
        content,
        f"cut after {length}",
        Cause.LENGTH,
        tokenize=lambda text, _: [byte + 1 for byte in text[:length]],
    )


def make_colours(draw: random.Random, folder: Path) -> OrderedData:
    """Return images with three channels."""
    for attempt in range(100):
        place = folder / str(attempt)
        if (data := make_images(draw, place)).encoder().shape[0] == 3:
            return data
    raise AssertionError("no images in colour")


Make = Callable[[random.Random, Path], OrderedData]
Plant = Callable[[random.Random, Encoder, bytes], Fault]
FAULTS: tuple[tuple[str, Make, Plant], ...] = (
    ("category order", make_table, plant_category_order),
    ("missing value", make_table, plant_missing_value),
    ("mean or deviation", make_table, plant_statistics),
    ("unit or scale", make_table, plant_unit),
    ("columns swapped", make_table, plant_other_column),
    ("channel order", make_colours, plant_channel_order),
    ("normalisation", make_images, plant_normalisation),
    ("resize filter", make_images, plant_resize_filter),
    ("crop or orientation", make_images, plant_crop),
    ("byte or character", make_texts, plant_characters),
    ("offset or padding", make_texts, plant_offset),
    ("cut at a length", make_texts, plant_length),
)
_FOLDER = tempfile.TemporaryDirectory(prefix="encoder-faults-")


if __name__ == "__main__":
    main()
