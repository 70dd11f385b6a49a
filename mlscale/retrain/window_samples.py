"""Raw samples of events, as a model takes them: decoded, checked, identified, and searched for new categories."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.data.encoders.table_columns import CategoryColumn
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.errors import MLScaleError
from mlscale.events.event_table import read_sample
from mlscale.export.servable import Servable, cast_input

NewCategories = Mapping[str, Mapping[str, int]]
"""The samples of each category that a model does not know, by column."""


def decode_event_sample(content: bytes, kind: str, servable: Servable) -> Any:
    """Return a stored sample in the form that a client sends: a row, the bytes of a text, the pixels of an image.

    Raises:
        ValueError: the model does not take it.
    """
    # Events may come from anybody.
    try:
        sample = read_sample(kind, content)
        if isinstance(servable.encoder, ImageEncoder):
            return cast_input(np.asarray(sample)[None], servable.input)[0]
    except (MLScaleError, TypeError) as error:
        raise ValueError(str(error)) from error
    if isinstance(servable.encoder, TableEncoder):
        if not isinstance(sample, Mapping):
            raise ValueError("it is not a row")
        # Of the columns that the model takes alone: others are no part of the sample.
        sample = {column.name: sample.get(column.name) for column in servable.encoder.columns}
    if reasons := servable.pack_samples([sample]).bad:
        raise ValueError(reasons[0])
    return sample


def compute_sample_digest(sample: Any, model: str) -> bytes:
    """Return 8 bytes that identify a sample, uniform from 0 to 2**64 - 1.

    Args:
        sample: an array, bytes, or a row.
        model: its name.
    """
    # Keyed by the model's name, so that two models split the same samples independently. A key has 64 bytes at most.
    key = model.encode()[:64]
    return blake2b(_write_bytes(sample), digest_size=8, key=key, person=b"mlscale retrain").digest()


def compute_labelled_digest(sample_digest: bytes, label: Any) -> int:
    """Return a number of 64 bits that identifies a sample with its label.

    Args:
        sample_digest: of the sample, 8 bytes.
        label: in the form of the task type; None where it has no labels.
    """
    content = sample_digest + json.dumps(label, sort_keys=True, ensure_ascii=False, default=str).encode(
        "utf-8", "surrogatepass"
    )
    return int.from_bytes(blake2b(content, digest_size=8, person=b"mlscale label").digest())


def check_mask_size(servable: Servable, label: str) -> None:
    """Check that a mask is as large as what the model predicts.

    Raises:
        ValueError: it is not.
    """
    import base64

    from mlscale.task_types.segmentation_type import decode_mask

    shape, wanted = decode_mask(base64.b64decode(label)).shape, servable.encoder.inputs[0].shape[-2:]
    if shape != wanted:
        raise ValueError(f"the mask has {shape[1]}×{shape[0]} pixels, and the model predicts {wanted[1]}×{wanted[0]}")


def count_new_categories(samples: Iterable[Any], servable: Servable) -> NewCategories:
    """Return the categories that the model does not know, with the number of samples that have each, by column."""
    encoder = servable.encoder
    if not isinstance(encoder, TableEncoder):
        return {}
    categories = [column for column in encoder.columns if isinstance(column, CategoryColumn)]
    counts: dict[str, Counter[str]] = {column.name: Counter() for column in categories}
    for sample in samples:
        for column in categories:
            value = column.read_value(sample[column.name])
            # A missing value is not a category.
            if value and value not in column.positions:
                counts[column.name][value] += 1
    return {name: dict(count.most_common()) for name, count in counts.items() if count}


def _write_bytes(sample: Any) -> bytes:
    if isinstance(sample, np.ndarray):
        return sample.tobytes()
    if isinstance(sample, bytes):
        return sample
    if isinstance(sample, Mapping) and any(isinstance(value, np.ndarray) for value in sample.values()):
        arrays: Mapping[str, NDArray[Any]] = sample
        return b"".join(arrays[name].tobytes() for name in sorted(arrays))
    return json.dumps(sample, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")
