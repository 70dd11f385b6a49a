"""Print the section of CHANGELOG.md for a release, and refuse a tag that the project is not ready for.

    python -m scripts.changelog_section v0.2.0

The tag must be the version of pyproject.toml, and its section must have a date instead of 'unreleased'.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def extract_section(changelog: str, version: str) -> str:
    """Return the text below the heading of a version.

    Raises:
        ValueError: it has no section, or one that is not dated.
    """
    match = re.search(
        rf"^## {re.escape(version)}, (?P<date>.+)\n(?P<text>(?:(?!## ).*\n?)*)", changelog, flags=re.MULTILINE
    )
    if match is None:
        raise ValueError(f"CHANGELOG.md has no section '## {version}, <date>'")
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", match["date"]):
        raise ValueError(f"CHANGELOG.md: {version} is '{match['date']}', not a date such as 2027-01-31")
    return match["text"].strip() + "\n"


def check_tag(tag: str, project: str) -> str:
    """Return the version of a tag.

    Raises:
        ValueError: it is not the version in the text of pyproject.toml.
    """
    version = tomllib.loads(project)["project"]["version"]
    if tag != f"v{version}":
        raise ValueError(f"the tag {tag} is not v{version}, the version of pyproject.toml")
    return str(version)


def main() -> int:
    """Print the section of the tag that is named; return 1 where the project is not ready for it."""
    try:
        version = check_tag(sys.argv[1], (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        print(extract_section((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version), end="")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
