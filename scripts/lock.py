"""Write requirements.lock: a version and hashes for every package that mlscale, its extras and the tools need.

    pip install uv
    python -m scripts.lock                     # keep the versions that are in it, add what is new
    python -m scripts.lock --upgrade           # the newest versions that pyproject.toml allows
    python -m scripts.lock --upgrade ruff      # of one package

The lock is for Python 3.11.5 or later, and tested on Linux. Not in it are torch and torchvision, whose builds differ
from machine to machine (CPU, CUDA, ROCm), and the packages that such a build brings.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
_OF_A_BUILD = re.compile(
    r"torch|torchvision|triton|triton-\S+|pytorch-triton\S*|(?:nvidia|cuda)-\S+|pip"
)  # pip: not its own
_PYTHON = "3.11.5"  # what mkdocs-material's extensions ask for
_HEADER = """\
# The tested set, on Linux, for Python 3.11.5 or later: pip install --require-hashes --no-deps -r requirements.lock
# torch and torchvision are not in it, so that a CPU, CUDA or ROCm build can be chosen; 2.13 and 0.28 were tested.
# Written by: python -m scripts.lock
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upgrade", nargs="*", metavar="PACKAGE", help="newer versions: of all, or of these")
    options = parser.parse_args()
    text = "".join(keep_locked(resolve(options.upgrade)))
    LOCK.write_text(_HEADER + text, encoding="utf-8")
    print(f"{LOCK.name}: {len(read_pins(text))} packages, {text.count('--hash=')} hashes")


def resolve(upgrade: Sequence[str] | None) -> str:
    """Return what uv resolves for the extra `dev`, which has all others; the versions in the lock are preferred.

    Args:
        upgrade: packages that may get a newer version; () for all, None for none.
    """
    uv = shutil.which("uv")
    if uv is None:
        sys.exit("uv is not installed\n  fix:   pip install uv")
    command = [uv, "pip", "compile", "--quiet", "--universal", "--python-version", _PYTHON, "--extra", "dev"]
    command += ["--generate-hashes", "--no-header", "--no-annotate", "pyproject.toml"]
    if upgrade is not None:
        command += [f"--upgrade-package={name}" for name in upgrade] or ["--upgrade"]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, LOCK.name)
        if LOCK.is_file():
            shutil.copy(LOCK, output)  # uv prefers the versions that its output file has
        if code := subprocess.run([*command, "--output-file", output], cwd=ROOT).returncode:
            sys.exit(code)
        return output.read_text(encoding="utf-8")


def keep_locked(resolved: str) -> Iterator[str]:
    """Yield the entries of the lock: a package, its version and its hashes, without those of a build of torch."""
    for entry in re.findall(r"^\S.*\n(?:[ \t].*\n)*", resolved, flags=re.MULTILINE):
        if not _OF_A_BUILD.fullmatch(entry.partition("==")[0]):
            yield entry


def read_pins(text: str) -> list[str]:
    """Return the lines `name==version; marker` of a lock, without its hashes: constraints for pip."""
    return [line.removesuffix("\\").strip() for line in text.splitlines() if re.match(r"[\w.-]+==", line)]


if __name__ == "__main__":
    main()
