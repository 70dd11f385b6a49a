"""Rows of a table as the samples of a split."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from mlscale.data.image_tables.image_cells import ImageCells
from mlscale.data.image_tables.image_rows import ImageRows
from mlscale.data.image_tables.row_labels import list_raw_labels
from mlscale.data.shards.sample_source import Label
from mlscale.errors import MLScaleError, call_all

# Images of which the data version covers the first block: to read all would take as long as an epoch.
_PROBE_COUNT = 256
_BLOCK = 4096
_THREADS = 4


class TableSource:
    """A split in rows of tables.

    Args:
        rows: of its files.
        numbers: those of the split, int64 (n,).
        numbered: the labels of training are class numbers, and not names.
        skip_bad: rows that can't be used are bad samples; else the first is an error.
        where: the key path of the split, for errors.
        digests: the CRC-32 of the images of which it was recorded, by key; another image is a bad sample.

    Raises:
        MLScaleError: no row can be used; or, unless `skip_bad`, one can't.
    """

    def __init__(
        self,
        rows: ImageRows,
        numbers: NDArray[np.int64],
        *,
        numbered: bool,
        skip_bad: bool,
        where: str,
        digests: Mapping[str, int],
    ) -> None:
        self._rows, self._digests = rows, digests
        self._numbers: list[int] = numbers.tolist()
        self._labels = list_raw_labels(rows.labels, self._numbers, numbered) if rows.masks is None else []
        self._refuse_bad(skip_bad, where)
        self.raw_labels: list[Label] = self._list_classes()
        self.version = self._compute_digest()

    @property
    def is_remote(self) -> bool:
        return False

    def __len__(self) -> int:
        return len(self._numbers)

    def get_key(self, sample: int) -> str:
        return str(self._rows.keys[self._numbers[sample]])

    def read_image(self, sample: int) -> tuple[str, bytes]:
        """Return extension and bytes of a sample's image. May be called by several threads.

        Raises:
            BadSample: it can't be read, or has another digest than was recorded.
        """
        extension, content = self._read(self._rows.cells, sample)
        key, digest = self.get_key(sample), zlib.crc32(content) if self._digests else 0
        if self._digests.get(key, digest) != digest:
            from mlscale.data.order.bad_samples import BadSample

            why = (
                f"the CRC-32 of its image is {digest:08x}, and {self._digests[key]:08x} was recorded by mlscale prepare"
            )
            raise BadSample(sample, key, "is corrupt", where=self.locate_sample(sample), why=why)
        return extension, content

    def compute_digests(self) -> dict[str, int]:
        """Return the CRC-32 of each image by key, but for rows that can't be used.

        Raises:
            MLScaleError: images have other digests than were recorded; of all at once.
        """
        usable = sorted({*range(len(self))}.difference(self._list_bad()))
        with ThreadPoolExecutor(_THREADS) as pool:
            read = {self.get_key(sample): pool.submit(self._compute_image_checksum, sample) for sample in usable}
            return call_all({key: checksum.result for key, checksum in read.items()})

    def _compute_image_checksum(self, sample: int) -> int:
        return zlib.crc32(self.read_image(sample)[1])

    def read_label(self, sample: int) -> tuple[str, bytes]:
        """Return extension and bytes of a sample's mask. May be called by several threads."""
        assert self._rows.masks is not None  # classes have no bytes of their own
        return self._read(self._rows.masks, sample)

    def read_labels(self) -> tuple[str, list[bytes]]:
        """Return the labels of all samples as members of shards have them."""
        # As shards have them, so that one reader checks both.
        return "json", [json.dumps(labels).encode() for labels in self._labels]

    def compute_label_checksums(self) -> NDArray[np.uint32]:
        """Return the CRC-32 of each mask, (n,); 0 where it can't be read."""
        with ThreadPoolExecutor(_THREADS) as pool:
            return np.array(list(pool.map(self._compute_mask_checksum, range(len(self)))), np.uint32)

    def locate_sample(self, sample: int) -> str:
        """Return the file, the row and the column of a sample's image."""
        return f"{self._rows.places[self._numbers[sample]]}, column {self._rows.cells.column!r}"

    def list_image_marks(self) -> NDArray[np.int64]:
        sizes = self._rows.cells.sizes[self._numbers]
        # Sizes alone: no digests are recorded.
        return np.stack([sizes, np.full(len(sizes), -1, np.int64)], 1)

    def _read(self, cells: ImageCells, sample: int) -> tuple[str, bytes]:
        row = self._numbers[sample]
        if (bad := self._build_bad_sample(sample)) is not None:
            raise bad
        try:
            return cells.read(row)
        except OSError as error:
            from mlscale.data.order.bad_samples import BadSample  # with torch, which is not needed to read

            why = f"{cells.get_path(row)!r}: {error.strerror or error}"
            raise BadSample(sample, self.get_key(sample), where=self.locate_sample(sample), why=why) from error

    def _build_bad_sample(self, sample: int) -> MLScaleError | None:
        """Return the error of a row that can't be used; None for others."""
        known = self._rows.find_problem(self._numbers[sample])
        if known is None:
            return None
        # Imported on use: torch comes with it.
        from mlscale.data.order.bad_samples import BadSample

        column, problem = known
        position = self._rows.places[self._numbers[sample]] + (f", column {column!r}" if column else "")
        return BadSample(sample, self.get_key(sample), problem.what, where=position, why=problem.why)

    def _list_bad(self) -> Iterator[int]:
        return (sample for sample, row in enumerate(self._numbers) if self._rows.find_problem(row) is not None)

    def _refuse_bad(self, skip_bad: bool, where: str) -> None:
        bad = list(self._list_bad())
        if not bad or (skip_bad and len(bad) < len(self)):
            return
        error = self._build_bad_sample(bad[0])
        assert error is not None
        # All of one kind have one cause, such as another folder.
        error.what = f"{len(bad):,} of {len(self):,} rows can't be used: {error.what}"
        error.where = f"{where}: {error.where}"
        if self._rows.cells.get_path(self._numbers[bad[0]]) is not None:
            error.fix = f"data.image_root=<the folder of the paths>, and data.suffix=.png if they lack it\n{error.fix}"
        raise error

    def _list_classes(self) -> list[Label]:
        """Return the class of each sample; a row without one takes the first that there is, and is never trained on."""
        if self._rows.masks is not None:
            return []
        known = next((labels[0] for labels in self._labels if labels), 0)
        return [labels[0] if labels else known for labels in self._labels]

    def _compute_mask_checksum(self, sample: int) -> int:
        try:
            return zlib.crc32(self.read_label(sample)[1])
        # Reported when it is trained on.
        except MLScaleError:
            return 0

    def _compute_digest(self) -> str:
        """Return a digest of names, sizes, and the first block of some images, evenly spread."""
        total, cells = hashlib.sha256(b"image table 1"), self._rows.cells
        step = max(1, len(self) // _PROBE_COUNT)
        for sample, row in enumerate(self._numbers):
            # The size of every image, since one that is replaced usually has another.
            total.update(f"{self.get_key(sample)}\0{cells.sizes[row]}\0".encode("utf-8", "surrogateescape"))
            if sample % step == 0:
                total.update(cells.read_start(row, _BLOCK))
        return total.hexdigest()[:16]
