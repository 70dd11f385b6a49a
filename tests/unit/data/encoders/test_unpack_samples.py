"""Packed samples become the tensors that full encoding gives, bitwise; a bad row has the same reason on both paths."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.encoder import Encoder
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.encoders.tensor_encoder import TensorEncoder
from mlscale.data.encoders.text_encoder import TextEncoder
from mlscale.data.table_parsing.columns import DataTable

COLUMNS = {
    "size": np.array([1.5, np.nan, 40.25, 7.0]),
    "kind": ["a", "é", None, "a"],
    "postcode": np.array([7.0, 70.0, 7.0, np.nan]),
    "weight": np.array([10.0, 20.0, 30.0, 40.0]),
}
TABLE = TableEncoder.fit(DataTable(COLUMNS, list("0123")), list(COLUMNS), ["postcode"], where="data.train")  # type: ignore[arg-type]
ROWS = [
    {"size": 3, "kind": "a", "postcode": "07", "weight": None},
    {"size": None, "kind": "\ud800", "postcode": 70, "weight": 10**30},
    {"size": "2.5", "kind": "new", "postcode": None, "weight": float("nan")},
    {"size": -0.0, "kind": None, "postcode": 7.0, "weight": True, "more": 1},
]


@pytest.mark.parametrize(
    ("encoder", "raw"),
    [
        (TABLE, ROWS),
        (TABLE, ROWS * 10),
        (TextEncoder(6), ["a", "longer than six", "é🐧", b"\xff\x00\xfe"]),
        (DocumentEncoder(4), ["a", "a text of several windows"]),
        (TensorEncoder.from_shape((2,), "float32"), [[1, 2], [3, 4]]),
    ],
)
def test_packed_samples_become_encoded_ones(encoder: Encoder, raw: list[Any]) -> None:
    unpacked, encoded = encoder.unpack_samples(encoder.pack_samples(raw).tensors), encoder.encode_samples(raw).tensors
    assert list(unpacked) == list(encoded)
    for name, values in encoded.items():
        assert unpacked[name].dtype == values.dtype
        assert unpacked[name].tobytes() == values.tobytes()


@pytest.mark.parametrize("rows", [1, 40])
def test_a_packed_number_beyond_float32_becomes_infinite(rows: int) -> None:
    packed = TABLE.pack_samples([{"size": 3, "kind": "a", "postcode": "07", "weight": 1}] * rows).tensors
    packed["numbers"][0, -1] = 1e300
    assert np.isinf(TABLE.unpack_samples(packed)["input"]).sum() == 1


def test_the_first_problem_of_a_row_is_the_same() -> None:
    bad = [
        {"size": 1, "kind": [], "postcode": 1, "weight": "heavy"},
        {"size": float("inf"), "weight": 1},
        {"size": 1, "Kind": "a", "postcode": 1},
        ["a", "list"],
    ]
    packed, encoded = TABLE.pack_samples(bad), TABLE.encode_samples(bad)  # type: ignore[arg-type]
    assert packed.bad == encoded.bad
    assert sorted(packed.bad) == [0, 1, 2, 3]
    assert packed.bad[2] == "it lacks the columns 'kind', 'weight' (null for a missing value); is 'Kind' the same?"
    assert [len(rows) for rows in packed.tensors.values()] == [4, 4]
