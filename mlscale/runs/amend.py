"""What a verb replaces in a run that is sealed already, the seal knows anew."""

from __future__ import annotations

from pathlib import Path

from mlscale.files import artefacts, read_json, sha256, write_json

_MANIFEST = "manifest.json"


def amend(run: Path, *names: str) -> None:
    """Let the manifest of `run` list the files that are there now, in place of those that it lists by these names.

    Only what the run itself has left under a name is told anew: a verb's own additions belong to no seal.

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
        found = [run / name] if (run / name).is_file() else list(artefacts(run / name))
        for file in found:
            manifest["artefacts"][file.relative_to(run).as_posix()] = {
                "sha256": sha256(file),
                "bytes": file.stat().st_size,
            }
    write_json(run / _MANIFEST, manifest)
