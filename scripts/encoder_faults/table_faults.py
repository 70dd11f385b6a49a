"""Faults of a table's encoder: an altered document, or a graph that is made of one."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from mlscale.data.encoders.encoder import Encoder
from mlscale.data.encoders.table_columns import CategoryColumn, NumberColumn
from mlscale.data.encoders.table_encoder import TableEncoder
from scripts.encoder_faults.altered_servable import Fault, export_encoder

Kind = TypeVar("Kind", NumberColumn, CategoryColumn)


def _alter_table(
    draw: random.Random,
    encoder: Encoder,
    content: bytes,
    what: str,
    columns: Mapping[str, Any],
) -> Fault:
    assert isinstance(encoder, TableEncoder)
    altered = TableEncoder(tuple(columns.get(column.name, column) for column in encoder.columns))
    in_graph = draw.random() < 0.5 and len(altered.feature_names) == len(encoder.feature_names)
    stored = encoder if in_graph else altered
    where = "graph" if in_graph else "document"
    return Fault(f"{where}: {what}", tuple(columns), stored, export_encoder(altered))


def _pick(draw: random.Random, encoder: Encoder, kind: type[Kind], **wanted: object) -> Kind:
    assert isinstance(encoder, TableEncoder)
    columns = [column for column in encoder.columns if isinstance(column, kind)]
    return draw.choice(
        [c for c in columns if all(getattr(c, name) == value for name, value in wanted.items())] or columns
    )


def plant_category_order(draw: random.Random, encoder: Encoder, content: bytes) -> Fault:
    column = _pick(draw, encoder, CategoryColumn)
    values = list(column.values)
    while tuple(values) == column.values:
        draw.shuffle(values)
    changed = {column.name: replace(column, values=tuple(values))}
    return _alter_table(draw, encoder, content, f"{column.name} sorted otherwise", changed)


def plant_missing_value(draw: random.Random, encoder: Encoder, content: bytes) -> Fault:
    column = _pick(draw, encoder, NumberColumn, indicator=True)
    if draw.random() < 0.5:
        changed, what = replace(column, median=0.0), "filled with 0"
    else:
        changed, what = replace(column, indicator=not column.indicator), "without its flag"
    return _alter_table(draw, encoder, content, f"{column.name} {what}", {column.name: changed})


def plant_statistics(draw: random.Random, encoder: Encoder, content: bytes) -> Fault:
    column = _pick(draw, encoder, NumberColumn)
    changed = replace(
        column,
        mean=column.mean + draw.choice((0, 0.3, -1)) * column.std,
        std=column.std * draw.uniform(1.05, 2),
    )
    return _alter_table(draw, encoder, content, f"statistics of {column.name}", {column.name: changed})


def plant_unit(draw: random.Random, encoder: Encoder, content: bytes) -> Fault:
    column = _pick(draw, encoder, NumberColumn)
    factor = draw.choice((10, 0.1, 25.4, 1000, 1 / 60))
    changed = replace(column, mean=column.mean / factor, std=column.std / factor)
    return _alter_table(draw, encoder, content, f"{column.name} times {factor:.4g}", {column.name: changed})


def plant_other_column(draw: random.Random, encoder: Encoder, content: bytes) -> Fault:
    assert isinstance(encoder, TableEncoder)
    kind = draw.choice(("number", "category"))
    first, second = draw.sample([column for column in encoder.columns if column.type == kind], 2)
    names = {first.name: second.name, second.name: first.name}
    columns = tuple(replace(c, name=names.get(c.name, c.name)) for c in encoder.columns)
    what = f"{first.name} and {second.name} swapped"
    return Fault(f"document: {what}", tuple(names), TableEncoder(columns), content)
