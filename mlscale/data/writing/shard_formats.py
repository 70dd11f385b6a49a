"""The formats of shards: how a sample is a part of one, and how parts become a file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Final

from mlscale.data.image_tables.row_files import IMAGE
from mlscale.data.writing.parquet_rows import ROW_BYTES, encode_rows
from mlscale.data.writing.sample_contents import TAR_END, SampleContents


class ShardFormat(ABC):
    """A format.

    Attributes:
        option: of `data`, which reads it.
    """

    option: str

    @abstractmethod
    def build_part(self, contents: SampleContents, sample: int, key: str) -> Any:
        """Return a sample as a part of a shard.

        Args:
            key: the sample's name, where the format has one of its own.

        Raises:
            MLScaleError: the sample can't be read, or the format can't hold it.
        """

    @abstractmethod
    def join_parts(self, contents: SampleContents, parts: Sequence[Any]) -> bytes:
        """Return the content of a shard."""

    def measure_part(self, part: Any) -> int:
        """Return the bytes of a part, about."""
        return len(part)


class _Tar(ShardFormat):
    option = "webdataset"

    def build_part(self, contents: SampleContents, sample: int, key: str) -> bytes:
        return contents.build_tar_members(sample, key)

    def join_parts(self, contents: SampleContents, parts: Sequence[bytes]) -> bytes:
        return b"".join([*parts, TAR_END])


class _TFRecord(ShardFormat):
    option = "tfrecord"

    def build_part(self, contents: SampleContents, sample: int, key: str) -> bytes:
        return contents.build_record(sample)

    def join_parts(self, contents: SampleContents, parts: Sequence[bytes]) -> bytes:
        return b"".join(parts)


class _Parquet(ShardFormat):
    option = "image_table"

    def build_part(self, contents: SampleContents, sample: int, key: str) -> Mapping[str, Any]:
        return contents.build_row(sample)

    def join_parts(self, contents: SampleContents, parts: Sequence[Mapping[str, Any]]) -> bytes:
        return encode_rows(parts, contents.labels, contents.class_names)

    def measure_part(self, part: Mapping[str, Any]) -> int:
        files = [value for name, value in part.items() if name == IMAGE or isinstance(value, dict)]
        return ROW_BYTES + sum(len(file["bytes"]) for file in files)


FORMATS: Final[Mapping[str, ShardFormat]] = {"tar": _Tar(), "tfrecord": _TFRecord(), "parquet": _Parquet()}
"""By name, which is the extension of the files, too."""
