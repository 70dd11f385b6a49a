"""`mlscale runs checkpoints`: the saved files of a run, and whether each is still as it was written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlscale.atomic_files import artefacts
from mlscale.errors import Exit
from mlscale.report import number, size, table
from mlscale.runs import checkpoint_files as checkpoints
from mlscale.runs.checkpoint_files import Stored
from mlscale.runs.folder import RunFolder

_WORDS = {"unsigned": "no digest"}


def show(run: RunFolder, *, as_json: bool) -> int:
    """Read every checkpoint of the run, and print a line for each; exit code 2 if any is torn or altered."""
    found = verified(run.path)
    own = (run.id, str(run.run["config_hash"]))
    # The same choice that `resume` makes, so that this list predicts it.
    latest, _ = checkpoints.latest_valid(run.path / "checkpoints", own)
    if as_json:
        document = {
            "run": str(run.path),
            "latest_valid": str(latest) if latest else None,
            "checkpoints": [_document(each) for each in found],
        }
        print(json.dumps(document, ensure_ascii=False, indent=2))
    elif not found:
        print(f"{run.path.name} has no checkpoints")
    else:
        rows = [_row(each, run.path) for each in found]
        print(table(rows, ("name", "kind", "step", "epochs", "metric", "size", "saved", "digest")))
        for each in found:
            if each.bad:
                print(f"{each.path}: {checkpoints.explain(each)}")
            elif each.record and (why := each.record.foreign_to(*own)):
                print(f"{each.path}: not one of this run: {why}")
        print(_resumes_from(run, latest))
    return int(Exit.USER if any(each.bad for each in found) else Exit.DONE)


def _resumes_from(run: RunFolder, latest: Path | None) -> str:
    if (status := run.status) in ("done", "diverged"):
        return f"the run {'is done' if status == 'done' else 'has diverged'}: there is nothing to resume"
    return f"the run resumes from {latest.name}" if latest else "there is none to resume from"


def verified(folder: Path) -> list[Stored]:
    """Return all checkpoints of a run, those of a user's own callbacks included, in the order of training."""
    # Anywhere in the run: a user's ModelCheckpoint may have a `dirpath` of its own.
    folders = dict.fromkeys(path.parent for path in artefacts(folder) if path.suffix == checkpoints.SUFFIX)
    found = []
    for each in (each for parent in folders for each in checkpoints.stored(parent)):
        try:
            found.append(checkpoints.verify(each.path))
        except FileNotFoundError:  # the run still trains, and keeps only the latest
            continue
    return sorted(found, key=checkpoints.reached)


def _row(found: Stored, run: Path) -> Sequence[object]:
    record, inside = found.record, run / "checkpoints"
    name = found.path.relative_to(inside if found.path.is_relative_to(inside) else run)
    state = _WORDS.get(found.state, found.state)
    if record is None:
        return (name, None, None, None, None, size(found.bytes), None, state)
    kind = record.kind if record.resumable else f"{record.kind}, weights"
    metric = f"{record.metric} {number(record.value)}" if record.metric and record.value is not None else None
    return (name, kind, record.step, record.epoch, metric, size(found.bytes), _date(record.time), state)


def _date(time: str) -> str:
    return time[:19].replace("T", " ")


def _document(found: Stored) -> dict[str, Any]:
    names = ("kind", "step", "epoch", "metric", "value", "time", "resumable")
    record = asdict(found.record) if found.record else {}
    return {
        "path": str(found.path),
        "bytes": found.bytes,
        **{name: record.get(name) for name in names},
        "state": found.state,
    }
