"""A user's own text files for language models: read into memory, or part by part to be tokenised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from mlscale.data.table_parsing.hold_out import check_fraction
from mlscale.data.text.documents import (
    Document,
    DocumentPart,
    choose_held_names,
    find_text_files,
    hold_out_documents,
    is_text_held_out,
    list_parts,
    read_all_documents,
)
from mlscale.data.text.language_data import LanguageData, TextArguments
from mlscale.errors import MLScaleError


class TextFiles(LanguageData):
    """Your own text files: a model of their bytes, in any encoding, or of a tokenizer's tokens, in UTF-8.

    Args:
        train: paths, globs (`docs/**/*.md`), or folders, whose `.txt` files are taken.
        val: the same, for validation; None holds out files of `train`, or the end of a single one.
        val_fraction: part of all bytes that is held out where `val` is None.
        text: the key of the text in JSON Lines, of which each line is a document; None: each file is one.
        arguments: see `LanguageData` and `Policy`.
    """

    def __init__(
        self,
        train: str | Sequence[str],
        val: str | Sequence[str] | None = None,
        val_fraction: float = 0.1,
        text: str | None = None,
        **arguments: Unpack[TextArguments],
    ) -> None:
        super().__init__(**arguments)
        self._train, self._val, self.val_fraction, self.text = train, val, val_fraction, text

    def _read_documents(self) -> dict[str, list[Document]]:
        documents = read_all_documents(self._train, self.text, where="data.train")
        if self._val is not None:
            return {"train": documents, "val": read_all_documents(self._val, self.text, where="data.val")}
        if self.text is None:
            train, val = hold_out_documents(documents, self.val_fraction, where="data.val_fraction")
        else:
            # By content and not by name: the names of lines change where one is added.
            check_fraction(self.val_fraction, where="data.val_fraction")
            held = [is_text_held_out(document.text, self.val_fraction) for document in documents]
            train, val = ([d for d, is_held in zip(documents, held, strict=True) if is_held == side] for side in (0, 1))
        return {"train": train, "val": val}

    def list_token_parts(self, part_bytes: int) -> dict[str, list[DocumentPart]]:
        """Return the parts of the files by split, for `mlscale prepare`; nothing is read.

        Args:
            part_bytes: of a part of JSON Lines.

        Raises:
            MLScaleError: no file is found, or a single document would have to be divided.
        """
        train = find_text_files(self._train, where="data.train")
        if self._val is not None:
            val = find_text_files(self._val, where="data.val")
            return {"train": list_parts(train, self.text, part_bytes), "val": list_parts(val, self.text, part_bytes)}
        check_fraction(self.val_fraction, where="data.val_fraction")
        parts = list_parts(train, self.text, part_bytes)
        if self.text is not None:
            return {"train": parts}
        # In memory the end of a single one is held out; a part of a file that is not read has no place to cut.
        if len(parts) == 1:
            raise MLScaleError(
                "a single document is not divided into training and validation text",
                where="data.val",
                why=f"{train[0]} is all that data.train names",
                fix="data.val=<another file>",
            )
        held = choose_held_names({part.name: part.size for part in parts}, self.val_fraction)
        return {
            "train": [part for part in parts if part.name not in held],
            "val": [part for part in parts if part.name in held],
        }

    @property
    def content_fraction(self) -> float | None:
        """The part of documents that is held out by their content; None where files decide."""
        return self.val_fraction if self._val is None and self.text is not None else None

    @property
    def file_keys(self) -> dict[str, str]:
        """The key path that names the files of each split: held-out ones are files of `data.train`."""
        return {"train": "data.train", "val": "data.train" if self._val is None else "data.val"}
