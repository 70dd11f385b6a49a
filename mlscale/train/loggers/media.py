"""Images and tables as files, for trackers that keep files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray


def write_png(path: Path, pixels: NDArray[Any]) -> Path:
    """Write an image as PNG; returns its path.

    Args:
        path: of the file; its folder is made.
        pixels: uint8, (height, width, 3) or (height, width).
    """
    # Imported on use: Pillow is needed for images alone.
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, format="PNG")
    return path


def write_table_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Path:
    """Write a table as CSV with a header; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    return path


def format_markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a table as Markdown, for TensorBoard's texts."""
    lines = [columns, ["---"] * len(columns), *rows]
    # A bar inside a cell would end it.
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
