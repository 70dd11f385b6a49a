"""The page of a result: whole, escaped, readable, and nothing from elsewhere."""

import math
import re
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any

import pytest

from mlscale.report import BarPlot, HorizontalBarPlot, LinePlot, ReportStep, Series
from mlscale.report.html import render_page

EVIL = '<script>alert("x")</script>\'"&\x00\u202e'
PLOTS = (
    LinePlot(EVIL, [Series(EVIL, [1.0, math.nan, 2.0]), Series("b", [])], EVIL, EVIL, marks=[(EVIL, 3.0)]),
    BarPlot(EVIL, [EVIL, "b"], [Series(EVIL, [1.0, -2.0]), Series("now", [math.nan, 1.0])], EVIL, EVIL),
    HorizontalBarPlot(EVIL, [(EVIL, 1.0), ("b", math.nan)], EVIL),
)
_VOID = ("meta", "img", "input")


class Elements(HTMLParser):
    """Every element with its attributes and its text; fails where tags are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open[-1] if self._open else "", data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]

    def text(self) -> str:
        return " ".join(data for tag, data in self.texts if tag != "style")


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
    text = Elements(written(overrides=["+recipe=resnet"])).text()
    for shown in ("resnet trained", "val/accuracy", "0.98", "1 min 14 s", "1.0 GiB", "not measured", "/r", "✓ ok"):
        assert shown in text
    assert "+recipe=resnet" in text
    assert "✗ not met" in Elements(written(ok=False)).text()
    for title, word in (
        ("monitor-again · m:v1", "alert"),
        ("retrain · run-1", "not promoted"),
        ("export · a", "not met"),
    ):
        assert f"✗ {word}" in Elements(written(title=title, ok=False)).text()


def test_whatever_is_shown_is_escaped() -> None:
    steps = [ReportStep(EVIL, EVIL, False, EVIL, 1.0, PLOTS[0], "javascript:alert(1)"), ReportStep("b", ok=None)]
    document = written(
        title=EVIL,
        sentence=EVIL,
        metrics={EVIL: 1.0},
        artifacts={EVIL: EVIL},
        figures=PLOTS,
        steps=steps,
        overrides=[EVIL],
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


def test_a_story_is_numbered_and_tells_what_was_not_reached() -> None:
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
