"""The documentation that Python carries with it: a text of some 1.7 MB that needs no download."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Unpack

from mlscale.data.cache_folder import get_cache_dir, write_aside
from mlscale.data.text.documents import Document, hold_out_documents
from mlscale.data.text.language_data import LanguageData, TextArguments
from mlscale.errors import Exit, MLScaleError

# Not a part of every Python, or no library at all.
_EXCLUDED_FOLDERS = frozenset({
    "__pycache__", "config", "dist-packages", "distutils", "ensurepip", "idle_test", "idlelib", "lib-dynload",
    "lib2to3", "pydoc_data", "site-packages", "test", "tests", "tkinter", "turtledemo",
})  # fmt: skip
_MIN_REPEATED_LENGTH = 40
"""Characters from which on a paragraph that came before counts as a repetition."""
_MIN_DOCUMENT_BYTES = 200
"""Bytes of a document; there is nothing to learn from fewer."""


class PythonDocs(LanguageData):
    """The topics of `help()`, and the docstrings of the standard library (PSF-2.0): a document each topic and module.

    A paragraph is kept where it comes first and nowhere else, since topics and modules quote each other: held-out
    text would be in the training text otherwise. The text is that of the Python that runs, so its data version
    differs between versions of Python. It is collected once, into the cache.

    Args:
        root: the folder to keep the text in; None for the cache.
        val_fraction: part of all bytes that is held out, in whole documents.
        arguments: see `LanguageData` and `Policy`.
    """

    licence: ClassVar[str] = "PSF-2.0"

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        val_fraction: float = 0.1,
        **arguments: Unpack[TextArguments],
    ) -> None:
        super().__init__(**arguments)
        self.val_fraction = val_fraction
        self.folder = (
            get_cache_dir() if root is None else Path(root).expanduser()
        ) / f"python-docs-1-{_identify_python()}"

    def prepare_data(self) -> None:
        """Collect the text unless it is there. Several processes may do so at once.

        Raises:
            MLScaleError: this Python has no documentation, or the folder cannot be written.
        """
        if self.folder.exists():
            return
        documents = list(collect_documents())
        if not documents:
            raise MLScaleError(
                "this Python carries no documentation",
                where="data=python_docs",
                why=f"{_find_library()} holds no docstrings, and pydoc_data no topics",
                fix="data=text_files data.train='docs/*.txt'   (your own text)",
                exit=Exit.ENVIRONMENT,
            )
        with write_aside(self.folder) as aside:
            lines = (json.dumps([document.name, document.text.decode()]) for document in documents)
            (aside / "documents.jsonl").write_text("\n".join(lines), encoding="utf-8")

    def _read_documents(self) -> dict[str, list[Document]]:
        if not self.folder.exists():
            raise MLScaleError(
                "the documentation of Python has not been collected yet",
                where="data.root",
                why=f"{str(self.folder)!r} does not exist",
                fix="mlscale prepare data=python_docs",
                exit=Exit.ENVIRONMENT,
            )
        lines = (self.folder / "documents.jsonl").read_text(encoding="utf-8").splitlines()
        documents = [Document(name, text.encode()) for name, text in map(json.loads, lines)]
        train, val = hold_out_documents(documents, self.val_fraction, where="data.val_fraction")
        return {"train": train, "val": val}


def collect_documents() -> Iterator[Document]:
    """Yield topics of `help()`, then modules, both sorted; without paragraphs that came before."""
    seen: set[str] = set()
    for name, texts in (*_iterate_topics(), *_iterate_docstrings()):
        text = "\n\n".join(unseen for text in texts if (unseen := _select_new_paragraphs(text, seen))).encode()
        if len(text) >= _MIN_DOCUMENT_BYTES and b"\0" not in text:
            yield Document(name, text)


def _iterate_topics() -> Iterator[tuple[str, list[str]]]:
    try:
        from pydoc_data.topics import topics
    except ImportError:  # a Python that was packaged without it
        return
    for name in sorted(topics):
        yield f"help/{name}", [topics[name]]


def _iterate_docstrings() -> Iterator[tuple[str, list[str]]]:
    root = _find_library()
    for path in _find_modules(root):
        try:
            tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError):  # some library files are wrong on purpose
            continue
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        texts = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented)]
        yield path.relative_to(root).as_posix(), [text for text in texts if text]


def _find_modules(root: Path) -> Iterator[Path]:
    for folder, inside, names in os.walk(root):
        # In place, so that os.walk leaves folders out; sorted, since the file system has its own order. The name before
        # '-' is that of `config-3.12-x86_64-linux-gnu`, for example.
        inside[:] = sorted(
            name for name in inside if name.split("-")[0] not in _EXCLUDED_FOLDERS and name not in _EXCLUDED_FOLDERS
        )
        yield from (Path(folder, name) for name in sorted(names) if name.endswith(".py"))


def _select_new_paragraphs(text: str, seen: set[str]) -> str:
    """Return the paragraphs that are not in `seen`, and add them to it."""
    new_paragraphs = []
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        # Quotations differ in their indentation and line breaks.
        words = " ".join(paragraph.split())
        if words and words not in seen:
            new_paragraphs.append(paragraph.rstrip())
        if len(words) >= _MIN_REPEATED_LENGTH:
            seen.add(words)
    return "\n\n".join(new_paragraphs)


def _find_library() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


def _identify_python() -> str:
    """Return the version, and a digest of the modules that exist: distributions leave out different ones."""
    root = _find_library()
    listing = "\n".join(f"{path.relative_to(root)} {path.stat().st_size}" for path in _find_modules(root))
    return f"{platform.python_version()}-{hashlib.sha256(listing.encode()).hexdigest()[:8]}"
