"""The page of a result: whole, escaped, readable, and nothing from elsewhere."""

import math
import re
from importlib.resources import files
from typing import Any

import pytest

from mlscale.report import (
    BarPlot,
    CommandList,
    HorizontalBarPlot,
    ImageBlock,
    KeyNumbers,
    LinePlot,
    ReportStep,
    Series,
    TableBlock,
)
from mlscale.report.curves import build_run_plots
from mlscale.report.html import render_page
from mlscale.report.svg import Axis
from tests.page_elements import Elements

EVIL = '<script>alert("x")</script>\'"&\x00\u202e'
PLOTS = (
    LinePlot(EVIL, [Series(EVIL, [1.0, math.nan, 2.0]), Series("b", [])], EVIL, EVIL, marks=[(EVIL, 3.0)]),
    BarPlot(EVIL, [EVIL, "b"], [Series(EVIL, [1.0, -2.0]), Series("now", [math.nan, 1.0])], EVIL, EVIL),
    HorizontalBarPlot(EVIL, [(EVIL, 1.0), ("b", math.nan)], EVIL),
)


def written(**changes: Any) -> str:
    given: dict[str, Any] = {
        "title": "train · resnet",
        "sentence": "resnet trained",
        "ok": True,
        "metrics": {"val/accuracy": 0.98, "time_s": 74.2, "peak_memory_bytes": 1 << 30, "lost": None},
        "artifacts": {"run": "/r"},
    }
    return render_page(**{**given, **changes})


def test_a_page_says_what_the_table_says() -> None:
    text = Elements(written(overrides=["+recipe=resnet", "name=a b"])).text()
    for shown in ("resnet trained", "val/accuracy", "0.98", "1 min 14 s", "1.0 GiB", "not measured", "/r", "✓ ok"):
        assert shown in text
    assert "mlscale train +recipe=resnet 'name=a b'" in text
    assert "mlscale evaluate last split=val" in written(title="evaluate · a", overrides=["ref=last", "split=val"])
    assert "✗ not met" in Elements(written(ok=False)).text()
    for title, word in (
        ("monitor-again · m:v1", "alert"),
        ("retrain · run-1", "not promoted"),
        ("export · a", "not met"),
    ):
        assert f"✗ {word}" in Elements(written(title=title, ok=False)).text()


def test_whatever_is_shown_is_escaped() -> None:
    table = TableBlock(EVIL, [EVIL] * 4, [[EVIL] * 4], EVIL, faint=[0])
    blocks = (
        KeyNumbers([(EVIL, EVIL)]),
        CommandList(EVIL, [(EVIL, EVIL)]),
        ImageBlock(EVIL, b"RIFF", 9, EVIL, [(EVIL, "#000000")]),
        table,
    )
    steps = [ReportStep(EVIL, EVIL, False, EVIL, 1.0, PLOTS[0], "javascript:alert(1)"), ReportStep("b", ok=None)]
    document = written(
        title=EVIL,
        sentence=EVIL,
        metrics={EVIL: 1.0},
        artifacts={EVIL: EVIL},
        figures=(*PLOTS, *blocks),
        steps=steps,
        overrides=[EVIL],
        facts={EVIL: EVIL},
    )
    elements = Elements(document)
    assert elements.all("script") == []
    assert not any(name.startswith("on") for _, attributes in elements.found for name in attributes)
    assert elements.all("a") == []  # a link with a scheme is no link
    assert "\x00" not in document
    assert "\u202e" not in document
    assert elements.text().count('<script>alert("x")</script>') >= 10


def test_nothing_is_loaded_from_elsewhere() -> None:
    elements = Elements(written(figures=PLOTS, steps=[ReportStep("a", page="runs/a b/results/train.html")]))
    assert {tag for tag, _ in elements.found} & {"link", "img", "iframe", "object", "script"} == set()
    assert not any({"src", "xlink:href"} & set(attributes) for _, attributes in elements.found)
    assert [link["href"] for link in elements.all("a")] == ["runs/a b/results/train.html"]
    policy = next(each["content"] for each in elements.all("meta") if "http-equiv" in each)
    assert policy is not None
    assert "default-src 'none'" in policy
    assert not re.search(r"url\(|@import", written())


@pytest.mark.parametrize("link", ["https://a/b", "//a/b", "/etc/passwd", "data:text/html,x", "a\\b", ""])
def test_links_stay_beside_the_page(link: str) -> None:
    assert Elements(written(steps=[ReportStep("a", page=link)])).all("a") == []


def test_a_plot_has_its_values() -> None:
    plot = LinePlot("Loss", [Series("train", [100.0, 1.0], [0, 7]), Series("val", [0.5], [7])], "step", "y")
    elements = Elements(written(figures=[plot]))
    hits = [attributes for attributes in elements.all("circle") if attributes.get("class") == "hit"]
    assert len(hits) == 3
    assert elements.text().count("train: 1, step 7") == 1


@pytest.mark.parametrize("low", [-1e99, -1.0, 0.0, 1e-99, 1.0, 1e99])
@pytest.mark.parametrize("high", [0.0, 1e-99, 1.0, 1 + 1e-12, 1e99])
def test_any_values_can_be_drawn(low: float, high: float) -> None:
    for points in ([low], [low, high], [high, low, high]):
        plots = build_run_plots({name: list(enumerate(points)) for name in ("train/loss", "train/samples_per_s")}, "")
        assert len(Elements(written(figures=plots)).all("figure")) == 2


def test_few_samples_are_grey_and_every_cell_knows_its_column() -> None:
    table = TableBlock("t", ["class", "n", "F1", "recall"], [["a *", "3", "1", "1"], ["b", "90", "1", "1"]], faint=[0])
    elements = Elements(written(figures=[table], metrics={}, artifacts={}))
    assert [row.get("class") for row in elements.all("tr")] == [None, "faint", None]
    assert [cell["data-name"] for cell in elements.all("td")] == ["n", "F1", "recall"] * 2
    assert "many" in str(elements.all("figure")[0]["class"])  # becomes a list on a narrow screen
    for row, is_many in ((("logger", "{}", "-"), False), (("x.py", "email", "a text " * 9), True)):
        (figure,) = Elements(written(figures=[TableBlock("t", ["", "a", "b"], [row])])).all("figure")
        assert ("many" in str(figure["class"])) == is_many


@pytest.mark.parametrize(("columns", "breaks"), [(3, 0), (8, 7)])
def test_numbers_break_before_their_intervals_only_in_a_table_wider_than_the_page(columns: int, breaks: int) -> None:
    row = ["a", *["12.3 % [1.2, 34.5]"] * 7]
    table = TableBlock("t", list("abcdefgh")[:columns], [row[:columns]])
    page = written(figures=[table], metrics={}, artifacts={})
    assert page.count("<wbr>") == breaks
    assert Elements(page).text().count("[1.2, 34.5]") == columns - 1


def test_ticks_of_large_values_fit_the_margin() -> None:
    axis = Axis([0.0, 930_000.0], 200, 20)
    assert [axis.format_tick(tick) for tick in axis.ticks] == ["0", "500 k", "1 M"]
    assert [axis.format_tick(value) for value in (50_000.0, -2.5e9, 1e99)] == ["50,000", "-2.5 G", "1e+99"]


def test_a_story_is_numbered_and_reports_what_was_not_reached() -> None:
    elements = Elements(
        written(steps=[ReportStep("prepare", "1,797 samples", True, "1,797", 1.2), ReportStep("train", ok=None)])
    )
    assert len(elements.all("ol")) == 1
    text = elements.text()
    assert "1.2 s" in text
    assert "– not reached" in text


def test_for_those_who_do_not_see_it() -> None:
    elements = Elements(written(figures=PLOTS))
    assert elements.all("html") == [{"lang": "en"}]
    plots = [svg for svg in elements.all("svg") if "aria-hidden" not in svg]
    assert len(plots) == len(PLOTS)
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in plots)
    assert all(cell.get("scope") in ("col", "row") for cell in elements.all("th"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(scheme: str) -> None:
    """WCAG 2.2: 4.5 to 1 for text, 3 to 1 for what a plot is made of."""
    style = (files("mlscale.report") / "page.html").read_text()
    palettes = [
        dict(re.findall(r"--([a-z0-9]+): (#[0-9a-f]{3,6})", block)) for block in re.findall(r":root \{[^}]*\}", style)
    ]
    colours = palettes[0] if scheme == "light" else {**palettes[0], **palettes[1]}
    for ground in (colours["page"], colours["paper"]):
        assert all(_contrast(colours[name], ground) >= 4.5 for name in ("ink", "quiet", "good", "bad", "s0"))
        assert all(_contrast(colours[f"s{index}"], ground) >= 3 for index in range(4))


def _contrast(one: str, other: str) -> float:
    brighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
