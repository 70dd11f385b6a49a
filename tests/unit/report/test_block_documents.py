"""Blocks as JSON: what comes back is what was written."""

import json
import math

import pytest

from mlscale.report import (
    BarPlot,
    CommandList,
    ConfusionMatrixPlot,
    Figure,
    Heading,
    HorizontalBarPlot,
    ImageBlock,
    KeyNumbers,
    LinePlot,
    PlotEvent,
    ScatterPlot,
    Series,
    TableBlock,
)
from mlscale.report.figures import convert_from_blocks, convert_to_blocks

BLOCKS: list[Figure] = [
    Heading("a", "b"),
    TableBlock("t", ["a", "b"], [["1", "2"]], marked=[0], faint=[1]),
    LinePlot("l", [Series("s", [1.0, math.inf], [0.0, 1.0])], "x", "y", marks=[("m", 1.0)], events=[PlotEvent("e", 1)]),
    BarPlot("b", ["a"], [Series("s", [1.0])], "x", "y"),
    HorizontalBarPlot("h", [("a", 1.0)], whole=None),
    ConfusionMatrixPlot("c", ["a"], [[1.0]], "predicted", "true"),
    ScatterPlot("s", [1.0], [2.0], "x", "y"),
    ImageBlock("i", b"\x89PNG", 3),
    KeyNumbers([("a", "1")]),
    CommandList("c", [("mlscale", "x")]),
]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: type(block).__name__)
def test_round_trip(block: Figure) -> None:
    text = json.dumps(convert_from_blocks([block]), allow_nan=False)
    (back,) = convert_to_blocks(json.loads(text))
    assert type(back) is type(block)
    assert convert_from_blocks([back]) == json.loads(text)
    assert back.get_alt_text() == block.get_alt_text()


def test_what_is_no_block_is_refused() -> None:
    with pytest.raises(KeyError):
        convert_to_blocks([{"kind": "Path", "path": "/etc"}])
