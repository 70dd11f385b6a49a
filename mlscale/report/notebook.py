"""A result inside a notebook: the page of `mlscale.report.html`, its style kept to itself."""

from __future__ import annotations

import re

_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)
_BODY = re.compile(r"<main>(.*)</main>", re.DOTALL)
_ROOT = re.compile(r"(?m)^(\s*)(?::root|body)\b")


def fragment(page: str) -> str:
    """What of a page stands in a cell. The page is of our own template; whatever it shows is escaped there, so that
    `<main>` is the template's.

    Args:
        page: as `mlscale.report.html.page` makes it.
    """
    style, body = _STYLE.search(page), _BODY.search(page)
    assert style is not None
    assert body is not None
    # Nested rules apply below the one that holds them: neither the notebook nor another cell is styled.
    scoped = _ROOT.sub(r"\1&", style[1])
    return f'<style>.mlscale-result {{{scoped}}}</style><div class="mlscale-result"><main>{body[1]}</main></div>'
