"""Count the passed tests of some files, by pytest's report: a file whose tests were all skipped proves nothing.

    python -m pytest --junitxml=report.xml
    python -m scripts.count_passed report.xml 100 tests/e2e/test_v2_conformance.py …

Exit code 1 where fewer than so many have passed.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree


def count_outcomes(report: Path, files: Sequence[str]) -> Counter[str]:
    """Return how many tests of the files have passed, were skipped and failed."""
    modules = tuple(file.removesuffix(".py").replace("/", ".") for file in files)
    outcomes: Counter[str] = Counter()
    for case in ElementTree.parse(report).iter("testcase"):
        # A test of a class has the class at the end.
        if f"{case.get('classname', '')}.".startswith(tuple(f"{module}." for module in modules)):
            found = {child.tag for child in case}
            bad = found & {"failure", "error"}
            outcomes["failed" if bad else "skipped" if "skipped" in found else "passed"] += 1
    return outcomes


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the counts; return 1 where too few have passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="of pytest --junitxml")
    parser.add_argument("least", type=int, help="tests that must have passed")
    parser.add_argument("files", nargs="+", help="as pytest names them")
    given = parser.parse_args(arguments)
    outcomes = count_outcomes(given.report, given.files)
    has_enough = outcomes["passed"] >= given.least
    counts = ", ".join(f"{outcomes[outcome]} {outcome}" for outcome in ("passed", "skipped", "failed"))
    print(f"{', '.join(given.files)}: {counts}; {given.least} must pass{'' if has_enough else ': TOO FEW'}")
    return int(not has_enough)


if __name__ == "__main__":
    sys.exit(main())
