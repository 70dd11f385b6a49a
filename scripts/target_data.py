"""Labelled images, rows and texts by a seed, with what makes raw samples hard: missing values, categories that training
has not seen, other alphabets, files of several formats and sizes."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

TYPES = ("image", "table", "text")
_CLASSES = 4
_CITIES = ("Zürich", "Ålesund", "Łódź", "東京", "Porto", "Kirkenes")
_WORDS = ("river", "straße", "море", "写真", "gate", "noise", "table", "wind", "🙂", "naïve", "graph", "loss")
_FORMATS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("png", {}),
    ("jpg", {"quality": 92}),
    ("webp", {"lossless": True}),
    ("bmp", {}),
)


def write_data(kind: str, folder: Path, seed: int, *, train: int = 400, val: int = 1000) -> list[str]:
    """Write samples of one of `TYPES`, and return the overrides of a training on them.

    Args:
        kind: of samples.
        folder: a new one.
        seed: of what is in them.
        train, val: number of samples.
    """
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    counts = (("train", train), ("val", val))
    if kind == "image":
        for split, count in counts:
            for number in range(count):
                _write_image(folder / split, number, random)
        return ["+recipe=resnet", "data=imagefolder", f"data.root={folder}", "data.image_size=32"]
    for split, count in counts:
        with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            rows = _draw_rows(count, split, random) if kind == "table" else _draw_texts(count, random)
            writer.writerows(rows)
    words = [f"data.train={folder}/train.csv", f"data.val={folder}/val.csv"]
    if kind == "table":
        return ["+recipe=tabular", "data=table", *words, "data.target=grade"]
    return ["+recipe=text", "data=text_table", *words]


def _write_image(folder: Path, number: int, random: np.random.Generator) -> None:
    label = number % _CLASSES
    height, width = random.integers(24, 80, 2)
    y, x = np.mgrid[:height, :width]
    wave = np.sin((x * np.cos(label) + y * np.sin(label)) / (2 + label))[..., None] * random.uniform(20, 90)
    pixels = np.clip(128 + wave + random.normal(0, 25, (height, width, 3)), 0, 255).astype(np.uint8)
    suffix, options = _FORMATS[number % len(_FORMATS)]
    path = folder / f"class{label}" / f"{number:05d}.{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def _draw_rows(count: int, split: str, random: np.random.Generator) -> list[list[object]]:
    rows: list[list[object]] = [["city", "size_m2", "age", "rate", "grade"]]
    # The last city is in validation data alone: a category that the model does not know.
    cities = _CITIES if split == "val" else _CITIES[:-1]
    for _ in range(count):
        city, size, age = int(random.integers(len(cities))), random.lognormal(4, 0.6), random.integers(0, 90)
        grade = int(size / 40 + city + age / 30 + random.normal(0, 0.4)) % _CLASSES
        rate = "" if random.random() < 0.2 else f"{random.normal(0, 1e3):.6g}"
        rows.append(["" if random.random() < 0.1 else cities[city], f"{size:.4f}", int(age), rate, f"g{grade}"])
    return rows


def _draw_texts(count: int, random: np.random.Generator) -> list[list[object]]:
    rows: list[list[object]] = [["text", "label"]]
    weights = np.random.default_rng(0).dirichlet(np.ones(len(_WORDS)), _CLASSES)
    for number in range(count):
        label = number % _CLASSES
        words = random.choice(_WORDS, int(random.integers(1, 90)), p=weights[label])
        rows.append([" ".join(words), f"kind{label}"])
    return rows
