"""Licences of what a plain ``pip install mlscale`` brings: all permissive, or excepted here with a reason.

python -m scripts.check_licences /path/to/an/environment/with/the/core/alone/bin/python
"""

from __future__ import annotations

import json
import re
import subprocess
import sys

# Names as packages write them: SPDX identifiers, and the classifiers of older metadata. BSL-1.0 is Boost's licence; the
# Business Source License is BUSL-1.1.
PERMISSIVE = {
    "0BSD", "3-Clause BSD License", "Apache Software License", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD",
    "BSD License", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "ISC", "ISC License (ISCL)", "MIT",
    "MIT License", "MIT-CMU", "PSF-2.0", "Python Software Foundation License", "Unlicense", "Zlib",
}  # fmt: skip

# Package name, or its beginning with a star: the licence it may have, and why that is no burden.
EXCEPTIONS = {
    "certifi": ("Mozilla Public License 2.0 (MPL 2.0)", "a list of certificates; copyleft by file, used unchanged"),
    "tqdm": ("MPL-2.0", "copyleft by file, used unchanged"),
    "cuda-*": ("any", "NVIDIA's bindings and runtime: proprietary, free to redistribute; with torch's CUDA build only"),
    "nvidia-*": ("any", "NVIDIA's runtime libraries: proprietary, free to redistribute; with torch's CUDA build only"),
}


def refused(name: str, licence: str) -> list[str]:
    """The parts of a licence expression that are neither permissive nor excepted for this package.

    Of alternatives (``OR``) all must do: which one was chosen is nowhere written down.
    """
    parts = [_unwrap(part.strip()) for part in re.split(r"\bAND\b|\bOR\b|;", licence)]
    return [part for part in parts if part not in PERMISSIVE and not _excepted(name, part)]


def _unwrap(part: str) -> str:
    """Without the brackets that a split left open: ``(MIT`` of ``(MIT OR Zlib)``, but not those of ``(ISCL)``."""
    extra = part.count("(") - part.count(")")
    return part[extra:] if extra > 0 and part.startswith("(" * extra) else part[: len(part) + min(extra, 0)]


def _excepted(name: str, part: str) -> bool:
    for pattern, (licence, _) in EXCEPTIONS.items():
        if (name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern) and licence in ("any", part):
            return True
    return False


def main(python: str) -> None:
    command = [sys.executable, "-m", "piplicenses", "--python", python, "--format=json", "--with-system"]
    rows = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    rows = [row for row in rows if row["Name"] != "pip"]  # the installer, not a dependency
    problems = [
        f"{row['Name']} {row['Version']}: {bad}" for row in rows for bad in refused(row["Name"], row["License"])
    ]
    if len(rows) < 10:
        sys.exit(f"only {len(rows)} packages found with {python}: not the core")
    if problems:
        sys.exit("\n".join(["licences that are not permissive, or not known:", *problems]))
    print(f"{len(rows)} packages, all permissive; excepted: " + ", ".join(sorted(EXCEPTIONS)))


if __name__ == "__main__":
    main(*sys.argv[1:])
