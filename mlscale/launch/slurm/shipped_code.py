"""Put the code of a run into a folder, as it was at the submission, uncommitted changes included."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path, PurePath

from mlscale.atomic_files import make_folders
from mlscale.errors import MLScaleError
from mlscale.runs.code.code_snapshot import CodeSnapshot

_CODE = (".py", ".yaml", ".yml")


def refuse_unshippable_code(code: CodeSnapshot) -> None:
    """Raise an error for code that would behave otherwise in the job: a text in it that looks like a secret is masked.

    Raises:
        MLScaleError: a file of code was altered.
    """
    altered = [name for name in code.masked if name.endswith(_CODE) and "tests" not in PurePath(name).parts]
    if altered:
        raise MLScaleError(
            "the code holds what looks like a secret, and a copy of it goes to the job",
            where=", ".join(altered[:3]),
            why="in the copy it is replaced by ***, so the job would run other code than you have here",
            fix="snapshot=false, and the job imports the code here; or read it from the environment, which jobs get",
        )


def describe_unshipped_files(code: CodeSnapshot) -> list[str]:
    """Return a line about files of code that the copy lacks: they are imported from the working folder."""
    lacking = [name for name in code.skipped if name.endswith(_CODE)]
    if not code.complete:
        return [f"code      {code.root} is too large for a copy: the job imports this folder's code as it is then"]
    if lacking:
        return [f"code      not in the copy, imported from this folder: {', '.join(lacking[:3])}"]
    return []


def unpack_code(code: CodeSnapshot, folder: Path) -> None:
    """Write the files of a snapshot into a new folder."""
    make_folders(folder)
    # The archive was made by this process, of regular files below the working folder.
    with tarfile.open(fileobj=io.BytesIO(code.archive), mode="r:gz") as archive:
        archive.extractall(folder, filter="data")
