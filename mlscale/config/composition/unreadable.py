"""Overrides that Hydra's grammar can't read: an odd character, a bracket that is not closed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mlscale.config.checks.interpolations import INTERPOLATION, can_interpolate
from mlscale.config.names.suggest import find_nearest, format_override
from mlscale.errors import MLScaleError

_PAIRS = {"[": "]", "{": "}", "(": ")"}
_ODD_IN_KEY = re.compile(r"[^\w./@$:+~-]|[^\x00-\x7f]")
_ODD_IN_OPTION = re.compile(r"[^\w./,\[\] -]|[^\x00-\x7f]")


def explain_unreadable(word: str, groups: Mapping[str, Sequence[str]]) -> MLScaleError | None:
    """Return the problem of an override in Hydra's form; None if Hydra can read it."""
    key, sign, value = word.lstrip("+").partition("=")
    value = value.strip("'")  # quoted as what Hydra can't read
    if _can_be_read(word):
        return _check_interpolation(key, value) if "${" in value else None
    # The key alone is tried with a harmless value, to find which side of the `=` is wrong.
    odd_key = bool(_ODD_IN_KEY.search(key)) or not _can_be_read(f"{key}=1" if sign else key)
    fix = ""
    if odd_key:
        why = "a list is set as a whole: key=[1,2]"
        if "[" not in key:
            why = _explain_reason(key, _ODD_IN_KEY, "a key is names with dots between")
    else:
        why = _explain_reason(value, _ODD_IN_OPTION)
        names = re.findall(r"[\w-]+", _ODD_IN_OPTION.sub("", value))
        known = [option for name in names if (option := find_nearest(name, groups.get(key, ())))]
        if known and len(known) == len(names):
            fix = f"{key}=[{','.join(known)}]" if "[" in value else f"{key}={','.join(known)}"
    return MLScaleError(f"'{key}{sign}{value}' can't be read", where="command line", why=why, fix=fix)


def _check_interpolation(key: str, value: str) -> MLScaleError | None:
    """Return the problem of an interpolation that OmegaConf can't read."""
    if can_interpolate(value):
        return None
    # The usual mistake is a missing brace at the end.
    closed = value + "}" * (value.count("${") - value.count("}"))
    fix = format_override(key, closed if can_interpolate(closed) else "${key.path}")
    return MLScaleError(f"'{key}={value}' can't be read", where="command line", why=INTERPOLATION, fix=fix)


def _can_be_read(word: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return True


def _explain_reason(
    text: str, odd: re.Pattern[str], otherwise: str = "it is neither a name nor a list of names"
) -> str:
    """Return the reason: an unpaired bracket comes first, since brackets are characters that options may have."""
    for opening, closing in _PAIRS.items():
        more = text.count(opening) - text.count(closing)
        if more:
            return f"'{opening if more > 0 else closing}' has no '{closing if more > 0 else opening}'"
    if character := odd.search(text):
        return f"'{character[0]}' can't be in a name"
    return otherwise
