"""Identity of runs: ids, folder names, and the hash of what a config computes."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import threading
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

# Crockford's Base32: no i, l, o, u, so that an id can be read aloud and sorts as its number does.
_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
_EPOCH = 1735689600  # 2025-01-01 UTC
_TICKS = 32  # of a second; 35 bits of them last 34 years
_TIME_DIGITS, _RANDOM_DIGITS = 7, 5
ID_LENGTH = _TIME_DIGITS + _RANDOM_DIGITS
_DIGEST_LENGTH = 8  # of a key's digest: enough to detect an edit

# Keys for the place, the layout or the name of a run, which do not change what it computes.
UNHASHED = (
    "launch",
    "logger",
    "registry",
    "target",
    "derived",
    "hydra",
    "runs_dir",
    "output",
    "log_format",
    "name",
    "tags",
    "notes",
    "snapshot",
    "like",
    "resume",
    "trust",
    "debugger",
    "trainer.max_time",
    "trainer.devices",
    "trainer.accelerator",
    "trainer.num_nodes",
)
# Keys that were added later, and their defaults: left out of the hash, so that older runs keep theirs.
_LATER_KEYS: Mapping[str, Any] = {
    "init_from": None, "init_strict": True, "param_groups": [], "layer_decay": 1.0, "precision.memory_format": None,
    "precision.compare": False, "precision.loss_scale": 65536.0, "precision.growth_interval": 2000,
    "precision.max_skipped": 20, "precision.on_cpu": False,
}  # fmt: skip
# Groups that are gone, as a config had them that chose none: they stay in the hash, for the same reason.
_FORMER_GROUPS: Mapping[str, Any] = {"monitor": {}}


_newest = 0  # the last id that this process made, as a number
_id_lock = threading.Lock()


def generate_id() -> str:
    """Return a new run id: 12 characters, of which 7 are the time, so that ids sort by it, and 5 are random.

    A process never makes one twice, and its ids sort in the order in which they were made: within a tick the next
    one is the last plus one, as in ULID (https://github.com/ulid/spec, 'Monotonicity').
    """
    global _newest
    # The remainder keeps the number of digits after 34 years, when ids begin to repeat their times.
    ticks = int((time.time() - _EPOCH) * _TICKS) % 32**_TIME_DIGITS
    with _id_lock:
        fresh = ticks * 32**_RANDOM_DIGITS + secrets.randbelow(32**_RANDOM_DIGITS)
        same_tick = _newest // 32**_RANDOM_DIGITS == ticks
        _newest = _newest + 1 if same_tick else fresh
        return _encode_base32(_newest, ID_LENGTH)


def parse_start_time(run_id: str) -> str | None:
    """Return the time in a run id, ISO 8601 with its zone; None where the text is not an id."""
    if len(run_id) != ID_LENGTH or not set(run_id) <= set(_DIGITS):
        return None
    ticks = 0
    for digit in run_id[:_TIME_DIGITS]:
        ticks = 32 * ticks + _DIGITS.index(digit)
    return datetime.fromtimestamp(_EPOCH + ticks / _TICKS).astimezone().isoformat(timespec="milliseconds")


def get_current_time() -> str:
    """Return the current time, ISO 8601 with its zone."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


def make_folder_name(name: str) -> str:
    """Return a run's name for use in a path: letters, digits, dots, dashes and underscores; at most 80 characters."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._-")[:80] or "run"


def compute_config_hash(config_yaml: str) -> str:
    """Return the SHA-256, in hex, of what a config computes: without key order, devices, launch, loggers and names."""
    import yaml

    config = yaml.safe_load(config_yaml) or {}
    return _hash_value(_select_hashed_keys(config))


def compute_key_digests(config_yaml: str) -> dict[str, str]:
    """Return a short digest of each key that `compute_config_hash` covers, by its path, to find the keys
    that differ."""
    import yaml

    leaves = _flatten_leaves(_select_hashed_keys(yaml.safe_load(config_yaml) or {}))
    return {key: _hash_value(leaves[key])[:_DIGEST_LENGTH] for key in sorted(leaves)}


def find_differing_keys(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the keys in which two configs compute something else, sorted; groups that are gone changed no weights."""
    first, second = _flatten_leaves(_select_hashed_keys(one)), _flatten_leaves(_select_hashed_keys(other))
    differing = (key for key in {*first, *second} if first.get(key) != second.get(key))
    return sorted(key for key in differing if key.partition(".")[0] not in _FORMER_GROUPS)


def _hash_value(value: object) -> str:
    # `default=str`: YAML reads dates as `datetime.date`, which JSON does not have.
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _flatten_leaves(value: object, path: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        return {
            key: leaf for name, part in value.items() for key, leaf in _flatten_leaves(part, f"{path}.{name}").items()
        }
    return {path.lstrip("."): value}


def _select_hashed_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    top = {**_FORMER_GROUPS, **{str(key): value for key, value in config.items()}}
    for path, default in _LATER_KEYS.items():  # at their defaults, these keys leave the hash as it was without them
        group, _, key = path.rpartition(".")
        if group and isinstance(top.get(group), dict):
            top[group] = dict(top[group])
        node = top.get(group) if group else top
        if isinstance(node, dict) and node.get(key) in (None, default):
            node.pop(key, None)
    for path in UNHASHED:
        group, _, key = path.partition(".")
        if not key:
            top.pop(group, None)
        elif isinstance(top.get(group), dict):
            top[group] = {name: value for name, value in top[group].items() if name != key}
    return top


def _encode_base32(number: int, digits: int) -> str:
    text = ""
    for _ in range(digits):
        number, digit = divmod(number, 32)
        text = _DIGITS[digit] + text
    return text
