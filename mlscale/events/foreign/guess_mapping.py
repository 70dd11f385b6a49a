"""Writes a mapping of a log by the names of its columns, as a YAML file with comments, for a person to check."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlscale.errors import MLScaleError
from mlscale.events.foreign.field_path import list_paths
from mlscale.events.foreign.log_files import iterate_records

# Names without case and punctuation, the likeliest first.
_NAMES: Mapping[str, Sequence[str]] = {
    "time": ("timestamp", "time", "ts", "datetime", "eventtime", "inferencetime", "requesttime", "createdat", "cetime"),
    "prediction": ("prediction", "predictedlabel", "predictedclass", "predicted", "pred", "ypred", "output", "result"),
    "confidence": ("confidence", "score", "probability", "proba", "prob"),
    "label": ("label", "actual", "groundtruth", "truth", "ytrue", "truelabel", "target", "y"),
    "id": ("id", "eventid", "requestid", "inferenceid", "predictionid", "uuid", "ceid"),
    "version": ("modelversion", "version"),
    "outcome": ("outcome", "status", "statuscode", "httpstatus"),
    "latency": ("latencyms", "latency", "durationms", "duration", "elapsedms", "tookms"),
}
_LINES = {
    "time": "time: {}   # ISO 8601, or a number since 1970; else {{field: {}, format: '%d.%m.%Y %H:%M:%S', zone: UTC}}",
    "prediction": "prediction: {}   # a class or a number; else {{field: {}, values: {{'1': spam}}}}",
    "confidence": "confidence: {}   # 0 to 1; percents are {{field: {}, scale: 0.01}}; or probabilities: <a list>",
    "label": "label: {}   # without labels drift alone is monitored",
    "id": "id: {}   # by which labels that come later are joined",
    "version": "# version: {{field: {}, values: {{'3': resnet:v3}}}}   # all rows are of the monitored version",
    "outcome": "# outcome: {{field: {}, ok: ['200'], rejected: ['400'], failed: ['500']}}",
    "latency": "latency: {{field: {}, unit: ms}}",
}
"""The line of each key. What would make rows unreadable where it does not fit the values is a comment."""
_SHOWN = 50  # columns and letters of a value


@dataclass(frozen=True)
class GuessedMapping:
    """A mapping that was guessed.

    Attributes:
        text: of the YAML file.
        missing: keys that a person has to fill in: '???' in the text.
    """

    text: str
    missing: tuple[str, ...]


def guess_mapping(file: Path, inputs: Sequence[str]) -> GuessedMapping:
    """Return a mapping.

    Args:
        file: of a log.
        inputs: names of the model's inputs, in its order.

    Raises:
        MLScaleError: the file has no record that can be read.
    """
    batch = next(iter(iterate_records(file)), None)
    first = next((record for record in (batch.records if batch else ()) if record is not None), None)
    if first is None:
        raise MLScaleError(f"{file.name} has no records", where=f"events={file}", fix="events=<a file with rows>")
    values = dict(list_paths(first))
    # Inputs first: a column that the model takes is not the label, whatever it is called.
    by_name = {_simplify_name(path): path for path in reversed(values)}
    taken = {name: by_name[_simplify_name(name)] for name in inputs if _simplify_name(name) in by_name}
    free = {name: path for name, path in by_name.items() if path not in taken.values()}
    matches = {key: next((free[name] for name in names if name in free), None) for key, names in _NAMES.items()}
    lines = [
        f"# How the columns of {file.name} are read as events: guessed from their names, so check each line.",
        "# An entry is a column, a dotted path into JSON, {field: …, scale: …, values: {…}} or {constant: …}.",
    ]
    for key, path in matches.items():
        line = _LINES[key].format(*[_quote_text(path) if path else "???"] * 2)
        is_needed = path is not None or key in ("time", "prediction")
        lines.append(line if is_needed or line.startswith("#") else f"# {line}".replace("???", "<column>"))
    if inputs:
        lines.append("inputs:")
    for name in inputs:
        quoted = _quote_text(name)
        lines.append(f"  {quoted}: {_quote_text(taken[name])}" if name in taken else f"  # {quoted}: <column>")
    if rest := [path for path in values if path not in (*taken.values(), *matches.values())]:
        lines.append("# not used, with the value of the first row:")
        lines += [f"#   {path}: {str(values[path])[:_SHOWN]!r}" for path in rest[:_SHOWN]]
    return GuessedMapping("\n".join(lines) + "\n", tuple(key for key in ("time", "prediction") if not matches[key]))


def _simplify_name(path: str) -> str:
    """Return the last name of a path, without case and punctuation: `instances.0.Age` is `age`."""
    names = [part for part in path.split(".") if not part.lstrip("-").isdigit()]
    return re.sub(r"[\W_]", "", names[-1].lower()) if names else ""


def _quote_text(text: str) -> str:
    """Return a text as YAML: in quotes unless it is a plain name."""
    is_plain = re.fullmatch(r"[A-Za-z_][\w.-]*", text) and text.lower() not in (
        "null", "true", "false", "yes", "no", "on", "off", "y", "n",
    )  # fmt: skip
    return text if is_plain else "'" + text.replace("'", "''") + "'"
