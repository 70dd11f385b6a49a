"""Samples as the rows of a Parquet file, with the columns and the metadata of Hugging Face's `datasets`."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlscale.data.image_tables.row_files import FEATURES, IMAGE, TARGETS

if TYPE_CHECKING:
    import pyarrow as pa

ROW_BYTES = 64
"""Of a row besides its images, about."""
_GROUP_ROWS = 64
"""Rows of a row group, which a reader has in memory as a whole."""
Row = Mapping[str, Any]


def build_row(image: tuple[str, bytes], labels: str, target: object) -> Row:
    """Return the row of a sample.

    Args:
        image: the name and the bytes of its file.
        labels: the kind of label.
        target: a class, a list of classes, or the name and the bytes of a mask's file.
    """
    value = _store_image(*target) if isinstance(target, tuple) else target
    return {IMAGE: _store_image(*image), TARGETS[labels]: value}


def encode_rows(rows: Sequence[Row], labels: str, class_names: Sequence[str] | None) -> bytes:
    """Return the content of a Parquet file. Pages have checksums, and equal rows have equal bytes."""
    import pyarrow as pa
    from pyarrow import parquet

    sink = io.BytesIO()
    # Encoded images get no smaller by a codec, and statistics of their bytes help no reader.
    parquet.write_table(
        pa.Table.from_pylist(list(rows), schema=_build_schema(labels, class_names)),
        sink,
        row_group_size=_GROUP_ROWS,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
    )
    return sink.getvalue()


def _store_image(name: str, content: bytes) -> dict[str, Any]:
    return {"bytes": content, "path": name}


def _build_schema(labels: str, class_names: Sequence[str] | None) -> pa.Schema:
    import pyarrow as pa

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    # Numbers, whose names are in the metadata.
    kinds = {"one": pa.int64(), "several": pa.list_(pa.int64()), "mask": image}
    number: dict[str, Any] = {"dtype": "int64", "_type": "Value"}
    label = number if class_names is None else {"names": list(class_names), "_type": "ClassLabel"}
    target = {"one": label, "several": {"feature": label, "_type": "Sequence"}, "mask": {"_type": "Image"}}[labels]
    features = {IMAGE: {"_type": "Image"}, TARGETS[labels]: target}
    metadata = {FEATURES: json.dumps({"info": {"features": features}}, ensure_ascii=False).encode()}
    return pa.schema([(IMAGE, image), (TARGETS[labels], kinds[labels])], metadata)
