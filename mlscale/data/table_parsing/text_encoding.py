"""Files of text that are not UTF-8: found before they are parsed, and the line that converts them."""

from __future__ import annotations

import codecs
import gzip
import shlex
from pathlib import Path
from typing import BinaryIO, cast

_CHUNK = 1 << 20  # bytes


def open_bytes(path: Path) -> BinaryIO:
    """Open a file for its bytes, unpacked where its name ends in `.gz`."""
    return cast(BinaryIO, gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")


def raise_for_encoding(path: Path) -> None:
    """Raise for bytes that are not UTF-8; a last character that is still being written is not one.

    Raises:
        UnicodeDecodeError: it has such bytes.
        OSError: the file can't be read.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open_bytes(path) as file:
        while chunk := file.read(_CHUNK):
            decoder.decode(chunk)


def suggest_conversion(path: Path, error: Exception, key: str = "") -> str | None:
    """Return the command that writes a file as UTF-8, or the setting `key` with its encoding, if an error says that it
    is not; else None."""
    # pyarrow has an error of its own class, whose text alone names the cause.
    is_named = isinstance(error, UnicodeDecodeError) or "utf8" in str(error).lower().replace("-", "")
    # UTF-16 may be text with zeros between its letters, of which columns are miscounted.
    if not is_named and "CSV parse error" not in str(error):
        return None
    encoding = _guess_encoding(path)
    if not is_named and encoding != "utf-16":
        return None
    if key:
        return f"{key}={encoding.replace('latin1', 'cp1252')}"
    if path.suffix.lower() == ".gz":
        plain = path.with_suffix("")
        return f"gzip -dc {shlex.quote(str(path))} | iconv -f {encoding} -t utf8 > {_name_converted(plain)}"
    return f"iconv -f {encoding} -t utf8 {shlex.quote(str(path))} > {_name_converted(path)}"


def _guess_encoding(path: Path) -> str:
    """Return the encoding of a file that is not UTF-8: spreadsheets write cp1252 or UTF-16."""
    with open_bytes(path) as file:
        head = file.read(_CHUNK)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    # latin1 has control characters where cp1252 has € and quotes.
    return "cp1252" if any(0x80 <= byte <= 0x9F for byte in head) else "latin1"


def _name_converted(path: Path) -> str:
    return shlex.quote(str(path.with_name(f"{path.stem}-utf8{path.suffix}")))
