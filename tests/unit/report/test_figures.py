"""Plots show the numbers they are given, no others, and say them in words."""

import math
import re

import pytest

from mlscale.report import (
    BarPlot,
    CommandList,
    Heading,
    HorizontalBarPlot,
    KeyNumbers,
    LinePlot,
    PlotEvent,
    ReportStep,
    ScatterPlot,
    Series,
    TableBlock,
)
from mlscale.report.blocks import ConfusionMatrixPlot, ImageBlock, PagePart
from mlscale.report.figures import MOST_POINTS, reduce_points
from mlscale.report.svg import draw_plot


def ticks(svg: str) -> list[str]:
    """The texts of a plot."""
    return re.findall(r"<text [^>]*>([^<]*)</text>", svg)


def test_a_line_goes_where_its_values_are() -> None:
    svg = str(draw_plot(LinePlot("Loss", [Series("train", [0.0, 10.0], [0, 100])], "step", "loss")))
    (start, end), *rest = [re.findall(r"([\d.]+),([\d.]+)", line) for line in re.findall(r'points="([^"]*)"', svg)]
    assert rest == []
    assert float(start[0]) < float(end[0])
    assert float(start[1]) > float(end[1])  # larger is higher
    assert {"0", "50", "100", "10", "step", "loss"} <= set(ticks(svg))


def test_a_gap_stays_a_gap() -> None:
    svg = str(draw_plot(LinePlot("x", [Series("a", [1.0, 2.0, math.nan, 3.0, math.inf, 4.0, 5.0])], "step", "x")))
    assert [len(line.split()) for line in re.findall(r'points="([^"]*)"', svg)] == [2, 2]
    assert svg.count('r="2.4"') == svg.count('class="hit"') == 5


@pytest.mark.parametrize("y", [[], [math.nan], [3.0], [0.0, 0.0], [-1e-9, 1e-9], [1e12, 1e12 + 1]])
def test_a_plot_of_little(y: list[float]) -> None:
    svg = str(draw_plot(LinePlot("x", [Series("a", y)], "step", "x")))
    assert "nan" not in svg
    if not any(map(math.isfinite, y)):
        assert "no values" in svg


def test_bars_begin_at_zero_and_two_series_share_a_scale() -> None:
    svg = str(
        draw_plot(BarPlot("x", ["a", "b"], [Series("reference", [1.0, 2.0]), Series("now", [4.0, -2.0])], "class", "n"))
    )
    heights = {
        (kind, index): float(height)
        for index, (height, kind) in enumerate(re.findall(r'height="([\d.]+)" class="(s\d)"', svg))
    }
    first, second, third, fourth = heights.values()
    assert second == pytest.approx(2 * first, abs=0.2)
    assert third == pytest.approx(4 * first, abs=0.2)
    assert fourth == pytest.approx(2 * first, abs=0.2)
    assert {"0", "a", "b"} <= set(ticks(svg))


def test_many_bars_have_few_names() -> None:
    svg = str(draw_plot(BarPlot("x", [f"class {i}" for i in range(200)], [Series("n", [1.0] * 200)], "class", "n")))
    assert svg.count("<rect") == 200
    assert len([text for text in ticks(svg) if text.startswith("class ")]) < 12


def test_rows() -> None:
    rows = HorizontalBarPlot("A step", [("data", 25.0), ("rest", 75.0), ("none", math.nan)], "%", 100)
    svg = str(draw_plot(rows))
    assert [float(width) for width in re.findall(r'width="([\d.]+)" height="12.0" class="s0"', svg)] == [110, 330, 0]
    assert {"25 %", "75 %", "not measured"} <= set(ticks(svg))
    assert rows.get_alt_text() == "data 25 %, rest 75 %, none not measured"


def test_in_words() -> None:
    line = LinePlot("Loss", [Series("train", [2.0, 3.0, 1.0], [0, 5, 10])], "step", "loss", marks=[("limit", 2.5)])
    assert line.get_alt_text() == "train from 2 at step 0 to 1 at 10, between 1 and 3; limit at 2.5"
    assert BarPlot("x", ["a", "b"], [Series("n", [1.0, 2.0])], "c", "n").get_alt_text() == "n: a 1, b 2"
    many = BarPlot("x", [str(i) for i in range(30)], [Series("n", list(range(30)))], "c", "n")
    assert many.get_alt_text() == "n: 30 bars, the largest 29 with 29"


def test_thinning_keeps_peaks() -> None:
    values = [(float(x), 0.0) for x in range(100_000)]
    values[70_001] = (70_001.0, 9.0)
    values[30_003] = (30_003.0, -9.0)
    kept = reduce_points(values)
    assert len(kept) <= MOST_POINTS
    assert {-9.0, 9.0} <= {y for _, y in kept}
    assert kept == sorted(kept)


_PARTS: list[PagePart] = [
    BarPlot("k", ["k"], [Series("k", [1.0])], "k", "k", alt="k"),
    CommandList("k", [("k", "k")]),
    ConfusionMatrixPlot("k", ["k"], [[1.0]], "k", "k", alt="k"),
    Heading("k", "k"),
    HorizontalBarPlot("k", [("k", 1.0)], "k", alt="k"),
    ImageBlock("k", b"png", 10, "k", [("k", "#fff")]),
    KeyNumbers([("k", "k")], "k"),
    LinePlot("k", [Series("k", [1.0])], "k", "k", marks=[("k", 1.0)], alt="k", events=(PlotEvent("k", 1.0),)),
    PlotEvent("k", 1.0),
    ReportStep("k", "k", value="k", figure=Heading("k", "k"), page="k"),
    ScatterPlot("k", [1.0], [1.0], "k", "k", marks=[("k", 1.0)], alt="k"),
    Series("k", [1.0, math.nan], [0, 1]),
    TableBlock("k", ("k",), [("k",)], "k", marked=(0,)),
]


@pytest.mark.parametrize("part", _PARTS, ids=lambda part: type(part).__name__)
def test_secrets_are_masked_everywhere(part: PagePart) -> None:
    masked = part.mask_texts(lambda text: text.replace("k", "*"))
    assert "'k'" in repr(part)
    assert "'k'" not in repr(masked)
    assert repr(masked.mask_texts(lambda text: text.replace("*", "k"))) == repr(part.mask_texts(str))


def test_every_part_of_a_page_is_in_the_test_of_masks() -> None:
    assert {type(part) for part in _PARTS} == set(PagePart.__subclasses__())


def test_each_of_a_few_categories_has_its_label() -> None:
    names = ["Störung", "Wartung fällig", "in Ordnung"]
    svg = str(draw_plot(BarPlot("x", names, [Series("n", [1.0] * 3)], "class", "n")))
    assert ("Störung" in svg, "Wartung fäl…" in svg, "in Ordnung" in svg) == (True, True, True)
    two = str(draw_plot(BarPlot("x", ["original data", "held-out window"], [Series("n", [1.0] * 2)], "samples", "n")))
    assert ">held-out window<" in two
