"""Blocks of a page as JSON: one process makes them, and another one puts them on a page."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from mlscale.report.blocks import (
    CommandList,
    ConfusionMatrixPlot,
    Heading,
    ImageBlock,
    KeyNumbers,
    ScatterPlot,
    TableBlock,
)
from mlscale.report.figures import BarPlot, Figure, HorizontalBarPlot, LinePlot, PlotEvent, Series

_KINDS: Mapping[str, type] = {
    kind.__name__: kind
    for kind in (
        BarPlot, CommandList, ConfusionMatrixPlot, Heading, HorizontalBarPlot, ImageBlock, KeyNumbers,
        LinePlot, PlotEvent, ScatterPlot, Series, TableBlock,
    )
}  # fmt: skip
_KIND, _BYTES, _NUMBER = "kind", "base64", "number"


def convert_from_blocks(blocks: Sequence[Figure]) -> list[Any]:
    """Return figures as values of JSON's types."""
    return [_convert_from(block) for block in blocks]


def convert_to_blocks(documents: Sequence[Any]) -> list[Figure]:
    """Return the figures of `convert_from_blocks`.

    Raises:
        ValueError, TypeError, KeyError: the documents are something else.
    """
    return [_convert_to(document) for document in documents]


def _convert_from(value: object) -> Any:
    if is_dataclass(value) and type(value) in _KINDS.values():
        content = {field.name: _convert_from(getattr(value, field.name)) for field in fields(value)}
        return {_KIND: type(value).__name__, **content}
    if isinstance(value, bytes):
        return {_BYTES: base64.b64encode(value).decode()}
    if isinstance(value, list | tuple):
        return [_convert_from(item) for item in value]
    # JSON has neither NaN nor infinities.
    return {_NUMBER: str(value)} if isinstance(value, float) and not math.isfinite(value) else value


def _convert_to(document: object) -> Any:
    if isinstance(document, list):
        return [_convert_to(item) for item in document]
    if isinstance(document, dict) and _BYTES in document:
        return base64.b64decode(document[_BYTES], validate=True)
    if isinstance(document, dict) and _NUMBER in document:
        return float(document[_NUMBER])
    if isinstance(document, dict):
        content = {name: _convert_to(value) for name, value in document.items() if name != _KIND}
        return _KINDS[document[_KIND]](**content)
    return document
