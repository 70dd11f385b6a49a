"""Detect edits of a run's config after the run had started, and list the edited keys.

`run.json` holds the config's hash and a digest of each key, `manifest.json` the digests of the files as they were
sealed.
"""

from __future__ import annotations

from mlscale.atomic_files import compute_sha256
from mlscale.runs.folder import RunFolder
from mlscale.runs.identity import compute_config_hash, compute_key_digests
from mlscale.runs.ownership import explain_unproven
from mlscale.runs.recover import CONFIG, DERIVED, warn_once

_SHOWN = 10  # keys in a line


def report_edits(run: RunFolder) -> None:
    """Print a warning for a run whose config or derived values are not those that it was trained with, once."""
    if line := describe_edits(run):
        warn_once(line)


def describe_edits(run: RunFolder) -> str:
    """Return one line about edits of a run's config; empty where it is unchanged.

    Raises:
        MLScaleError: config.yaml can't be read.
    """
    if is_edited(run):
        keys = list_edited_keys(run)
        named = ", ".join(keys[:_SHOWN]) + (f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else "")
        changed = f"{CONFIG}: {named or 'which keys is not recorded'}"
    elif _is_changed_since_seal(run, DERIVED):
        changed = DERIVED
    else:
        return ""
    return f"{run.path.name} was edited after it was trained: {changed}; its checkpoints are of what it was"


def is_edited(run: RunFolder) -> bool:
    """Return True if config.yaml computes something else than the run did; names, paths and devices don't count."""
    document, text = run.run, run.config_text
    if document.get("rebuilt"):  # its hash is that of the config as it is now
        return _is_changed_since_seal(run, CONFIG)
    if document["config_hash"] == compute_config_hash(text):
        return False
    if document.get("config_digests"):
        return bool(list_edited_keys(run))
    return bool(explain_unproven(run.path))  # a proof that holds: an earlier mlscale hashed the same config otherwise


def list_edited_keys(run: RunFolder) -> list[str]:
    """Return the keys of config.yaml that differ from what the run started with, sorted; empty where none was
    recorded, as in runs of earlier versions."""
    before, now = run.run.get("config_digests") or {}, compute_key_digests(run.config_text)
    if not before:
        return []
    return sorted(key for key in {*before, *now} if before.get(key) != now.get(key))


def _is_changed_since_seal(run: RunFolder, name: str) -> bool:
    entry = ((run.manifest or {}).get("artefacts") or {}).get(name)
    path = run.path / name
    return isinstance(entry, dict) and path.is_file() and compute_sha256(path) != entry.get("sha256")
