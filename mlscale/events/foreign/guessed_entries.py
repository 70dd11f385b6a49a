"""The lines of a guessed mapping: entries with what their values need: a format, a scale, or names of classes."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from mlscale.events.foreign.column_names import find_unit, simplify_name
from mlscale.events.foreign.event_mapping import LATENCY_UNITS, OUTCOMES
from mlscale.events.foreign.guess_by_values import LogColumns
from mlscale.events.foreign.number_text import parse_number_text
from mlscale.events.foreign.time_parser import find_time_format

_MOST_VALUES = 20  # of a column of classes or outcomes; one with more is another thing
_ABSENT = {
    "time": "time: ???   # a column with the time of the prediction",
    "prediction": "prediction: ???   # a class by name or number, or a number",
    "confidence": "# confidence: <column>",
    "label": "# label: <column>   # without labels drift alone is monitored",
    "id": "# id: <column>   # by which labels that come later are joined",
    "version": "# version: {field: <column>, values: {'3': resnet:v3}}   # all rows are of the monitored version",
    "outcome": "# outcome: {field: <column>, ok: ['200'], rejected: ['400'], failed: ['500']}",
    "latency": "# latency: {field: <column>, unit: ms}",
}
# Words of a status that leave no doubt.
_OUTCOME_WORDS = {
    "ok": ("ok", "okay", "success", "succeeded", "successful", "done", "erfolg", "erfolgreich"),
    "rejected": ("rejected", "denied", "invalid", "abgelehnt", "ungültig"),
    "failed": ("failed", "failure", "error", "timeout", "fehler", "fehlgeschlagen"),
}


def format_entries(
    paths: Mapping[str, str], columns: LogColumns, labels: Sequence[str], version: str
) -> dict[str, str]:
    """Return the line of each entry by its key; comments for what was not found.

    Args:
        paths: of what was found.
        columns: of the log.
        labels: names of the model's classes.
        version: that is monitored; '' where it is not known.
    """
    lines = dict(_ABSENT)
    for key, path in paths.items():
        values = columns.values.get(path, ())
        if key == "time":
            lines[key] = _format_time(path, values)
        elif key in ("prediction", "label"):
            lines[key] = f"{key}: {_format_class(path, values, labels)}"
        elif key == "version":
            lines[key] = _format_version(path, values, version)
        elif key == "outcome":
            lines[key] = _format_outcome(path, values)
        elif key == "latency":
            lines[key] = f"latency: {{field: {quote_text(path)}, unit: {_choose_latency_unit(path)}}}"
        else:
            lines[key] = f"{key}: {_format_share(path, values) if key == 'confidence' else quote_text(path)}"
    # One of the two is enough.
    if "probabilities" in paths and "prediction" not in paths:
        del lines["prediction"]
    return lines


def quote_text(text: str | None) -> str:
    """Return a text as YAML: in quotes unless it is a plain name."""
    plain = (
        text is not None
        and re.fullmatch(r"[A-Za-z_][\w.-]*", text)
        and text.lower() not in ("null", "true", "false", "yes", "no", "on", "off", "y", "n")
    )
    return str(text) if plain else "'" + str(text).replace("'", "''") + "'"


def _format_time(path: str, values: Collection[object]) -> str:
    form = find_time_format(values)
    if form == "auto":
        return f"time: {quote_text(path)}"
    first = str(next(iter(values), ""))[:40]
    return f"time: {{field: {quote_text(path)}, format: '{form or '???'}', zone: UTC}}   # such as {first!r}"


def _format_class(path: str, values: Collection[object], labels: Sequence[str]) -> str:
    """Return a column of classes, with a place for the class of each value that is none."""
    texts = list(map(str, values))
    if not labels or len(texts) > _MOST_VALUES or {*texts} <= {*labels} or any(map(_is_number, texts)):
        return quote_text(path)
    # Many logs write classes in capitals; where two classes differ in nothing else, a person decides.
    by_case = {label.casefold(): label for label in labels}
    known = by_case if len(by_case) == len(labels) else {}
    classes = {text: text if text in labels else known.get(text.casefold(), "???") for text in sorted(texts)}
    names = ", ".join(f"{quote_text(text)}: {quote_text(label)}" for text, label in classes.items())
    return f"{{field: {quote_text(path)}, values: {{{names}}}}}   # the classes are: {', '.join(labels)}"


def _format_version(path: str, values: Collection[object], version: str) -> str:
    texts, number = sorted(map(str, values)), version.rpartition(":v")[2]
    if not version or {*texts} & {version, number, f"v{number}"}:
        return f"version: {quote_text(path)}"
    # One name for all rows is that of the model that is monitored; of several it is not known which.
    line = f"version: {{field: {quote_text(path)}, values: {{{quote_text(texts[0])}: {version}}}}}"
    return line if len(texts) == 1 else f"# {line}   # it has: {', '.join(texts[:_MOST_VALUES])}"


def _format_outcome(path: str, values: Collection[object]) -> str:
    """Return a column of outcomes with the meaning of each value; a comment where one is not known.

    A value without a meaning would make its rows unreadable.
    """
    texts = sorted(map(str, values))
    if all(text in OUTCOMES or re.fullmatch(r"[245]\d\d", text) for text in texts):
        return f"outcome: {quote_text(path)}"
    groups = {name: [text for text in texts if text.lower() in words] for name, words in _OUTCOME_WORDS.items()}
    if sum(map(len, groups.values())) == len(texts):
        known = ", ".join(f"{name}: [{', '.join(map(_quote_all, group))}]" for name, group in groups.items() if group)
        return f"outcome: {{field: {quote_text(path)}, {known}}}"
    has = ", ".join(texts[:_MOST_VALUES])
    return f"# outcome: {{field: {quote_text(path)}, ok: [<value>], failed: [<value>]}}   # it has: {has}"


def _format_share(path: str, values: Collection[object]) -> str:
    """Return a column of numbers from 0 to 1, with the scale of percents."""
    try:
        is_percent = max((parse_number_text(value) for value in values), default=0.0) > 1
    except ValueError:
        is_percent = False
    return f"{{field: {quote_text(path)}, scale: 0.01}}" if is_percent else quote_text(path)


def _choose_latency_unit(path: str) -> str:
    if (unit := find_unit(path)) in LATENCY_UNITS:
        return unit
    return "s" if simplify_name(path) in ("latencys", "elapsed") else "ms"


def _quote_all(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _is_number(text: str) -> bool:
    try:
        parse_number_text(text)
    except ValueError:
        return False
    return True
