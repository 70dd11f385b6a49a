"""The list of bad samples: a JSON document a line, with `split`, `sample` and `why`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mlscale.atomic_files import explain_os_error, make_folders, write_text
from mlscale.data.order.bad_samples import BadRecord
from mlscale.errors import MLScaleError

BAD_LIST = "bad_samples.jsonl"
"""The file in a run's folder with the samples that the run has left out."""


def write_bad_list(path: Path, records: Sequence[BadRecord]) -> None:
    """Write the list, whole or not at all; an empty one if there are none.

    Raises:
        MLScaleError: the file can't be written (exit code 5).
    """
    # Whole or not at all: half a list would be taken for all of it.
    make_folders(path.absolute().parent)
    lines = [
        json.dumps({"split": record.split, "sample": record.key, "why": record.why}, ensure_ascii=False)
        for record in records
    ]
    write_text(path, "".join(f"{line}\n" for line in lines))


def read_bad_list(path: Path, *, where: str) -> list[BadRecord]:
    """Return the samples of a list.

    Raises:
        MLScaleError: the file can't be read, or a line is not of such a list.
    """
    fix = f"{where}=<a file that mlscale data verify … bad=bad.jsonl wrote>"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = explain_os_error(error, path) if isinstance(error, OSError) else "it is not UTF-8 text"
        raise MLScaleError(f"the list {str(path)!r} can't be read", where=where, why=why, fix=fix) from error
    records = []
    for number, line in enumerate(lines, 1):
        try:
            document = json.loads(line)
            records.append(BadRecord(str(document["split"]), str(document["sample"]), str(document.get("why", ""))))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MLScaleError(
                f"line {number} of {str(path)!r} names no sample",
                where=where,
                why='a line is {"split": "train", "sample": "<its name>"}',
                fix=fix,
            ) from error
    return records
