"""Files that are whole or absent: written to a temporary file, flushed to the disk, renamed. Private to the user."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import secrets
import shlex
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlscale.errors import Exit, MLScaleError, raise_all
from mlscale.file_locks import hold_folder, lock_file, remove_abandoned_folders

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700
ASIDE = ".aside-"  # how the name of a file or folder starts that is not there yet; whatever reads a folder skips these
_ELSEWHERE = "{}=<{} you may write to, with free space>"
_RUNS_DIR = _ELSEWHERE.format("runs_dir", "a folder")
IN_FOLDER = "a file in a folder"


def write_bytes(path: Path, content: bytes, *, mode: int = PRIVATE_FILE) -> None:
    """Write `content` to `path`, whole or not at all, by default readable by its owner alone.

    Raises:
        MLScaleError: the disk is full, or the folder can't be written to (exit code 5).
    """
    # In the same folder, because a rename is atomic only within a file system; with a random end, because two
    # processes may write the same file.
    aside = path.with_name(f"{ASIDE}{path.name}-{secrets.token_hex(4)}")
    try:
        # The mode is given at creation: with a later chmod the content would be readable for a moment.
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            with contextlib.suppress(OSError):  # some file systems have no locks; leftovers stay there
                lock_file(file.fileno())
            file.write(content)
            file.flush()
            # Before the rename: after a power cut a renamed file must not be empty.
            os.fsync(file.fileno())
            aside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise create_write_error(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, by `write_bytes`."""
    write_bytes(path, encode_text(text))


def encode_text(text: str) -> bytes:
    """Return the bytes that `write_text` writes."""
    # Bytes of paths and arguments that are not UTF-8 are surrogates in Python: they are written back as they were.
    return text.encode("utf-8", errors="surrogateescape")


def write_json(path: Path, value: object) -> None:
    """Write JSON, by `write_text`: NaN and infinities become null, types that JSON lacks become their text."""
    write_text(path, json.dumps(convert_to_json(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def append_line(path: Path, line: str) -> None:
    """Append a line of text to a file; it is on the disk when this returns. A killed process leaves at most a last line
    that is cut short.

    Raises:
        MLScaleError: the disk is full, or the folder can't be written to (exit code 5).
    """
    try:
        # O_APPEND and one write: a line is never mixed with another one. O_RDWR, since `pread` checks the end.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, PRIVATE_FILE)
        try:
            size = os.fstat(handle).st_size
            # A power cut may leave a line without its end: the new one must not be joined to it.
            torn = size and os.pread(handle, 1, size - 1) != b"\n"
            os.write(handle, encode_text("\n" * bool(torn) + line + "\n"))
            os.fsync(handle)
        finally:
            os.close(handle)
        # The entry of a new file is in its folder, which has to be synced, too.
        sync_folder(path.parent)
    except OSError as error:
        raise create_write_error(path, error) from error


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`.

    Raises:
        MLScaleError: it is absent, cut short, or not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise MLScaleError(
            f"can't read {path.name}",
            where=str(path),
            why=str(error),
            fix=f"restore {path.name} from a copy, or repeat the command that writes it",
        ) from error
    if not isinstance(value, dict):
        raise MLScaleError(
            f"{path.name} does not hold a JSON object",
            where=str(path),
            fix=f"restore {path.name} from a copy, or repeat the command that writes it",
        )
    return value


def convert_to_json(value: object) -> Any:
    """Return `value` made of JSON's types: numbers of numpy and torch become Python's, other types their text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): convert_to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [convert_to_json(item) for item in value]
    # Scalars of numpy and torch have `item()`, without an import of either.
    item = getattr(value, "item", None)
    return convert_to_json(item()) if callable(item) else str(value)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed processes left anywhere below `folder`; files that are being written are
    locked.
    """
    for parent, folders, names in os.walk(folder):
        # os.walk descends into what is left in this list: folders that are being written are not entered.
        folders[:] = [name for name in folders if not name.startswith(ASIDE)]
        for name in names:
            if name.startswith(ASIDE):
                remove_unlocked(Path(parent, name))


def remove_unlocked(path: Path) -> None:
    """Remove a file unless a process holds a lock on it, or it can't be removed."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        # Raises if the writer is alive: it holds the lock on its temporary file until the rename.
        lock_file(file.fileno())
        path.unlink()


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` durable against a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:  # some network file systems can't sync a folder; the rename itself still is atomic
        pass
    finally:
        os.close(handle)


def compute_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def iterate_regular_files(folder: Path) -> Iterator[Path]:
    """Yield every regular file below `folder`, sorted; no links, and nothing that is still being written."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(ASIDE))
        for name in sorted(names):
            path = Path(parent, name)
            if not name.startswith(ASIDE) and path.is_file() and not path.is_symlink():
                yield path


def make_private(folder: Path) -> None:
    """Remove all access to `folder` and its content except the owner's: some writers (checkpoints, events) follow the
    umask.
    """
    for parent, _, names in os.walk(folder):
        Path(parent).chmod(PRIVATE_FOLDER)
        for name in names:
            path = Path(parent, name)
            if not path.is_symlink():
                with contextlib.suppress(FileNotFoundError):  # a tracker's helper may still be tidying up
                    path.chmod(PRIVATE_FILE)


def make_folders(folder: Path) -> list[Path]:
    """Make `folder` and its parents, private; return those that did not exist before, outermost first.

    Raises:
        MLScaleError: it can't be made, or is a file (exit code 5).
    """
    if folder.exists() and not folder.is_dir():
        error = NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        raise create_write_error(folder, error) from error
    # One by one, not with `parents=True`, which gives the mode to the last folder only.
    missing = [path for path in (folder, *folder.parents) if not path.exists()][::-1]
    made = []
    for path in missing:
        try:
            path.mkdir(mode=PRIVATE_FOLDER)
            made.append(path)
        except FileExistsError:  # another process was faster
            continue
        except OSError as error:
            raise create_write_error(path, error) from error
    return made


def remove_empty_folders(folders: list[Path]) -> None:
    """Remove those of `folders` that are empty, innermost first."""
    for folder in reversed(folders):
        with contextlib.suppress(OSError):
            folder.rmdir()


def remove_tree(folder: Path) -> None:
    """Remove `folder` in one step as others see it: renamed first, so that a half-removed one is never listed."""
    aside = folder.with_name(f"{ASIDE}{folder.name}-{secrets.token_hex(4)}")
    try:
        folder.rename(aside)
        # Locked, as `replace_folder` of another process removes what a killed one has left.
        with hold_folder(aside):
            shutil.rmtree(aside)
    except OSError as error:
        raise create_write_error(folder, error) from error


@contextlib.contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Provide a temporary folder to fill, which replaces `folder`, if that exists, when the block ends without an
    error. What killed processes have left of earlier ones is removed.

    Raises:
        MLScaleError: it can't be written (exit code 5).
    """
    make_folders(folder.parent)
    remove_abandoned_folders(_list_abandoned(folder))
    aside = folder.with_name(f"{ASIDE}{folder.name}-{secrets.token_hex(4)}")
    # A folder can't replace a folder that is not empty: the old one is renamed first, and removed at the end.
    old = aside.with_name(f"{aside.name}-old")
    try:
        aside.mkdir(mode=PRIVATE_FOLDER)
        with hold_folder(aside):
            yield aside
            with hold_folder(folder):
                if folder.exists():
                    folder.rename(old)
                aside.rename(folder)
                sync_folder(folder.parent)
                if old.exists():
                    remove_tree(old)
    except OSError as error:
        raise create_write_error(folder, error) from error
    finally:
        if aside.exists():
            remove_tree(aside)


def _list_abandoned(folder: Path) -> list[Path]:
    """Return what was written aside for `folder` and may be abandoned; running processes hold theirs."""
    name = re.compile(rf"({re.escape(ASIDE)})+{re.escape(folder.name)}(-[0-9a-f]{{8}}(-old)?)+")
    left = [path for path in folder.parent.glob(f"{ASIDE}*") if name.fullmatch(path.name)]
    # Killed between the two renames: what is aside is then all that there is.
    return left if folder.exists() or not any(path.name.endswith("-old") for path in left) else []


def check_writable(folder: Path) -> None:
    """Check that `folder` can be written to, or made if it does not exist. Nothing is written.

    Raises:
        MLScaleError: it can't (exit code 5).
    """
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    # By the effective user, as a write would be checked, where the system supports that.
    may = os.access(existing, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)
    if not may or not existing.is_dir():
        number = errno.EACCES if existing.is_dir() else errno.ENOTDIR
        raise create_write_error(folder, OSError(number, os.strerror(number)))


def suggest_restore(path: str | Path) -> str:
    """Return the fix for a file that can't be read."""
    return f"chmod u+r {shlex.quote(str(path))}, if it is there and not readable; or restore it from a copy"


def create_write_error(path: Path, error: OSError) -> MLScaleError:
    """Return the error for a path that can't be written, with the remedy."""
    return MLScaleError(
        f"can't write {path.name}",
        where=str(path),
        why=explain_os_error(error, path),
        fix=_RUNS_DIR,
        exit=Exit.ENVIRONMENT,
    )


def explain_os_error(error: OSError, path: Path) -> str:
    """Return why `path` could not be written, in words: the system reports missing inodes as missing space."""
    text = error.strerror or str(error)
    if error.errno == errno.ENOSPC and _is_out_of_inodes(path):
        return f"{text}: no free inodes, so no further file can be made, though bytes may be free (df -i)"
    return text


def _is_out_of_inodes(path: Path) -> bool:
    for folder in (path, *path.absolute().parents):
        with contextlib.suppress(OSError):
            system = os.statvfs(folder)
            return system.f_files > 0 and system.f_favail == 0  # a file system without a limit counts none
    return False


@contextlib.contextmanager
def report_path_setting(setting: str, what: str = "a folder") -> Iterator[None]:
    """Let an error about a path that can't be written name the setting that chose the path, which is not runs_dir."""
    with _replace_write_fix(_ELSEWHERE.format(setting, what)):
        yield


@contextlib.contextmanager
def report_disk_errors(setting: str, what: str = "a folder") -> Iterator[None]:
    """Do as `report_path_setting`, also for errors of the system inside the block, which does nothing but files.

    Raises:
        MLScaleError: the disk is full, or the folder can't be written to (exit code 5).
    """
    with report_path_setting(setting, what):
        try:
            yield
        except OSError as error:
            raise create_write_error(Path(str(error.filename or what)), error) from error


def write_setting_file(setting: str, path: Path, text: str, *, mode: int = PRIVATE_FILE) -> None:
    """Write a file that a setting names, as `write_bytes` does; its folder is made.

    Raises:
        MLScaleError: it can't be written (exit code 5).
    """
    with report_path_setting(setting, IN_FOLDER):
        make_folders(path.parent)
        write_bytes(path, encode_text(text), mode=mode)


@contextlib.contextmanager
def report_run_folder(run: Path, *, removes: bool = False) -> Iterator[None]:
    """Let an error about a path of an existing run that can't be written say how the run can be: another runs_dir
    would mean other runs. A command that `removes` files is of no use on a copy.
    """
    folder = shlex.quote(str(run))
    copy = f"cp -r {folder} <a folder you may write to, with free space>, and the same command with the copy's path"
    access = f"chmod -R u+w {folder}; where its disk is read-only: mount -o remount,rw <the disk>"
    with _replace_write_fix(access if removes else copy):
        yield


@contextlib.contextmanager
def _replace_write_fix(fix: str) -> Iterator[None]:
    try:
        yield
    except MLScaleError as error:
        raise_all([_with_write_fix(problem, fix) for problem in getattr(error, "problems", [error])])


def _with_write_fix(error: MLScaleError, fix: str) -> MLScaleError:
    """Return an error with another fix, if its own is to choose another folder; else the same one."""
    if error.fix != _RUNS_DIR:
        return error
    changed = MLScaleError(error.what, where=error.where, why=error.why, fix=fix, exit=error.exit)
    changed.unbuilt, changed.run = error.unbuilt, error.run
    return changed
