"""Pieces of the standard library's source, by the package they come from."""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Unpack

from mlscale.data.order.policy import Policy, PolicyArguments
from mlscale.data.table_parsing.hold_out import check_fraction
from mlscale.data.text.text_rows import LabelledTexts, TextData
from mlscale.errors import Exit, MLScaleError, raise_all

PACKAGES = (
    "asyncio", "ctypes", "email", "http", "importlib", "json", "logging", "multiprocessing", "unittest", "urllib",
    "xml",
)  # fmt: skip
"""Part of every Python, whatever its distribution leaves out."""
_SHORTEST = 4
"""A file's last piece is left out where it is shorter than this part of a whole one."""


class PythonSource(TextData):
    """Pieces of the standard library's source, to classify by package (PSF-2.0).

    The files of every package are split, not their pieces: no piece of a held-out file is trained on. Files are held
    out in the order of a hash of their names, as long as they fit into the package's part of bytes. The source is that
    of the Python that runs, so the data version differs between versions of Python.

    Args:
        packages: of the standard library: the classes.
        val_fraction: part of each package that is held out, in whole files.
        length: bytes of a piece.
        policy: see `Policy`; `augment` gets one piece, int64 (length,).
    """

    licence: ClassVar[str] = "PSF-2.0"

    def __init__(
        self,
        packages: Sequence[str] = PACKAGES,
        val_fraction: float = 0.25,
        length: int = 512,
        **policy: Unpack[PolicyArguments],
    ) -> None:
        super().__init__(length=length, policy=Policy(**policy))
        self.packages, self.val_fraction = tuple(packages), check_fraction(val_fraction)

    def _get_key_path(self, split: str) -> str:
        return "data.packages"

    def _load_texts(self) -> dict[str, LabelledTexts]:
        root = Path(sysconfig.get_paths()["stdlib"])
        files = {package: _list_source_files(root, package) for package in self.packages}
        # Two files at least: one on each side.
        raise_all(
            [self._build_shortage_error(package, sources) for package, sources in files.items() if len(sources) < 2]
        )
        splits = {"train": LabelledTexts(), "val": LabelledTexts()}
        for package, paths in files.items():
            held = _hold_out_files(root, paths, self.val_fraction)
            for path in paths:
                split = splits["val" if path in held else "train"]
                for start, piece in self._cut_pieces(path.read_bytes()):
                    split.add_text(piece, package, f"{path.relative_to(root).as_posix()}@{start}")
        return splits

    def _cut_pieces(self, source: bytes) -> Iterator[tuple[int, bytes]]:
        # Pieces do not overlap, so that no text counts twice.
        for start in range(0, len(source), self.length):
            piece = source[start : start + self.length]
            if _SHORTEST * len(piece) >= self.length and piece.strip():
                yield start, piece

    def _build_shortage_error(self, package: str, files: Sequence[Path]) -> MLScaleError:
        return MLScaleError(
            f"this Python has {'one file' if files else 'no file'} of the package {package!r}",
            where="data.packages",
            why="each package needs a file to train on and one to validate on; some distributions leave packages out",
            fix=f"data.packages=[{','.join(name for name in self.packages if name != package)}]",
            exit=Exit.ENVIRONMENT,
        )


def _list_source_files(root: Path, package: str) -> list[Path]:
    """Return the source files of a package, sorted, without tests and empty files."""
    paths = (root / package).rglob("*.py")
    # Of its path inside: Python itself may be installed below a folder of that name.
    inside = (path for path in paths if not {"test", "tests"} & set(path.relative_to(root).parts))
    return sorted(path for path in inside if path.stat().st_size > 0)


def _hold_out_files(root: Path, paths: Sequence[Path], fraction: float) -> set[Path]:
    """Return the held-out files of a package: at least one, and never all."""
    byte_budget = fraction * sum(path.stat().st_size for path in paths)
    held: set[Path] = set()
    for path in sorted(paths, key=lambda path: hashlib.sha256(path.relative_to(root).as_posix().encode()).digest()):
        if path.stat().st_size <= byte_budget:
            held.add(path)
            byte_budget -= path.stat().st_size
    # The path decides between files of one size.
    return held or {min(paths, key=lambda path: (path.stat().st_size, path))}
