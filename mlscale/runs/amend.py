"""Update the manifest of a sealed run after a command has replaced some of its files, or before it removes some."""

from __future__ import annotations

from pathlib import Path

from mlscale.atomic_files import compute_sha256, iterate_regular_files, read_json, write_json

_MANIFEST = "manifest.json"


def update_manifest(run: Path, *names: str) -> None:
    """Update the manifest's entries of `names` to the files that exist now.

    Names that the manifest does not list are skipped: files that a later command added are not part of the seal.

    Args:
        run: its folder; without a manifest nothing happens.
        names: files or folders in it, such as `compressed`.
    """
    if not (run / _MANIFEST).is_file():
        return
    manifest = read_json(run / _MANIFEST)
    for name in names:
        listed = [path for path in manifest["artefacts"] if path == name or path.startswith(f"{name}/")]
        if not listed:
            continue
        for path in listed:
            del manifest["artefacts"][path]
        # A command may write other files than before, so old entries are dropped first and the folder is listed again.
        files = [run / name] if (run / name).is_file() else list(iterate_regular_files(run / name))
        for file in files:
            manifest["artefacts"][file.relative_to(run).as_posix()] = {
                "sha256": compute_sha256(file),
                "bytes": file.stat().st_size,
            }
    write_json(run / _MANIFEST, manifest)


def forget_artefacts(run: Path, *names: str) -> None:
    """Remove the entries of `names`, files or folders, from the manifest of the run in the folder `run`, if sealed."""
    if not names or not (run / _MANIFEST).is_file():
        return
    manifest = read_json(run / _MANIFEST)
    folders = tuple(f"{name}/" for name in names)
    manifest["artefacts"] = {
        path: entry
        for path, entry in manifest["artefacts"].items()
        if path not in names and not path.startswith(folders)
    }
    write_json(run / _MANIFEST, manifest)
