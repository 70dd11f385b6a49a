"""Show a result in a notebook: the page of `mlscale.report.html`, with its style limited to the cell."""

from __future__ import annotations

import re

_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)
_BODY = re.compile(r"<main>(.*)</main>", re.DOTALL)
_ROOT = re.compile(r"(?m)^(\s*)(?::root|body)\b")


def extract_cell_html(page: str) -> str:
    """Return the part of a page for a notebook's cell. All texts of the page are escaped, so its only `<main>` is
    that of the template.

    Args:
        page: the HTML of `mlscale.report.html.render_page`.
    """
    style, body = _STYLE.search(page), _BODY.search(page)
    assert style is not None
    assert body is not None
    # Nested rules apply below the one that holds them: neither the notebook nor another cell is styled.
    scoped = _ROOT.sub(r"\1&", style[1])
    return f'<style>.mlscale-result {{{scoped}}}</style><div class="mlscale-result"><main>{body[1]}</main></div>'
