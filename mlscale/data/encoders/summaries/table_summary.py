"""The summary of a row of a table: its columns."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mlscale.data.encoders.encoder import EncodedSamples
from mlscale.data.encoders.summaries.input_summary import InputSummary, SummaryColumns
from mlscale.data.encoders.table_encoder import NUMBERS, TEXTS, TableEncoder


@dataclass(frozen=True)
class TableSummary(InputSummary):
    """The columns by the user's names: numbers, and categories as texts, so that a new one can be named.

    Args:
        encoder: of the rows.
    """

    sample_kind: ClassVar[str] = "json"
    encoder: TableEncoder

    def summarize_samples(self, packed: EncodedSamples) -> SummaryColumns:
        numbers = (name for name, is_number in self._list_columns() if is_number)
        texts = (name for name, is_number in self._list_columns() if not is_number)
        columns: SummaryColumns = {}
        if NUMBERS in packed.tensors:
            columns |= zip(numbers, np.ascontiguousarray(packed.tensors[NUMBERS].T, np.float64), strict=True)
        if TEXTS in packed.tensors:
            for name, values in zip(texts, packed.tensors[TEXTS].T, strict=True):
                # The empty text is a missing value.
                columns[name] = [value or None for value in values.tolist()]
        # In the order of the table, not with all numbers first.
        return {name: columns[name] for name, _ in self._list_columns()}

    def write_samples(self, packed: EncodedSamples, numbers: Sequence[int]) -> list[bytes]:
        chosen = {name: values[list(numbers)] for name, values in packed.tensors.items()}
        columns = self.summarize_samples(EncodedSamples(chosen, {}))
        rows = zip(
            *(column if isinstance(column, list) else column.tolist() for column in columns.values()), strict=True
        )
        documents = ({name: _convert_missing(value) for name, value in zip(columns, row, strict=True)} for row in rows)
        return [json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() for document in documents]

    def _list_columns(self) -> list[tuple[str, bool]]:
        """Return the names of the columns, and whether each holds numbers."""
        return [(column.name, column.type == "number") for column in self.encoder.columns]


def _convert_missing(value: float | str | None) -> float | str | None:
    # JSON has no NaN.
    return None if isinstance(value, float) and math.isnan(value) else value
