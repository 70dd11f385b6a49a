"""Texts of production: labelled ones as a Parquet file, documents as text files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlscale.atomic_files import make_folders
from mlscale.data.encoders.text_encoder import convert_to_bytes

_FILE = "texts.parquet"


def write_text_window(folder: Path, texts: Sequence[str | bytes], labels: Sequence[str]) -> None:
    """Write `text` and `label` of each text.

    Args:
        folder: the new folder of the file.
        texts: any bytes: a text may be cut within a character.
        labels: the class of each.
    """
    import pyarrow as pa
    from pyarrow import parquet

    contents = [convert_to_bytes(text) for text in texts]
    kind = pa.string() if all(map(_is_utf8, contents)) else pa.binary()
    make_folders(folder)
    # From bytes in both cases, so that the file has exactly these.
    column = pa.array(contents, pa.binary()).cast(kind)
    parquet.write_table(pa.table({"text": column, "label": pa.array(list(labels), pa.string())}), folder / _FILE)


def read_text_window(folder: Path) -> tuple[list[bytes], list[str]]:
    """Return texts and their classes, as `write_text_window` wrote them."""
    import pyarrow as pa
    from pyarrow import parquet

    table = parquet.read_table(folder / _FILE)
    texts: list[bytes] = table["text"].cast(pa.binary()).to_pylist()
    labels: list[str] = table["label"].to_pylist()
    return texts, labels


def write_document_window(folder: Path, documents: Sequence[Any]) -> None:
    """Write each document as a file, `000000.txt` and so on."""
    make_folders(folder)
    for number, document in enumerate(documents):
        # A zero byte ends a document where several are joined.
        (folder / f"{number:06}.txt").write_bytes(convert_to_bytes(document).replace(b"\0", b" "))


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
