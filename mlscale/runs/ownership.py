"""Prove that a run was created by this user: authentication tags over its code and config, by a key of the user.

`$XDG_STATE_HOME/mlscale/run.key` (default `~/.local/state/mlscale/run.key`) is created once for each user. Each run has
a key of its own, derived from it and the run's id; `run.json` holds the tags (HMAC-SHA-256) of the run's configuration,
derived values and code. Another user who edits or replaces one of these files can't make its tag, nor can one who packs
or writes a folder elsewhere. The key of a run travels to another machine in `MLSCALE_RUN_KEY=<run id>:<hex>`, those
of several separated by commas: they prove only these runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlscale.atomic_files import PRIVATE_FILE, PRIVATE_FOLDER, read_json
from mlscale.errors import MLScaleError

VARIABLE = "MLSCALE_RUN_KEY"
PROVEN = ("config.yaml", "derived.yaml", "code.tar.gz")
"""The files of a run, or of a version made of it, that determine which code is imported and how it is called."""
_KEY_BYTES = 32
_TAGS_PER_FILE = 4  # tags of a file: while an attempt replaces it, the one before is valid, too


class NoKeyError(Exception):
    """No key to create or check a proof; the text gives the reason."""


def get_state_folder() -> Path:
    """Return the user's state folder for mlscale; it need not exist.

    Raises:
        NoKeyError: the user has no home folder.
    """
    given = os.environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(given):  # the specification ignores relative ones
        return Path(given) / "mlscale"
    try:
        return Path.home() / ".local" / "state" / "mlscale"
    except RuntimeError as error:
        raise NoKeyError("the user has no home folder") from error


def create_proof(
    run_id: str, contents: Mapping[str, bytes], before: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """Create the proof that a run is of this user.

    Args:
        run_id: the run's.
        contents: name to content of the files that are written, some of `PROVEN`.
        before: the proof so far, which stays valid.

    Returns:
        the value of `proof` in run.json; None without a key, which fails no run: see `explain_missing_key`.
    """
    try:
        key = _get_run_key(run_id, create=True)
    except NoKeyError:
        return None
    tags: dict[str, list[str]] = {name: list(file_tags) for name, file_tags in (before or {}).get("tags", {}).items()}
    for name, content in contents.items():
        # A tag that is listed already moves to the end, so that the oldest one is dropped first.
        known = [tag for tag in tags.get(name, []) if tag != _compute_tag(key, name, content)]
        tags[name] = [*known, _compute_tag(key, name, content)][-_TAGS_PER_FILE:]
    return {"key": _compute_fingerprint(key), "tags": tags}


def explain_missing_key() -> str:
    """Return why runs of this user can't be proven, such as a read-only home folder; empty where they can."""
    try:
        _read_user_key(create=True)
    except NoKeyError as error:
        return str(error)
    return ""


def explain_unproven(folder: Path) -> str:
    """Return why it is not proven that this user created what `folder` holds; an empty text where it is.

    Args:
        folder: a run's, or that of a version's files.
    """
    run_id, proof = _read_proof(folder)
    if not proof:
        return "nothing in it proves that you created it"
    try:
        key = _get_run_key(run_id, create=False)
    except NoKeyError as error:
        return f"whether you created it can't be checked: {error}"
    # The fingerprint separates another user's run from an edited one of this user.
    if not hmac.compare_digest(str(proof.get("key", "")), _compute_fingerprint(key)):
        return "it was created by another user, or on another machine"
    for name in PROVEN:
        if not _is_proven(key, folder / name, proof):
            return f"its {name} is not the one that you created it with"
    return ""


def export_run_keys(run_ids: Iterable[str]) -> str:
    """Return the value of `MLSCALE_RUN_KEY` with which another machine can check and resume these runs of the user.

    Raises:
        NoKeyError: there is no key.
    """
    return ",".join(f"{run_id}:{_get_run_key(run_id, create=False).hex()}" for run_id in run_ids)


def _read_proof(folder: Path) -> tuple[str, Mapping[str, Any]]:
    """Return the id of the run that made `folder`, and the proof in its run.json or its version's record."""
    with contextlib.suppress(MLScaleError):
        if (folder / "run.json").is_file():
            document = read_json(folder / "run.json")
        else:
            document = read_json(folder.parent / "version.json").get("run") or {}
        proof = document.get("proof")
        if isinstance(proof, Mapping) and isinstance(proof.get("tags"), Mapping):
            return str(document.get("id")), proof
    return "", {}


def _is_proven(key: bytes, path: Path, proof: Mapping[str, Any]) -> bool:
    """Return True if a file's content was proven, or the file is absent: then nothing of it is imported."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    tags = proof["tags"].get(path.name)
    tag = _compute_tag(key, path.name, content)
    return isinstance(tags, list) and any(hmac.compare_digest(str(known), tag) for known in tags)


def _compute_tag(key: bytes, name: str, content: bytes) -> str:
    # With the name, so that one file's content can't be used under the name of another.
    return hmac.new(key, name.encode() + b"\0" + content, hashlib.sha256).hexdigest()


def _compute_fingerprint(key: bytes) -> str:
    """Return 16 hex digits that identify a run's key without disclosing it."""
    return hmac.new(key, b"fingerprint", hashlib.sha256).hexdigest()[:16]


def _get_run_key(run_id: str, *, create: bool) -> bytes:
    """Return the key of one run: from the environment, or derived from the user's key.

    Raises:
        NoKeyError: neither exists.
    """
    given = dict(entry.strip().split(":", 1) for entry in os.environ.get(VARIABLE, "").split(",") if ":" in entry)
    if run_id in given:
        return _parse_key(given[run_id], VARIABLE)
    return hmac.new(_read_user_key(create=create), run_id.encode(), hashlib.sha256).digest()


def _read_user_key(*, create: bool) -> bytes:
    path = get_state_folder() / "run.key"
    try:
        if create and not path.exists():
            _make_key(path)
        with path.open(encoding="ascii") as file:
            about = os.fstat(file.fileno())
            # With a key that other users can write, they could prove any run as this user's.
            if about.st_uid != os.geteuid() or about.st_mode & 0o022:
                raise NoKeyError(f"{path} may be written by other users")
            return _parse_key(file.read().strip(), str(path))
    except UnicodeDecodeError:
        return _parse_key("", str(path))
    except OSError as error:
        raise NoKeyError(f"{path}: {error.strerror or error}") from error


def _make_key(path: Path) -> None:
    """Write a new key atomically; of several processes that do so at once the first one wins."""
    path.parent.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE), "w", encoding="ascii") as file:
            file.write(secrets.token_hex(_KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        # A link, not a rename: it fails if another process was faster, whose runs may have used its key already.
        with contextlib.suppress(FileExistsError):
            os.link(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _parse_key(text: str, where: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise NoKeyError(f"{where} holds no key; remove it, and a new one is made")
    return key
