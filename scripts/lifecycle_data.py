"""Data sets that are not bundled, one for each task type, as files that a user would have: a table, photos, texts."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_ROWS, _CROPS, _SIDE, _TEXTS, _SCENES = 900, 320, 48, 300, 700
_SHAPES = ("ground", "disc", "square", "bar")


def write_table(folder: Path) -> list[str]:
    """Write a CSV of houses with numbers, a unit and a category, whose price is to be predicted."""
    path = folder / "houses.csv"
    _write_csv(path, _draw_houses())
    return [
        "+recipe=regression",
        "data=table",
        f"data.train={path}",
        "data.target=price",
        "data.units={price: kEUR, area: m2}",
        "data.ignore=[sold]",
    ]


def write_class_table(folder: Path) -> list[str]:
    """Write the same houses, of which is to be predicted how fast they were sold: one of three classes."""
    path = folder / "houses.csv"
    _write_csv(path, _draw_houses())
    return ["+recipe=tabular", "data=table", f"data.train={path}", "data.target=sold", "data.ignore=[price]"]


def write_photos(folder: Path) -> list[str]:
    """Write crops of scikit-learn's two photographs as JPEG files in folders, in three classes."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    temple, flower = load_sample_images().images
    # The sky of the first photograph is above its roofs.
    areas = {"flower": flower, "sky": temple[:120], "temple": temple[180:]}
    for name, picture in areas.items():
        for split, count in (("train", _CROPS), ("val", _CROPS // 4)):
            place = folder / split / name
            place.mkdir(parents=True)
            for number in range(count):
                top, left = (int(rng.integers(0, size - _SIDE)) for size in picture.shape[:2])
                crop = Image.fromarray(picture[top : top + _SIDE, left : left + _SIDE])
                crop.save(place / f"{number:03}.jpg", quality=90)
    words = ("data=imagefolder", f"data.root={folder}", "data.image_size=24", "trainer.max_epochs=4")
    return ["+recipe=resnet", *words]


def write_labelled_texts(folder: Path) -> list[str]:
    """Write a CSV of pieces of three kinds of text that come with Python: topics of its help, source, and names."""
    from pydoc_data import topics

    source = Path(json.__file__).with_name("decoder.py").parent.parent
    code = "\n".join(path.read_text(errors="replace") for path in sorted(source.glob("a*.py")))
    prose = "\n".join(topics.topics.values())
    names = " ".join(sorted(set(prose.split()) - set(code.split())))
    rng, rows = np.random.default_rng(0), []
    for kind, text in (("code", code), ("prose", prose), ("words", names)):
        starts = rng.choice(max(1, len(text) - 240), _TEXTS, replace=False)
        rows += [{"text": " ".join(text[start : start + 240].split()), "label": kind} for start in starts.tolist()]
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return ["+recipe=text", "data=text_table", f"data.train={path}", "data.length=240", "trainer.max_epochs=12"]


def write_documents(folder: Path) -> list[str]:
    """Write the topics of Python's help as text files."""
    from pydoc_data import topics

    for name, text in topics.topics.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return ["+recipe=gpt", "data=text_files", f"data.train={folder}", "data.length=128", "trainer.max_epochs=1"]


def write_scenes(folder: Path) -> list[str]:
    """Write shards of scenes with a mask, the class of each pixel."""
    _write_shards(folder, "mask.png", lambda mask: _encode_png(mask))
    words = ["data.labels=mask", f"data.classes=[{','.join(_SHAPES)}]", "model=unet", "data.image_key=png"]
    return ["+recipe=segmentation", *_name_shards(folder), *words]


def write_tagged_scenes(folder: Path) -> list[str]:
    """Write shards of scenes with a list of what is on each."""
    _write_shards(folder, "json", lambda mask: json.dumps([_SHAPES[number] for number in _list_present(mask)]).encode())
    return ["+recipe=multilabel", *_name_shards(folder), "data.labels=several", "data.image_key=png"]


DATA_SETS: dict[str, Callable[[Path], list[str]]] = {
    "photos": write_photos,
    "table of classes": write_class_table,
    "table of numbers": write_table,
    "labelled texts": write_labelled_texts,
    "documents": write_documents,
    "masks": write_scenes,
    "tags": write_tagged_scenes,
}
"""Functions that write a data set into a folder and return the overrides that train on it."""


def _draw_houses() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(_ROWS):
        area, rooms, age = float(rng.uniform(40, 220)), int(rng.integers(1, 8)), float(rng.exponential(30))
        place = str(rng.choice(["city", "coast", "village"], p=[0.5, 0.2, 0.3]))
        worth = {"city": 4.5, "coast": 6.0, "village": 2.5}[place]
        price = worth * area + 8 * rooms - 0.9 * age + float(rng.normal(0, 18))
        days = 0.4 * area - 0.6 * rooms + 0.5 * age + {"city": 0, "coast": 20, "village": 45}[place]
        days += float(rng.normal(0, 6))
        sold = "fast" if days < 50 else "slow" if days < 85 else "late"
        # A few ages are not known.
        known = round(age, 1) if rng.random() > 0.04 else None
        rows.append(
            {"area": round(area, 1), "rooms": rooms, "age": known, "place": place, "price": price, "sold": sold}
        )
    return rows


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    lines = [",".join(rows[0])]
    lines += [",".join("" if value is None else str(value) for value in row.values()) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _draw_scenes(count: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield grey scenes of a disc, a square and a bar, each of which may be absent, and the class of each pixel."""
    rng = np.random.default_rng(seed)
    down, right = np.mgrid[:32, :32]
    for _ in range(count):
        mask = np.zeros((32, 32), np.uint8)
        for number in rng.permutation([1, 2, 3])[: int(rng.integers(1, 4))].tolist():
            top, left, size = int(rng.integers(4, 24)), int(rng.integers(4, 24)), int(rng.integers(3, 7))
            inside = {
                1: (down - top) ** 2 + (right - left) ** 2 <= size**2,
                2: (abs(down - top) <= size) & (abs(right - left) <= size),
                3: (abs(down - top) <= 1) & (abs(right - left) <= 2 * size),
            }[number]
            mask[inside] = number
        # Shapes differ in brightness, too, so that a small network soon knows them.
        picture = np.array([20, 230, 150, 90])[mask] + rng.normal(0, 12, mask.shape)
        yield np.clip(picture, 0, 255).astype(np.uint8), mask


def _list_present(mask: np.ndarray) -> list[int]:
    return [number for number in np.unique(mask).tolist() if number]


def _write_shards(folder: Path, extension: str, write: Callable[[np.ndarray], bytes]) -> None:
    for seed, (split, count) in enumerate((("train", _SCENES), ("val", _SCENES // 3))):
        with tarfile.open(folder / f"{split}-0.tar", "w") as tar:
            for number, (picture, mask) in enumerate(_draw_scenes(count, seed)):
                for name, content in (("png", _encode_png(picture)), (extension, write(mask))):
                    member = tarfile.TarInfo(f"{split}{number:05}.{name}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def _name_shards(folder: Path) -> list[str]:
    return ["data=webdataset", f"data.train={folder}/train-0.tar", f"data.val={folder}/val-0.tar"]


def _encode_png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
