"""Guesses the mapping of a log from its columns, as a YAML file with comments, for a person to check."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlscale.errors import MLScaleError
from mlscale.events.foreign.column_names import NAMES, list_simple_names, simplify_name
from mlscale.events.foreign.field_path import AbsentFieldError, find_value
from mlscale.events.foreign.guess_by_values import LogColumns, guess_by_values, is_share_text
from mlscale.events.foreign.guessed_entries import format_entries, quote_text
from mlscale.events.foreign.log_files import iterate_records

_SHORTEST = 4  # letters of a name of which a part is compared
# Paths that are not told by their last name: of SageMaker, KServe and MLServer.
_SPECIAL = {
    "prediction": ("endpointOutput.data", "outputs.0.data.0", "predictions.0"),
    "label": ("groundTruthData.data",),
}
_POSITIONAL = "endpointInput.data"  # of SageMaker: the inputs as a line of CSV


@dataclass(frozen=True)
class GuessedMapping:
    """A mapping that was guessed.

    Attributes:
        text: of the YAML file.
        missing: keys that a person has to fill in: '???' in the text.
    """

    text: str
    missing: tuple[str, ...]


def guess_mapping(file: Path, inputs: Sequence[str], labels: Sequence[str] = (), version: str = "") -> GuessedMapping:
    """Return a mapping.

    Args:
        file: of a log.
        inputs: names of the model's inputs, in its order.
        labels: names of its classes, by which columns of results are recognised, whatever they are called.
        version: of the model that is monitored, such as resnet:v7; '' where it is not known.

    Raises:
        MLScaleError: the file has no record that can be read.
    """
    batch = next(iter(iterate_records(file)), None)
    records = [record for record in (batch.records if batch else ()) if record is not None]
    if not records:
        raise MLScaleError(f"{file.name} has no records", where=f"events={file}", fix="events=<a file with rows>")
    columns = LogColumns.collect(records)
    firsts = {path: next(iter(values), None) for path, values in columns.values.items()}
    # Inputs first: a column that the model takes is not the label, whatever it is called.
    taken = dict(_match_inputs(firsts, inputs))
    free = [path for path in firsts if path not in taken.values()]
    guesses = {key: _find_path(key, free) for key in NAMES}
    paths = {key: path for key, path in guesses.items() if path is not None}
    rest = {path for path in free if path not in paths.values()}
    paths = guess_by_values(columns, rest, labels) | paths
    # A text with a share of each class is no class.
    if (predicted := paths.get("prediction")) is not None and is_share_text(firsts[predicted], labels):
        paths["probabilities"] = paths.pop("prediction")
    paths = _merge_shares(paths, records[0], labels)
    entries = format_entries(paths, columns, labels, version)
    lines = [
        f"# How the columns of {file.name} are read as events: guessed from its first rows, so check each line.",
        "# An entry is a column, a dotted path into JSON, {field: …, scale: …, values: {…}} or {constant: …}.",
        *entries.values(),
        *_format_inputs(taken, inputs),
        *_format_rest(firsts, {*paths.values(), *taken.values()}),
    ]
    return GuessedMapping("\n".join(lines) + "\n", tuple(key for key, line in entries.items() if "???" in line))


def _merge_shares(paths: dict[str, str], record: Mapping[str, Any], labels: Sequence[str]) -> dict[str, str]:
    """Return the paths with that of a list of probabilities instead of its first one: `scores`, not `scores.0`."""
    for key in ("probabilities", "prediction", "confidence"):
        whole, _, index = paths.get(key, "").rpartition(".")
        try:
            shares = find_value(record, whole) if whole and index == "0" else None
        except AbsentFieldError:
            continue
        if shares is not None and is_share_text(shares, labels):
            others = {name: path for name, path in paths.items() if path != paths[key]}
            return others | {"probabilities": whole}
    return paths


def _find_path(key: str, paths: Sequence[str]) -> str | None:
    for ending in _SPECIAL.get(key, ()):
        for path in paths:
            if path == ending or path.endswith(f".{ending}"):
                return path
    # By the likelihood of the name, not by the order of the columns.
    for name in NAMES[key]:
        for path in paths:
            if name in list_simple_names(path):
                return path
    return None


def _match_inputs(values: Mapping[str, Any], inputs: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each input of the model with the path that has its name, or its place."""
    by_name: dict[str, str] = {}
    for path in values:
        by_name.setdefault(simplify_name(path), path)
    # Of the V2 protocol: a list of tensors with their names.
    for path, value in values.items():
        if path.endswith(".name") and f"{path.removesuffix('.name')}.data.0" in values:
            by_name[simplify_name(str(value))] = f"{path.removesuffix('.name')}.data.0"
    line = next((path for path in values if path.endswith(_POSITIONAL)), None)
    is_line = line is not None and len(str(values[line]).split(",")) == len(inputs)
    for number, name in enumerate(inputs):
        known = by_name.get(simplify_name(name)) or _find_partial_name(simplify_name(name), by_name)
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


def _format_inputs(taken: Mapping[str, str], inputs: Sequence[str]) -> Iterator[str]:
    if inputs:
        yield "inputs:"
    for name in inputs:
        known = taken.get(name)
        yield f"  {quote_text(name)}: {quote_text(known)}" if known else f"  # {quote_text(name)}: <column>"


def _format_rest(paths: Iterable[str], used: Collection[str]) -> Iterator[str]:
    # The values of a list are used with it.
    if rest := [path for path in paths if path not in used and path.rpartition(".")[0] not in used]:
        yield f"# not used: {', '.join(rest[:50])}"
