"""Random data for `bench_encoder_faults`: tables, images and texts as users have them, by mlscale's data modules."""

from __future__ import annotations

import csv
import io
import json
import random
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from mlscale.data.data_module import OrderedData
from mlscale.data.images.image_modules import ImageFolder
from mlscale.data.tables.table_data import TableFiles
from mlscale.data.text.text_rows import TextTable

Data = TypeVar("Data", bound=OrderedData)
_WORDS = ("rain", "naïve", "Ærø", "東京", "🙂", "zero", "Füße", "one", "sun", "é", "-1", "N/A?", "a,b", '"q"')
_FORMATS = ("png", "jpeg", "webp", "bmp", "tiff")
_ROTATED = 6
"""An EXIF orientation: turned by 90°."""


def make_table(draw: random.Random, folder: Path) -> TableFiles:
    """Return a table with missing values, unicode, and categories that training does not have."""
    numbers = [f"n{i} ({draw.choice(['mm', 'kg', '°C'])})" for i in range(draw.randint(2, 5))]
    categories = [f"{draw.choice(_WORDS[:6])} {i}" for i in range(draw.randint(2, 3))]
    vocabularies = {name: draw.sample(_WORDS, draw.randint(3, 6)) for name in categories}
    scales = {name: (draw.uniform(-50, 300) or 1, draw.uniform(0.5, 40)) for name in numbers}
    missing = draw.uniform(0.05, 0.2)
    for split, rows in (("train", 160), ("val", 90)):
        with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*numbers, *categories, "label"])
            for _ in range(rows):
                cells: list[str] = []
                for name in numbers:
                    cells.append("" if draw.random() < missing else f"{draw.gauss(*scales[name]):.6g}")
                for name in categories:
                    value = draw.choice(vocabularies[name])
                    unseen = split == "val" and draw.random() < 0.05
                    cells.append("" if draw.random() < missing else "unseen" if unseen else value)
                writer.writerow([*cells, draw.choice("ab")])
    data = TableFiles(str(folder / "train.csv"), "label", val=str(folder / "val.csv"), batch_size=32)
    return _set_up(data)


def make_images(draw: random.Random, folder: Path) -> ImageFolder:
    """Return images of several formats and sizes, grey or in colour, some with a stated orientation."""
    grey = draw.random() < 0.2
    size = draw.choice((24, 32, 48))
    for split, count in (("train", 8), ("val", 10)):
        for number in range(count):
            suffix = _FORMATS[number % len(_FORMATS)]
            place = folder / split / "ab"[number % 2]
            place.mkdir(parents=True, exist_ok=True)
            height, width = (draw.randint(size // 2, 4 * size) for _ in range(2))
            picture = _draw_picture(draw, height, width, grey=grey)
            exif = Image.Exif()
            if suffix in ("jpeg", "png") and number % 3 == 0:
                exif[0x0112] = _ROTATED
            options: dict[str, Any] = {"exif": exif} if suffix in ("jpeg", "png", "webp") else {}
            buffer = io.BytesIO()
            picture.save(buffer, suffix, **options)
            (place / f"{number}.{suffix}").write_bytes(buffer.getvalue())
    return _set_up(ImageFolder(folder, image_size=size, workers=0, batch_size=4))


def make_texts(draw: random.Random, folder: Path) -> TextTable:
    """Return texts with emoji and zero bytes, some longer than what is read."""
    length = draw.choice((24, 40, 64))
    for split, count in (("train", 20), ("val", 40)):
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for _ in range(count):
                words = [draw.choice(_WORDS) for _ in range(draw.randint(1, length // 3))]
                text = " ".join(words) + ("\0 end" if draw.random() < 0.1 else "")
                file.write(json.dumps({"text": text, "label": draw.choice("ab")}) + "\n")
    data = TextTable(str(folder / "train.jsonl"), val=str(folder / "val.jsonl"), length=length, batch_size=16)
    return _set_up(data)


def _draw_picture(draw: random.Random, height: int, width: int, *, grey: bool) -> Image.Image:
    """Return smooth colours with edges and some noise, as a photograph has."""
    noise = np.random.default_rng(draw.getrandbits(32))
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    channels = []
    for _ in range(1 if grey else 3):
        wave = np.sin(x * draw.uniform(5, 40) + y * draw.uniform(5, 40) + draw.random() * 6)
        edge = (x + draw.uniform(-1, 1) * y > draw.uniform(0.2, 0.7)) * draw.uniform(20, 90)
        channels.append(110 + 50 * wave + edge + 6 * noise.standard_normal((height, width)))
    pixels = np.clip(np.stack(channels, -1), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if grey else pixels)


def _set_up(data: Data) -> Data:
    data.prepare_data()
    data.setup("validate")
    return data
