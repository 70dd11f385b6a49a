"""Data sets that Hugging Face's `datasets` writes: those in `by_datasets` are of version 5.2.0.

To write them again: `pip install datasets`, and `python -m tests.unit.data.image_tables.written_by_datasets FOLDER`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tests.unit.data.conftest import mask, picture

STORED = Path(__file__).with_name("by_datasets")
NAMES = ["wren", "ant", "cat"]
TAGS = ["red", "green", "blue"]
TRAIN, VAL = range(12), range(12, 18)


def list_tags(number: int) -> list[int]:
    return [tag for tag in range(3) if (number >> tag) & 1]


def write_all(folder: Path) -> None:
    """Write `disk` (a DatasetDict), `hub` (Parquet files, as a repository has them) and `masks` (a Dataset)."""
    import datasets

    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=NAMES),
            "tags": datasets.Sequence(datasets.ClassLabel(names=TAGS)),
            "patient": datasets.Value("string"),
        }
    )

    def build(numbers: range) -> Any:
        columns = {
            "image": [{"bytes": picture(n), "path": f"{n:03}.png"} for n in numbers],
            "label": [n % 3 for n in numbers],
            "tags": [list_tags(n) for n in numbers],
            "patient": [f"p{n // 2}" for n in numbers],
        }
        return datasets.Dataset.from_dict(columns, features=features)

    splits = datasets.DatasetDict({"train": build(TRAIN), "validation": build(VAL)})
    splits.save_to_disk(folder / "disk", num_shards={"train": 2, "validation": 1})
    (folder / "hub" / "data").mkdir(parents=True)
    for name, split in splits.items():
        split.to_parquet(folder / "hub" / "data" / f"{name}-00000-of-00001.parquet")
    pairs = {
        "image": [{"bytes": picture(n, mode="L"), "path": None} for n in TRAIN],
        "mask": [{"bytes": mask(n), "path": None} for n in TRAIN],
    }
    kinds = datasets.Features({"image": datasets.Image(), "mask": datasets.Image()})
    datasets.Dataset.from_dict(pairs, features=kinds).save_to_disk(folder / "masks")


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
