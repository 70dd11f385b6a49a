"""Known vulnerabilities of everything installed, by pip-audit; fails on any that the ignore list does not name.

    python -m scripts.audit .ci/audit-ignore.txt

Without a reachable vulnerability service nothing is audited: that is said in capitals, and does not fail the build.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from importlib.metadata import distributions
from pathlib import Path
from typing import Any


def installed() -> dict[str, str]:
    """Every installed package but our own, at its public version: ``2.13.0+cpu`` is looked up as ``2.13.0``."""
    found = {dist.metadata["Name"]: dist.version.split("+")[0] for dist in distributions()}
    return {name: version for name, version in found.items() if name != "mlscale"}


def ask(packages: dict[str, str]) -> tuple[list[dict[str, Any]], str]:
    """What pip-audit says about each package, and its complaint where it said nothing."""
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder, "pins.txt")
        pins.write_text("".join(f"{name}=={version}\n" for name, version in sorted(packages.items())))
        command = [sys.executable, "-m", "pip_audit", "--progress-spinner=off", "--format=json", "--disable-pip"]
        run = subprocess.run([*command, "--no-deps", "-r", str(pins)], capture_output=True, text=True)
    try:
        answers: list[dict[str, Any]] = json.loads(run.stdout)["dependencies"]
    except (ValueError, KeyError):
        return [], run.stderr.strip()
    return answers, ""


def ignored(path: Path) -> dict[str, str]:
    """Identifiers of the ignore list, each with its reason; one without a reason is an error."""
    reasons = {}
    for line in path.read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            identifier, _, reason = line.strip().partition(" ")
            if not reason.strip():
                sys.exit(f"{path}: {identifier} has no reason")
            reasons[identifier] = reason.strip()
    return reasons


def main(ignore_list: str) -> None:
    packages, reasons = installed(), ignored(Path(ignore_list))
    answers, complaint = ask(packages)
    audited = [answer for answer in answers if "vulns" in answer]
    if len(audited) < len(packages):
        missing = sorted(set(packages) - {answer["name"] for answer in audited})
        print(f"NOT AUDITED: {len(packages) - len(audited)} of {len(packages)} packages, for want of an answer")
        print("  " + (complaint.splitlines()[-1] if complaint else ", ".join(missing[:8]) + ", …" * (len(missing) > 8)))
    print(f"audited: {len(audited)} packages")
    failures = []
    for answer in audited:
        for vulnerability in answer["vulns"]:
            names = {vulnerability["id"], *vulnerability.get("aliases", [])}
            reason = next((reasons[name] for name in names if name in reasons), None)
            line = f"{answer['name']} {answer['version']}: {', '.join(sorted(names))}"
            print(f"  ignored: {line}: {reason}" if reason else f"  VULNERABLE: {line}")
            failures += [] if reason else [line]
    if failures:
        sys.exit(f"{len(failures)} known vulnerabilities: update the package, or give a reason in {ignore_list}")


if __name__ == "__main__":
    main(*sys.argv[1:])
