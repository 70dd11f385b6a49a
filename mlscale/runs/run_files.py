"""Write the files of a new run: the documents, the snapshot of the code, and the proof that this user created it."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlscale.atomic_files import (
    convert_to_json,
    encode_text,
    remove_empty_folders,
    remove_tree,
    write_bytes,
    write_json,
    write_text,
)
from mlscale.runs import ownership as own
from mlscale.runs.code.code_snapshot import CodeSnapshot
from mlscale.runs.host import processes as process
from mlscale.runs.identity import (
    generate_id,
    get_current_time,
    make_folder_name,
)

if TYPE_CHECKING:
    pass


from mlscale.runs.run_reader import CONFIG, DERIVED, RUN

CODE = "code.tar.gz"
SUBFOLDERS = ("results", "logs", "checkpoints")


def build_run_path(root: str | Path, name: str) -> Path:
    """Return a path for a new run or sweep, `<root>/<date>/<name>-<id>`; nothing is created."""
    return Path(root) / datetime.now().strftime("%Y-%m-%d") / f"{make_folder_name(name)}-{generate_id()}"


def describe_attempt() -> dict[str, Any]:
    return {"started": get_current_time(), "host": socket.gethostname(), **process.identify_process()}


def prove_ownership(
    run_id: str, config: str, derived: str, code: CodeSnapshot | None = None, before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return run.json's proof that this user created the run; empty where the user has no key."""
    # The proof covers the bytes as they are written: the same encoding, line ends included.
    contents = {CONFIG: encode_text(config), DERIVED: encode_text(derived), **({CODE: code.archive} if code else {})}
    proof = own.create_proof(run_id, contents, before)
    return {"proof": proof} if proof else {}


def write_run_files(folder: Path, run: dict[str, Any], config: str, derived: str, code: CodeSnapshot | None) -> None:
    # Private: a config and its logs may hold secrets of the environment.
    folder.mkdir(mode=0o700)
    for name in SUBFOLDERS:
        (folder / name).mkdir(mode=0o700)
    write_text(folder / CONFIG, config)
    write_text(folder / DERIVED, derived)
    if code is not None:
        write_bytes(folder / CODE, code.archive)
        write_json(folder / "code.json", code.build_code_document())
    # Last: run.json makes a folder a run, and what it refers to is there by then.
    write_json(folder / RUN, run)


def dump_yaml(values: Mapping[str, Any]) -> str:
    # Imported late: only a new run needs it, and every command pays for what is imported at the top.
    import yaml

    return str(yaml.safe_dump(convert_to_json(values), sort_keys=False, allow_unicode=True))


def remove_partial_run(aside: Path, made: list[Path]) -> None:
    # The rename may have happened before the error: then there is nothing left to remove.
    if aside.exists():
        remove_tree(aside)
    remove_empty_folders(made)
