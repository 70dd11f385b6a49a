"""Read a run's documents even if some are corrupted: rebuild what the other files of the folder still hold.

A disk or a copy that failed leaves files cut short or altered. What can't be recovered is reported, once for each file.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from mlscale.atomic_files import read_json
from mlscale.config.names.suggest import format_override
from mlscale.contracts import expect_format, get_format_tag
from mlscale.errors import MLScaleError
from mlscale.runs.identity import compute_config_hash, parse_start_time

RUN, MANIFEST, CONFIG, DERIVED = "run.json", "manifest.json", "config.yaml", "derived.yaml"
_RUN_KEYS: Mapping[str, type] = {
    "id": str, "name": str, "verb": str, "created": str, "config_hash": str, "overrides": list, "loggers": dict,
    "attempts": list,
}  # fmt: skip
_OTHER_RUN_KEYS = ("seed", "data_version", "order_version", "code", "parent", "sweep")
_MANIFEST_KEYS: Mapping[str, type | tuple[type, ...]] = {
    "status": str, "metrics": dict, "duration_s": (int, float), "artefacts": dict, "packages": dict, "hardware": dict,
}  # fmt: skip
_LOST = "overrides, attempts, ids of trackers, parent, initial weights and the proof of who created it"
_TRACES = (CONFIG, DERIVED, MANIFEST, "code.json", "checkpoints")  # files of a run that a sweep's folder does not have
_NO_PROCESS = (1 << 31) - 1  # beyond the largest process number


def read_run_document(folder: Path) -> dict[str, Any]:
    """Return run.json; where it is corrupted, a document rebuilt from the run's other files, which is reported.

    Raises:
        MLScaleError: it is of a later format; or it is corrupted or lost, and so is config.yaml.
    """
    try:
        return _read_checked_run(folder / RUN)
    except _CorruptedError as error:
        document = _rebuild_document(folder)
        if document is None:
            raise _make_unrecoverable_error(folder) from error
        state = f"is corrupt ({error})" if (folder / RUN).exists() else "is lost"
        warn_once(f"{folder / RUN} {state}: rebuilt from the run's other files; lost: {_LOST}")
        return document


def is_run_folder(folder: Path) -> bool:
    """Return True for the folder of a run: with run.json, or with a run's id in its name and other files of a run."""
    if (folder / RUN).is_file():
        return True
    has_id = parse_start_time(folder.name.rpartition("-")[2]) is not None
    return has_id and any((folder / name).exists() for name in _TRACES)


def read_run_manifest(folder: Path) -> dict[str, Any] | None:
    """Return manifest.json; None where the run is not sealed, or where it is corrupted, which is reported."""
    if not (folder / MANIFEST).is_file():
        return None
    try:
        document = read_json(folder / MANIFEST)
        if any(not isinstance(document.get(key), kind) for key, kind in _MANIFEST_KEYS.items()):
            raise MLScaleError("", why="it lacks what a seal holds")
        expect_format("manifest", document, str(folder / MANIFEST))
        return document
    except MLScaleError as error:
        warn_once(
            f"{folder / MANIFEST} is corrupt ({error.why or error.what}): the run counts as not sealed; "
            "mlscale runs resume seals it again"
        )
        return None


def read_run_results(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the results by command; corrupted ones are reported and left out."""
    documents = {}
    for path in sorted((folder / "results").glob("[!.]*.json")):
        try:
            document = read_json(path)
        except MLScaleError as error:
            warn_once(f"{path} is corrupt ({error.why or error.what})")
            continue
        whole = isinstance(document.get("metrics"), dict) and isinstance(document.get("sentence"), str)
        if str(document.get("format")).startswith("mlscale/result/") and whole:
            documents[path.stem] = document
    return documents


def read_yaml_values(path: Path) -> dict[str, Any]:
    """Return the keys and values of a YAML file of a run.

    Raises:
        MLScaleError: it is absent, corrupted, or not a mapping.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    # A corrupted file may have a date that does not exist (ValueError), or nest too deep (RecursionError).
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise _make_unreadable_error(path, str(error).split("\n")[0]) from error
    if values is not None and not isinstance(values, dict):
        raise _make_unreadable_error(path, f"it holds a {type(values).__name__}")
    return values or {}


@cache
def warn_once(line: str) -> None:
    """Print a warning about a corrupted file; the cache makes it print each line only once."""
    with contextlib.suppress(OSError):
        print(f"warning   {line}", file=sys.stderr, flush=True)


class _CorruptedError(Exception):
    """A document of a run that can't be used; the text gives the reason."""


def _make_unrecoverable_error(folder: Path) -> MLScaleError:
    """Return the error for a run without run.json and config.yaml: what is lost, and what can still be used."""
    states = {name: "corrupt" if (folder / name).exists() else "lost" for name in (RUN, CONFIG)}
    weights = sorted((folder / "checkpoints").glob("[!.]*.ckpt"))
    use = f"{format_override('init_from', str(weights[0]))}, which uses its weights; or " if weights else ""
    return MLScaleError(
        "the run can't be read",
        where=str(folder),
        why=f"{' and '.join(f'{name} is {state}' for name, state in states.items())}; lost with both: its config, "
        f"{_LOST}; {len(weights) or 'no'} checkpoint{'s' * (len(weights) != 1)} left",
        fix=f"{use}restore one of the two from a copy",
    )


def _make_unreadable_error(path: Path, why: str) -> MLScaleError:
    fix = "mlscale versions ls: restore it from a version of the run, or from a copy"
    if path.name == DERIVED:
        run = path.parent.name.rsplit("-", 1)[-1]
        fix = f"mlscale runs resume {run}, which derives it again; or restore it from a copy"
    return MLScaleError(f"the run's {path.name} is corrupt", where=str(path), why=why, fix=fix)


def _read_checked_run(path: Path) -> dict[str, Any]:
    try:
        document = read_json(path)
    except MLScaleError as error:
        raise _CorruptedError(error.why or error.what) from error
    if str(document.get("format")).startswith("mlscale/run/"):
        expect_format("run", document, str(path))  # a later format is not a corruption
    else:
        raise _CorruptedError("it names no format")
    for key, kind in _RUN_KEYS.items():
        if not isinstance(document.get(key), kind):
            raise _CorruptedError(f"it has no {key}")
    lacking = [key for key in _OTHER_RUN_KEYS if key not in document]
    attempts = document["attempts"]
    if (
        lacking
        or not attempts
        or not all(_is_attempt(attempt) for attempt in attempts)
        or not _is_time(document["created"])
    ):
        raise _CorruptedError(f"it has no {lacking[0]}" if lacking else "its attempts or times can't be read")
    if not isinstance(document["code"], dict | None):
        raise _CorruptedError("it has no code")
    named = path.parent.name.rpartition("-")[2]
    # A flipped bit leaves a document that can be read; a folder that a user renamed has no id in its name.
    if parse_start_time(named) is not None and document["id"] != named:
        raise _CorruptedError(f"its id is {document['id']!r}, and its folder's {named!r}")
    return document


def _is_attempt(value: object) -> bool:
    return (
        isinstance(value, dict)
        and _is_time(value.get("started"))
        and {"host", "pid"} <= value.keys()
        and (isinstance(value["pid"], int) and isinstance(value.get("pid_start"), int | None))
    )


def _is_time(value: object) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _rebuild_document(folder: Path) -> dict[str, Any] | None:
    """Return a run.json rebuilt from folder name, config.yaml, derived.yaml and code.json; None without a config."""
    try:
        config = read_yaml_values(folder / CONFIG)
        text = (folder / CONFIG).read_text(encoding="utf-8")
    except (MLScaleError, OSError):
        return None
    derived: dict[str, Any] = {}
    code: dict[str, Any] = {}
    with contextlib.suppress(MLScaleError):
        derived = read_yaml_values(folder / DERIVED)
    with contextlib.suppress(MLScaleError):
        code = read_json(folder / "code.json")
    name, _, run_id = folder.name.rpartition("-")
    created = (
        parse_start_time(run_id) or datetime.fromtimestamp((folder / CONFIG).stat().st_mtime).astimezone().isoformat()
    )
    # A process that can't exist: an unsealed run then counts as crashed, and can be resumed.
    attempt = {"started": created, "host": socket.gethostname(), "pid": _NO_PROCESS, "pid_start": None}
    in_sweep = (folder.parent / "sweep.json").is_file()
    summary = {key: code[key] for key in ("digest", "commit", "dirty") if key in code}
    counts = {key: len(code[key]) for key in ("files", "skipped") if key in code}
    return {
        "format": get_format_tag("run"),
        "id": run_id,
        "name": str(config.get("name") or name),
        "verb": "train",
        "created": created,
        "config_hash": compute_config_hash(text),
        "seed": config.get("seed"),
        "data_version": derived.get("data_version"),
        "order_version": derived.get("order_version", 1),
        "code": {**summary, **counts} if "digest" in code else None,
        "parent": None,
        "sweep": folder.parent.name.rsplit("-", 1)[-1] if in_sweep else None,
        "overrides": [],
        "tags": [str(tag) for tag in config.get("tags") or []],
        "notes": str(config.get("notes") or ""),
        "metric": config.get("metric"),
        "mode": config.get("mode") if config.get("mode") in ("min", "max") else None,
        "loggers": {},
        "attempts": [attempt],
        "rebuilt": True,
    }
