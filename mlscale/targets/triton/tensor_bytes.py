"""Raw samples as the bytes that Triton reads from requests and warm-up files."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.text_encoder import convert_to_bytes


def encode_raw_sample(sample: Any) -> bytes:
    """Return a raw sample as one element of a tensor of bytes: a file, a text, a row as JSON, an array as .npy."""
    if isinstance(sample, np.ndarray):
        np.save(file := io.BytesIO(), sample, allow_pickle=False)
        return file.getvalue()
    if isinstance(sample, str | bytes):
        return convert_to_bytes(sample)
    # Numbers of numpy's are no JSON.
    return json.dumps(sample, default=lambda value: value.item()).encode()


def create_raw_tensor(samples: list[Any]) -> NDArray[Any]:
    """Return raw samples as a tensor of bytes, (n, 1)."""
    tensor = np.empty((len(samples), 1), object)
    tensor[:, 0] = [encode_raw_sample(sample) for sample in samples]
    return tensor
