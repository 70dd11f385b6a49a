"""What was meant by a name that isn't valid, and the override that says it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mlscale.config.aliases import ALIASES, Alias

_CUTOFF = 0.6  # finds every single-edit typo of names of three letters and more
_PLAIN = re.compile(r"[\w./:@+*?\-%]+(?: [\w./:@+*?\-%]+)*")
_SHELL = re.compile(r"[\s$&;|<>()#*?`{}!\\]")
_SPECIAL = re.compile(r"(?i)true|false|null|none|nan|inf|[+-]?[\d._]+(?:e[+-]?\d+)?|.*: .*")


@dataclass(frozen=True)
class Advice:
    """The override to type, and why it differs from what was typed; either may be empty."""

    fix: str
    why: str = ""


@dataclass(frozen=True)
class Names:
    """What may be set in this config: full key paths, groups with their options, and processes × accumulation."""

    paths: Collection[str]
    groups: Mapping[str, Sequence[str]]
    batches: int = 1


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` that was most likely meant, or None. Case, `-` and `_` don't count."""
    plain = {_plain(item): item for item in names}
    best = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=_CUTOFF)
    return plain[best[0]] if best else None


def advise(path: str, value: object, names: Names) -> Advice | None:
    """What to type in place of the unknown `path`: a foreign name's meaning, the same elsewhere, or the nearest."""
    head, _, last = path.rpartition(".")
    alias = ALIASES.get(path) or ALIASES.get(last)
    if alias is not None:
        fix = render(alias, value, names)
        if fix or alias.note:
            return Advice(fix, alias.note)
    if option := _option(path, value, names.groups):
        return Advice(option)
    siblings = [item.rpartition(".")[2] for item in names.paths if item.rpartition(".")[0] == head]
    elsewhere = sorted(
        (item for item in names.paths if item.rpartition(".")[2] == last), key=lambda item: item.count(".")
    )
    close = nearest(last, siblings) or _with_the_word(last, siblings)
    better = (
        _join(head, close)
        if close
        else elsewhere[0]
        if elsewhere
        else _elsewhere(path, names.paths, siblings if head else ())
    )
    return Advice(override(better, value)) if better else None


def _with_the_word(word: str, names: Sequence[str]) -> str | None:
    """The only one of `names` that has `word` among its words: `tracking_uri` for `uri`."""
    having = [name for name in names if word in name.split("_")]
    return having[0] if len(having) == 1 else None


def render(alias: Alias, value: object, names: Names) -> str:
    """The overrides that say in this config what `alias` and the value mean; "" where there are none."""
    text = show(value)
    if text.lower() in alias.values:
        return alias.values[text.lower()]
    options = names.groups.get(alias.group, ())
    if options and isinstance(value, str) and (option := nearest(value, options)):
        # Callbacks are added to the usual ones; of every other group one option takes the place of another.
        added = alias.group == "callbacks" and option not in ("default", "none")
        return f"{alias.group}=[default,{option}]" if added else f"{alias.group}={option}"
    for key in alias.keys:
        if key in names.paths:
            return override(key, value) + (f" {alias.also}" if alias.also else "")
    if template := _template(alias, text):
        count = value * names.batches if isinstance(value, int) else f"<{text} × {names.batches}>"
        return template.format(value=text, list=text if isinstance(value, list) else f"[{text}]", global_batch=count)
    return f"{alias.group}=<{'|'.join(options)}>" if options else ""


def _template(alias: Alias, text: str) -> str:
    return alias.name if alias.name and "." not in text and "/" not in text else alias.text


def _option(path: str, value: object, groups: Mapping[str, Sequence[str]]) -> str | None:
    """A group that was misspelt: `optmizer=adamw` → `optimizer=adamw`."""
    group = nearest(path, groups) if isinstance(value, str) and "." not in path else None
    option = nearest(str(value), groups[group]) if group else None
    return f"{group}={option}" if option else None


def _elsewhere(path: str, paths: Collection[str], siblings: Collection[str]) -> str | None:
    """The nearest full path, else the nearest last part: `optimiser.lr` → `optimizer.lr`, `lrr` → `optimizer.lr`.

    None where the front part is right: `model.depth` is not nearly `model.widths`.
    """
    if siblings:
        return None
    if close := nearest(path, paths):
        return close
    last: dict[str, str] = {}
    for item in sorted(paths, key=lambda item: item.count(".")):
        last.setdefault(item.rpartition(".")[2], item)
    close = nearest(path.rpartition(".")[2], last)
    return last[close] if close else None


def override(path: str, value: object) -> str:
    """`key=value` as it is typed in a shell."""
    text = f"{path}={show(value)}"
    if "'" in text:
        return '"' + re.sub(r'([$`"\\])', r"\\\1", text) + '"'
    return f"'{text}'" if _SHELL.search(text) else text


def show(value: object) -> str:
    """A value in Hydra's grammar. What is not plain stands in quotes."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ",".join(show(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{show(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str) and not value.startswith("${"):
        quoted = not _PLAIN.fullmatch(value) or bool(_SPECIAL.fullmatch(value))
        return "'" + value.replace("'", "\\'") + "'" if quoted else value
    return str(value)


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def _join(head: str, last: str) -> str:
    return f"{head}.{last}" if head else last
