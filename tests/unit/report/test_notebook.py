"""A result in a notebook's cell: the page, and a style that stays in it."""

import re

from mlscale.report import Result


def test_the_page_stands_in_the_cell_and_styles_nothing_else() -> None:
    result = Result("train", True, "done <script>alert(1)</script>", {"time_s": 3.0}, {"run": "runs/x"})
    html = result._repr_html_()
    style, body = re.fullmatch(r"<style>\.mlscale-result \{(.*)\}</style>(<div.*</div>)", html, re.DOTALL).groups()  # type: ignore[union-attr]
    assert style.count("{") == style.count("}")
    assert not re.search(r"(?m)^\s*(:root|body|html)\b", style)
    assert "<script" not in body
    assert "done &lt;script&gt;" in body
    assert "3.0 s" in body
    assert "<title" not in html


def test_ipython_on_a_terminal_gets_the_table() -> None:
    class Printer:
        printed = ""

        def text(self, text: str) -> None:
            self.printed += text

    printer, result = Printer(), Result("train", True, "done", {"time_s": 3.0})
    result._repr_pretty_(printer, False)
    assert printer.printed == result.format_text()
