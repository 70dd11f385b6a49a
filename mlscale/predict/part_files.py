"""The folder of predictions: part files, committed by rename, and a manifest of model and inputs.

    <to>/_predictions.json        model and inputs by digest, rows of a part; contract 'predictions'
    <to>/part-00000012.parquet    rows from 12 · part_rows

A part exists completely or not at all, so a process that was killed resumes after the existing parts. Readers of a
folder of Parquet files ignore names that begin with '_'.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlscale.atomic_files import ASIDE, make_folders, read_json, write_bytes, write_json
from mlscale.config.names.suggest import format_override
from mlscale.contracts import expect_format, get_format_tag
from mlscale.errors import MLScaleError
from mlscale.file_locks import hold_lock

if TYPE_CHECKING:
    import pyarrow as pa

MANIFEST = "_predictions.json"
_NAME = re.compile(r"part-(\d{8})\.parquet")
_ABOUT = b"mlscale"
_SAME = {"model": "the model", "inputs": "the inputs", "answers": "what is asked of them"}


@dataclass(frozen=True)
class PredictionParts:
    """The parts of one set of predictions.

    Attributes:
        folder: of the files.
        rows: number of all inputs.
        part_rows: rows of a part; the last one has the rest.
        document: the manifest.
    """

    folder: Path
    rows: int
    part_rows: int
    document: Mapping[str, Any]

    def __len__(self) -> int:
        return math.ceil(self.rows / self.part_rows)

    def get_row_range(self, part: int) -> range:
        """Return the rows of a part."""
        return range(part * self.part_rows, min(self.rows, (part + 1) * self.part_rows))

    def get_part_path(self, part: int) -> Path:
        """Return the file of a part."""
        return self.folder / f"part-{part:08d}.parquet"

    def list_rank_parts(self, rank: int, world_size: int) -> list[int]:
        """Return the parts of one of `world_size` processes; together they have each part once."""
        # Interleaved, so that all processes have about as many of the parts that a killed command left.
        return list(range(rank, len(self), world_size))

    def find_complete_parts(self) -> set[int]:
        """Return the parts that exist, complete, of these predictions; other files of such a name are removed."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        complete = set()
        for path in self.folder.glob("part-*.parquet"):
            match = _NAME.fullmatch(path.name)
            part = int(match[1]) if match else -1
            try:
                about = pq.read_metadata(path) if 0 <= part < len(self) else None
            except (pa.ArrowException, OSError, ValueError):
                about = None
            # The footer alone is read. The right number of rows shows that the part is complete: Parquet's footer is
            # at the end of the file.
            if about is not None and about.num_rows == len(self.get_row_range(part)):
                complete.add(part)
            else:
                path.unlink(missing_ok=True)
        return complete

    def write_part(self, part: int, table: pa.Table) -> None:
        """Write a part (pyarrow); it survives a power failure after this returns.

        Raises:
            MLScaleError: the disk is full, or the folder can't be written to (exit code 5).
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        about = {"format": get_format_tag("predictions"), "model": self.document["model"]["version"]}
        sink = pa.BufferOutputStream()
        pq.write_table(table.replace_schema_metadata({_ABOUT: json.dumps(about)}), sink, compression="zstd")
        write_bytes(self.get_part_path(part), sink.getvalue().to_pybytes())

    def mark_complete(self, **totals: object) -> None:
        """Mark the predictions as complete in the manifest, and add a summary to it."""
        write_json(self.folder / MANIFEST, {**self.document, "complete": True, **totals})

    def remove_unfinished(self) -> None:
        """Remove unfinished files of processes that were killed."""
        for path in self.folder.glob(f"{ASIDE}*"):
            path.unlink(missing_ok=True)


def start_predictions(
    folder: Path,
    *,
    model: Mapping[str, Any],
    inputs: Mapping[str, Any],
    answers: Mapping[str, Any],
    created: str,
    part_rows: int | None,
    overwrite: bool,
) -> PredictionParts:
    """Start a set of predictions in `folder`, or resume the existing one.

    Args:
        folder: created if it does not exist.
        model: `version`, `digest`, `kind` and `labels` of the model.
        inputs: `spec`, `digest` and `rows` of the inputs.
        answers: other settings that the rows depend on.
        created: now, ISO 8601.
        part_rows: rows of a part; None for a sixty-fourth of all, at least 64 and at most 4,096.
        overwrite: remove existing predictions of other inputs or another model.

    Raises:
        MLScaleError: the folder has predictions of other inputs or another model, or other files.
    """
    existed = folder.exists()
    make_folders(folder)
    rows = int(inputs["rows"])
    wanted = {"model": dict(model), "inputs": dict(inputs), "answers": dict(answers)}
    if (folder / MANIFEST).is_file():
        document = read_json(folder / MANIFEST)
        expect_format("predictions", document, str(folder / MANIFEST))
        changed = [key for key in _SAME if _is_different(document.get(key), wanted[key])]
        # The parts' size is that of the first command: existing files are named by it.
        if not changed:
            return PredictionParts(folder, rows, int(document["part_rows"]), document)
        if not overwrite:
            raise _build_mismatch_error(folder, changed, document, wanted)
        _delete_predictions(folder)
    elif existed and any(not entry.name.startswith((".", "_")) for entry in folder.iterdir()):
        raise MLScaleError(
            "the folder for predictions holds something else",
            where=f"to={folder}",
            why=f"it has no {MANIFEST}, and is not empty",
            fix=format_override("to", f"{folder}-2"),
        )
    # Small enough that a kill costs little and each process has several parts, large enough to compress well.
    size = part_rows if part_rows is not None else max(64, min(4096, -(-rows // 64)))
    document = {
        "format": get_format_tag("predictions"),
        "created": created,
        **wanted,
        "part_rows": size,
        "complete": False,
    }
    write_json(folder / MANIFEST, document)
    # Read back, so that its values have JSON's types, as in a command that resumes.
    return PredictionParts(folder, rows, size, read_json(folder / MANIFEST))


def resume_predictions(folder: Path, digest: str) -> PredictionParts:
    """Return the predictions that were started in `folder`, for a further process.

    Raises:
        MLScaleError: the inputs have changed since then.
    """
    document = read_json(folder / MANIFEST)
    expect_format("predictions", document, str(folder / MANIFEST))
    if document["inputs"]["digest"] != digest:
        raise MLScaleError("the inputs changed while they were scored", where="input", fix="the same command again")
    return PredictionParts(folder, int(document["inputs"]["rows"]), int(document["part_rows"]), document)


def lock_predictions(folder: Path) -> AbstractContextManager[None]:
    """Return the block in which no other command may write into the folder.

    Raises:
        MLScaleError: another process writes there.
    """
    make_folders(folder)
    error = MLScaleError(
        "another process writes these predictions",
        where=f"to={folder}",
        fix="wait until it ends, or stop it: what it has done stays",
    )
    # A lock of the folder itself leaves no lock file behind, also after a kill.
    return hold_lock(folder, error)


def summarize_parts(parts: PredictionParts) -> dict[str, Any]:
    """Return the number of rows and errors in the part files, the first errors, and the count of each predicted class.

    Raises:
        MLScaleError: the parts do not have one row for each input.
    """
    import pyarrow.parquet as pq

    rows = errors = 0
    first: list[str] = []
    counts: dict[str, int] = {}
    for part in range(len(parts)):
        span = parts.get_row_range(part)
        with pq.ParquetFile(parts.get_part_path(part)) as file:
            names = file.schema_arrow.names
            table = file.read([name for name in ("row", "key", "error", "predicted") if name in names])
        numbers = table["row"].to_numpy()
        # The proof that every input has exactly one row, however often the command was killed and repeated.
        if not np.array_equal(numbers, np.arange(span.start, span.stop)):
            raise MLScaleError(
                "a part does not hold one row for each input",
                where=str(parts.get_part_path(part)),
                fix=f"rm {shlex.quote(str(parts.get_part_path(part)))}",
            )
        rows += len(numbers)
        bad = table.filter(table["error"].is_valid())
        errors += len(bad)
        first += [f"{k}: {e}" for k, e in zip(bad["key"].to_pylist()[:3], bad["error"].to_pylist()[:3], strict=True)]
        # A list of labels (multilabel) is not counted.
        if "predicted" in names and str(table.schema.field("predicted").type) == "string":
            for entry in table["predicted"].value_counts().to_pylist():
                if entry["values"] is not None:
                    counts[entry["values"]] = counts.get(entry["values"], 0) + entry["counts"]
    return {"rows": rows, "errors": errors, "first_errors": first[:3], "predicted": counts}


def _is_different(before: object, now: Mapping[str, Any]) -> bool:
    """Return whether two entries differ: by digest if they have one, else by all values."""
    # With a digest, the rest may differ, such as another path to the same inputs.
    if not isinstance(before, Mapping):
        return True
    return bool(before.get("digest") != now["digest"]) if "digest" in now else dict(before) != dict(now)


def _build_mismatch_error(
    folder: Path, changed: list[str], document: Mapping[str, Any], wanted: Mapping[str, Any]
) -> MLScaleError:
    key = changed[0]
    before, now = document.get(key) or {}, wanted[key]
    compared_field = {"model": "version", "inputs": "rows"}.get(key)
    why = f"{_SAME[key]} changed since {document.get('created')}"
    if compared_field and before.get(compared_field) != now.get(compared_field):
        why += f": {before.get(compared_field)} then, {now.get(compared_field)} now"
    elif key == "answers":
        names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        why += ": " + ", ".join(f"{name}={before.get(name)} then, {now.get(name)} now" for name in names)
    elif key == "inputs":
        why += ": as many, but others, or other content"
    return MLScaleError(
        "the folder holds predictions of "
        + " and ".join(
            "other inputs"
            if changed_key == "inputs"
            else f"another {changed_key}".replace("another answers", "other settings")
            for changed_key in changed
        ),
        where=f"to={folder}",
        why=why,
        fix=f"{format_override('to', f'{folder}-2')}, a new folder\noverwrite=true, which replaces this one",
    )


def _delete_predictions(folder: Path) -> None:
    # The manifest goes last: after a kill in between, the folder is still recognised as predictions.
    for path in folder.glob("part-*.parquet"):
        path.unlink()
    (folder / MANIFEST).unlink()
