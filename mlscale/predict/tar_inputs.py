"""Read the samples of tar shards as inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlscale.data.decoding.image_files import is_image_file
from mlscale.data.shards.index_builder import build_index
from mlscale.data.shards.member_decoder import check_extension
from mlscale.data.shards.shard_paths import find_shards
from mlscale.errors import MLScaleError
from mlscale.predict.input_items import InputItem
from mlscale.predict.input_tables import TEXT_KINDS

_MASK = "mask.png"
"""The label of an image that has one for each pixel, as training names it by default; it is an image file itself."""


class TarInputs:
    """The samples of tar shards in the format of webdataset; their keys are shard and key.

    Args:
        spec: paths, brace patterns, globs, folders.
        member: extension of the member that is scored; None for the image, or else an array or text.
        kind: of the encoder: None finds a text for one of texts, an array for one of tensors.
        trained_on: extensions of the members that the model was trained on, joined by ';'; None where not known.

    Raises:
        MLScaleError: a sample has no such member, or several of which it is not clear which one is meant.
    """

    def __init__(self, spec: Sequence[str], member: str | None, kind: str = "", trained_on: str | None = None) -> None:
        self._index = build_index(find_shards(list(spec), where="input"), where="input")
        wanted = self._find_members(member, kind, trained_on)
        # None is allowed that needs pickle: a shard may be from anyone.
        for extension in wanted:
            check_extension(extension, allow=(), where="member")
        self._columns = [self._index.extensions.index(extension) for extension in wanted]
        self._raise_if_unclear(wanted)
        self.digest = self._index.compute_data_version()

    def __len__(self) -> int:
        return len(self._index)

    def read_items(self, rows: range) -> list[InputItem]:
        return [self._read_item(row) for row in rows]

    def _find_members(self, member: str | None, kind: str, trained_on: str | None) -> list[str]:
        """Return the extensions of the members that are scored: of each sample the one that it has.

        Raises:
            MLScaleError: there are none.
        """
        extensions = self._index.extensions
        if member is not None:
            wanted = [member.lower()] if member.lower() in extensions else []
        else:
            trained = [extension for extension in (trained_on or "").lower().split(";") if extension in extensions]
            wanted = trained or self._find_members_of_kind(kind)
        if not wanted:
            raise MLScaleError(
                "the samples have no member to score" if member is None else f"the samples have no member '.{member}'",
                where="input" if member is None else f"member={member}",
                why=f"their members are: {', '.join(f'.{name}' for name in extensions)}",
                fix="member=<one of these>",
            )
        return wanted

    def _find_members_of_kind(self, kind: str) -> list[str]:
        extensions = self._index.extensions
        texts, arrays = ([name for name in extensions if name in taken] for taken in (("txt", "text"), ("npy",)))
        if kind in TEXT_KINDS or kind == "tensor":
            return arrays if kind == "tensor" else texts
        images = [name for name in extensions if is_image_file(name)]
        return [name for name in images if name != _MASK] or images or [*arrays, *texts]

    def _raise_if_unclear(self, wanted: Sequence[str]) -> None:
        """Raise an error if a sample has several members that may be the one to score: as in training, none is guessed.

        Raises:
            MLScaleError: one has.
        """
        counts = (self._index.offsets[:, self._columns] >= 0).sum(axis=1)
        if len(self._columns) > 1 and (counts > 1).any():
            raise MLScaleError(
                "it is not clear which member is scored",
                where="input",
                why=f"sample {self._index.get_sample_name(int(np.argmax(counts > 1)))} has several: "
                f"{', '.join(f'.{name}' for name in wanted)}",
                fix=f"member={min(wanted, key=len)}",
            )

    def _read_item(self, row: int) -> InputItem:
        key = self._index.get_sample_name(row)
        # Samples may differ in format, such as .jpg and .png: the member that this one has. -1 means absent.
        column = next((candidate for candidate in self._columns if self._index.offsets[row, candidate] >= 0), None)
        if column is None:
            return InputItem(key, b"", error="it has no member that is scored")
        try:
            return InputItem(key, self._index.read_member(row, column), self._index.extensions[column])
        except MLScaleError as error:
            return InputItem(key, b"", error=error.why or error.what)
