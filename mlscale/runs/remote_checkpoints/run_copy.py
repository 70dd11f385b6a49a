"""The copy of a run's folder in its object store, without checkpoints: enough to open the run on another machine."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from mlscale.atomic_files import ASIDE, make_folders, remove_tree, write_bytes
from mlscale.errors import MLScaleError
from mlscale.runs.identity import make_folder_name, parse_start_time
from mlscale.runs.recover import CONFIG, DERIVED, MANIFEST, RUN, is_run_folder
from mlscale.runs.remote_checkpoints.checkpoint_store import RUN_FOLDER, CheckpointStore
from mlscale.runs.remote_checkpoints.store_access import TYPED, create_access_error, mask_address, open_store

_FILES = ("encoder.json", "code.json", "code.tar.gz", "logs/metrics.csv", DERIVED, CONFIG)
_RESULTS = ("results/*.json", "results/*.html")
_FOLDERS = ("results", "logs", "checkpoints")
_SHOWN = 5  # runs that a message lists
_MAX_CHECKED = 50  # of the newest runs at an address


def store_run_files(store: CheckpointStore, folder: Path) -> list[str]:
    """Store those of a run's files that the store lacks, or has of other content; return their names."""
    stored = []
    for name in _list_run_files(folder):
        try:
            content = (folder / name).read_bytes()
        except FileNotFoundError:
            continue
        if store.put_run_file(name, content):
            stored.append(name)
    if not (folder / MANIFEST).is_file():  # the seal of an earlier attempt
        store.remove_run_file(MANIFEST)
    return stored


def _list_run_files(folder: Path) -> Iterator[str]:
    for pattern in _RESULTS:
        yield from sorted(path.relative_to(folder).as_posix() for path in folder.glob(pattern))
    # `run.json` after the config: its proof holds for the config of before, too. It makes a folder a run.
    yield from (*_FILES, MANIFEST, RUN)


def fetch_run(address: str, root: Path) -> Path:
    """Write the folder of a run from its copy in an object store, and return its path; checkpoints are not downloaded.

    Args:
        address: of the run, such as `s3://bucket/folder/<run id>`.
        root: the folder of runs.

    Raises:
        MLScaleError: no run was found at this address, its store can't be read, or the folder can't be written.
    """
    store = open_store(address, TYPED)
    try:
        files = {name: store.read_run_file(name) or b"" for name in store.list_run_files() if _is_known(name)}
        others = [] if RUN in files else store.list_runs()
    except Exception as error:  # of any package, and of the network
        raise create_access_error(address, TYPED, error) from error
    if RUN not in files:
        raise _create_not_found_error(store.address, others)
    document = _parse_run(files[RUN], store.address)
    if document.get("checkpoint_store") != store.address:  # a bucket that was copied
        files[RUN] = json.dumps({**document, "checkpoint_store": store.address}, indent=2).encode()
    date, name = str(document["created"])[:10], make_folder_name(document["name"])
    folder = root.absolute() / date / f"{name}-{document['id']}"
    aside = folder.with_name(f"{ASIDE}{folder.name}-{secrets.token_hex(4)}")
    make_folders(folder.parent)
    try:
        for name in ("", *_FOLDERS):
            make_folders(aside / name)
        for name, content in files.items():
            write_bytes(aside / name, content)
        aside.rename(folder)
    except OSError:
        if not is_run_folder(folder):  # another process has been faster
            raise
    finally:
        if aside.exists():
            remove_tree(aside)
    print(f"download  the run {folder.name}, from {mask_address(store.address)}", file=sys.stderr, flush=True)
    return folder


def find_stored_run(address: str, config_hash: str, code: str | None, where: str) -> str | None:
    """Return the address of the newest run of this config and code below `address`; None if there is none, or that one
    is done or has diverged.

    Raises:
        MLScaleError: the store can't be read.
    """
    try:
        for run_id in open_store(address, where).list_runs()[:_MAX_CHECKED]:
            store = open_store(f"{address}/{run_id}", where)
            run = _read_json(store, RUN)
            digest = (run.get("code") or {}).get("digest")
            if run.get("config_hash") == config_hash and digest == code:
                is_over = _read_json(store, MANIFEST).get("status") in ("done", "diverged")
                return None if is_over else store.address
    except MLScaleError:
        raise
    except Exception as error:  # of any package, and of the network
        raise create_access_error(address, where, error, "read from") from error
    return None


def _read_json(store: CheckpointStore, name: str) -> dict[str, Any]:
    try:
        document = json.loads(store.read_run_file(name) or b"{}")
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _is_known(name: str) -> bool:
    """Return whether a name is one of those that are stored: others could lead out of the folder."""
    # By its parts: a pattern would match the end of `../../results/train.json`, too.
    parts = PurePosixPath(name).parts
    is_result = len(parts) == 2 and parts[0] == "results" and parts[1].endswith((".json", ".html"))
    return name in (*_FILES, MANIFEST, RUN) or is_result


def _parse_run(content: bytes, address: str) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(content)
        date = datetime.fromisoformat(document["created"])
        # It comes from elsewhere: what is not an id or a date must not become a path.
        if parse_start_time(document["id"]) is not None and document["created"].startswith(f"{date:%Y-%m-%d}"):
            return {**document, "name": str(document["name"])}
        why = f"its id is {document['id']!r}, and its time {document['created']!r}"
    except (ValueError, KeyError, TypeError) as error:
        why = repr(error)
    raise MLScaleError(
        "the run's run.json in the object store is corrupt",
        where=f"{mask_address(address)}/{RUN_FOLDER}{RUN}",
        why=why,
        fix="init_from=<a .ckpt file that was copied from there>, which uses its weights",
    )


def _create_not_found_error(address: str, others: list[str]) -> MLScaleError:
    shown = [f"{mask_address(address)}/{run_id}" for run_id in others[:_SHOWN]]
    return MLScaleError(
        "no run at this address",
        where=mask_address(address),
        why=f"{len(others)} runs are below it, the newest first" if others else "it has no run/run.json",
        fix="\n".join(shown)
        or "mlscale runs resume s3://<bucket>/<folder>/<run id>, the address that the run prints first",
    )
