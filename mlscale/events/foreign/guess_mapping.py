"""Guesses the mapping of a log from its columns, as a YAML file with comments, for a person to check."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlscale.errors import MLScaleError
from mlscale.events.foreign.field_path import list_paths
from mlscale.events.foreign.guess_by_values import guess_by_values, is_share_text
from mlscale.events.foreign.log_files import iterate_records
from mlscale.events.foreign.time_parser import TimeParser

_SHORTEST = 4  # letters of a name of which a part is compared
_SAMPLE = 50  # records that are looked at
# What servers call it: names without case and punctuation, the likeliest first.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "time": (
        "timestamp", "time", "ts", "datetime", "eventtime", "inferencetime", "requesttime", "predictiontime",
        "createdat", "loggedat", "date",
    ),
    "id": ("id", "eventid", "requestid", "inferenceid", "predictionid", "transactionid", "uuid", "ceid", "rowid"),
    "version": ("modelversion", "version", "modelid"),
    "prediction": (
        "prediction", "predicted", "predictedlabel", "predictedclass", "predictionlabel", "pred", "ypred", "yhat",
        "output", "response", "predictions", "result",
    ),
    "confidence": ("confidence", "score", "probability", "proba", "prob", "predictionscore"),
    "probabilities": ("probabilities", "probas", "scores", "classprobabilities"),
    "label": ("label", "actual", "actuallabel", "groundtruth", "truth", "ytrue", "target", "y"),
    "latency": (
        "latencyms", "latency", "latencys", "durationms", "duration", "elapsedms", "elapsed", "tookms", "took",
        "responsetimems",
    ),
    "outcome": ("outcome", "status", "statuscode", "httpstatus"),
}  # fmt: skip
# Paths that are not told by their last name: of SageMaker, KServe and MLServer.
_SPECIAL = {
    "prediction": ("endpointOutput.data", "outputs.0.data.0", "predictions.0"),
    "label": ("groundTruthData.data",),
}
_POSITIONAL = "endpointInput.data"  # of SageMaker: the inputs as a line of CSV


def guess_mapping(file: Path, inputs: Sequence[str], labels: Sequence[str] = ()) -> str:
    """Return the text of a mapping.

    Args:
        file: of a log.
        inputs: names of the model's inputs, in its order.
        labels: names of its classes, by which columns of results are recognised, whatever they are called.

    Raises:
        MLScaleError: the file has no record that can be read.
    """
    batch = next(iter(iterate_records(file)), None)
    records = [record for record in (batch.records[:_SAMPLE] if batch else ()) if record is not None]
    if not records:
        raise MLScaleError(f"{file.name} has no records", where=f"events={file}", fix="events=<a file with rows>")
    values: dict[str, Any] = {}
    for record in records:
        for path, value in list_paths(record):
            if values.get(path) in (None, ""):
                values[path] = value
    # Inputs first: a column that the model takes is not the label, whatever it is called.
    columns = dict(_match_inputs(values, inputs))
    free = {path: value for path, value in values.items() if path not in columns.values()}
    guesses = {key: _find_path(key, free) for key in _NAMES}
    paths = {key: path for key, path in guesses.items() if path is not None}
    rest = {path for path in free if path not in paths.values()}
    paths = guess_by_values(records, rest, labels) | paths
    # A text with a share of each class is no class.
    if (predicted := paths.get("prediction")) is not None and is_share_text(values[predicted], labels):
        paths["probabilities"] = paths.pop("prediction")
    return "\n".join(_format_lines(file, paths, columns, values, inputs)) + "\n"


def _find_path(key: str, values: Mapping[str, Any]) -> str | None:
    for ending in _SPECIAL.get(key, ()):
        for path in values:
            if path == ending or path.endswith(f".{ending}"):
                return path
    # By the likelihood of the name, not by the order of the columns.
    for name in _NAMES[key]:
        for path in values:
            if _simplify_name(path) == name:
                return path
    return None


def _match_inputs(values: Mapping[str, Any], inputs: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each input of the model with the path that has its name, or its place."""
    by_name: dict[str, str] = {}
    for path in values:
        by_name.setdefault(_simplify_name(path), path)
    # Of the V2 protocol: a list of tensors with their names.
    for path, value in values.items():
        if path.endswith(".name") and f"{path.removesuffix('.name')}.data.0" in values:
            by_name[_simplify_name(str(value))] = f"{path.removesuffix('.name')}.data.0"
    line = next((path for path in values if path.endswith(_POSITIONAL)), None)
    is_line = line is not None and len(str(values[line]).split(",")) == len(inputs)
    for number, name in enumerate(inputs):
        known = by_name.get(_simplify_name(name)) or _find_partial_name(_simplify_name(name), by_name)
        if known is not None:
            yield name, known
        elif is_line:
            yield name, f"{line}.{number}"


def _find_partial_name(name: str, by_name: Mapping[str, str]) -> str | None:
    """Return the path of the only column whose name begins as `name` does, up to a unit: `vibration_mm_s`."""
    candidates = [
        path
        for other, path in by_name.items()
        if min(len(name), len(other)) >= _SHORTEST and (name.startswith(other) or other.startswith(name))
    ]
    return candidates[0] if len(candidates) == 1 else None


def _simplify_name(path: str) -> str:
    """Return the last name of a path, without case and punctuation: `instances.0.Age` is `age`."""
    names = [part for part in path.split(".") if not part.lstrip("-").isdigit()]
    return re.sub(r"[^a-z0-9]", "", names[-1].lower()) if names else ""


def _format_lines(
    file: Path, paths: Mapping[str, str], columns: Mapping[str, str], values: Mapping[str, Any], inputs: Sequence[str]
) -> Iterator[str]:
    yield f"# How the columns of {file.name} are read as events: guessed from its first rows, so check each line."
    yield "# An entry is a column, a dotted path into JSON, {field: …, scale: …, values: {…}} or {constant: …}."
    yield f"time: {_format_time(paths.get('time'), values)}"
    for key, missing in (
        ("prediction", "prediction: ???   # a class by name or number, or a number"),
        ("confidence", "# confidence: <column>"),
        ("label", "# label: <column>   # without labels drift alone is monitored"),
        ("id", "# id: <column>   # by which labels that come later are joined"),
        ("version", "# version: {field: <column>, values: {'3': resnet:v3}}   # all rows are of the monitored version"),
        ("outcome", "# outcome: {field: <column>, ok: ['200'], rejected: ['400'], failed: ['500']}"),
    ):
        path = paths.get(key)
        # One column is enough of the two.
        if key == "prediction" and path is None and "probabilities" in paths:
            path, key = paths["probabilities"], "probabilities"
        yield f"{key}: {_quote_path(path)}" if path else missing
    latency = paths.get("latency")
    unit = "s" if latency and _simplify_name(latency) in ("latencys", "elapsed") else "ms"
    yield (
        f"latency: {{field: {_quote_path(latency)}, unit: {unit}}}"
        if latency
        else "# latency: {field: <column>, unit: ms}"
    )
    if inputs:
        yield "inputs:"
    for name in inputs:
        known = columns.get(name)
        yield f"  {_quote_path(name)}: {_quote_path(known)}" if known else f"  # {_quote_path(name)}: <column>"
    used = {*paths.values(), *columns.values()}
    if rest := [path for path in values if path not in used]:
        yield f"# not used: {', '.join(rest[:50])}"


def _format_time(path: str | None, values: Mapping[str, Any]) -> str:
    if path is None:
        return "???   # a column with the time of the prediction"
    try:
        TimeParser().parse_time(values[path])
    except ValueError:
        form = "format: '%d.%m.%Y %H:%M:%S', zone: UTC"
        return f"{{field: {_quote_path(path)}, {form}}}   # such as {str(values[path])[:40]!r}"
    return _quote_path(path)


def _quote_path(text: str | None) -> str:
    """Return a text as YAML: in quotes unless it is a plain name."""
    plain = (
        text is not None
        and re.fullmatch(r"[A-Za-z_][\w.-]*", text)
        and text.lower() not in ("null", "true", "false", "yes", "no", "on", "off", "y", "n")
    )
    return str(text) if plain else "'" + str(text).replace("'", "''") + "'"
