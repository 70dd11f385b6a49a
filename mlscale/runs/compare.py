"""Compare two runs: settings, derived values, metrics, code and packages."""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlscale.runs.folder import RunFolder
from mlscale.runs.recover import CONFIG, read_yaml_values, warn_once

Pairs = dict[str, tuple[Any, Any]]  # name to its values in both runs; None where one lacks it
_NO_SETTING = ("derived", "hydra")  # derived values are compared on their own


@dataclass(frozen=True)
class RunComparison:
    """The differences between two runs.

    Attributes:
        config: key paths whose values differ.
        derived: derived values that differ.
        metrics: every metric of either.
        facts: other inputs that differ: seed, data version, commit, parent.
        code: paths of code files that differ.
        packages: distributions whose versions differ.
    """

    config: Pairs
    derived: Pairs
    metrics: Pairs
    facts: Pairs
    code: tuple[str, ...]
    packages: Pairs

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as a dict; for JSON, pairs become lists of two."""
        return asdict(self)


def compare_runs(first: RunFolder, second: RunFolder) -> RunComparison:
    """Return the differences between two runs."""
    runs, manifests = (first.run, second.run), (first.manifest or {}, second.manifest or {})
    return RunComparison(
        config=diff_mappings(_read_settings(first), _read_settings(second)),
        derived=diff_mappings(
            # These two are the run's own identity: they differ between any two runs.
            *({k: v for k, v in run.derived.items() if k not in ("run_dir", "name")} for run in (first, second))
        ),
        metrics=_combine_values(*(manifest.get("metrics", {}) for manifest in manifests)),
        facts=diff_mappings(*map(_collect_facts, runs)),
        code=_find_changed_code(first.path, second.path),
        # Only a sealed run lists packages: compared with an unsealed one, every package would differ.
        packages=diff_mappings(*(manifest.get("packages", {}) for manifest in manifests)) if all(manifests) else {},
    )


def flatten_mapping(node: object, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield key paths and values of nested mappings; lists and empty mappings are values."""
    if isinstance(node, Mapping) and node:
        for key, child in node.items():
            yield from flatten_mapping(child, f"{path}.{key}" if path else str(key))
    elif path:
        yield path, node


def diff_mappings(first: Mapping[str, Any], second: Mapping[str, Any]) -> Pairs:
    """Return the entries that are not the same in both."""
    return {name: pair for name, pair in _combine_values(first, second).items() if pair[0] != pair[1]}


def _combine_values(first: Mapping[str, Any], second: Mapping[str, Any]) -> Pairs:
    names = [*first, *(name for name in second if name not in first)]
    return {name: (first.get(name), second.get(name)) for name in names}


def _read_settings(run: RunFolder) -> dict[str, Any]:
    config = read_yaml_values(run.path / CONFIG)
    return dict(flatten_mapping({key: value for key, value in config.items() if key not in _NO_SETTING}))


def _collect_facts(run: Mapping[str, Any]) -> dict[str, Any]:
    code = run["code"] or {}
    facts = {key: run[key] for key in ("verb", "seed", "data_version", "order_version", "parent")}
    return {
        **facts,
        "label_digest": run.get("label_digest"),
        "commit": code.get("commit"),
        "uncommitted_changes": code.get("dirty"),
    }


def _find_changed_code(first: Path, second: Path) -> tuple[str, ...]:
    digests = [_hash_archived_files(folder / "code.tar.gz") for folder in (first, second)]
    return tuple(sorted(diff_mappings(*digests)))


def _hash_archived_files(archive: Path) -> dict[str, str]:
    """Return the SHA-256 of each file in a code snapshot, by path; nothing is unpacked to the disk."""
    if not archive.is_file():
        return {}
    hashes = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for entry in tar:
                content = tar.extractfile(entry)
                if content is not None:
                    hashes[entry.name] = hashlib.sha256(content.read()).hexdigest()
    except (tarfile.TarError, OSError, EOFError, zlib.error, UnicodeError, ValueError) as error:
        warn_once(f"{archive} is corrupt ({error}): not every difference of the code is known")
    return hashes
