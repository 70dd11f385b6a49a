"""Measure how much code mlscale is, by package, against a budget.

    python -m scripts.measure_size            # code lines, tokens, lines of data; the budget
    python -m scripts.measure_size --check    # exit code 1 if a package is above its budget

A code line holds code as ruff formats it: no blank line, comment or docstring. Tokens are counted as well, so that
dense lines save nothing; lines of YAML, JSON and HTML, so that nothing is saved by a move into data. The budgets are
those of `size_budgets.yaml`: lower one when a package shrank; who raises one says in the commit what the lines buy.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from scripts.measured_code import Code, read_code

ROOT = Path(__file__).resolve().parents[1]
BUDGETS = Path(__file__).with_name("size_budgets.yaml")
_DATA = (".yaml", ".json", ".html")


def list_excesses(lines: Counter[str], budgets: dict[str, int]) -> list[str]:
    """Return a sentence for each package that is above its budget or has none, and for each budget of no package."""
    found = [
        f"{name} has {count} code lines, its budget is {budgets.get(name, 0)}: take code out, or raise it in "
        f"scripts/{BUDGETS.name} and say in the commit what the lines buy"
        for name, count in sorted(lines.items())
        if count > budgets.get(name, 0)
    ]
    return found + [f"{name} has a budget and no code: remove it" for name in sorted(budgets.keys() - lines.keys())]


def count_lines(code: Code) -> Counter[str]:
    """Count code lines by package; single modules of mlscale/ are the package `mlscale`, scripts are `scripts`."""
    return _add(code.lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit code 1 if a package is above its budget")
    options = parser.parse_args(argv)
    budgets = yaml.safe_load(BUDGETS.read_text(encoding="utf-8"))
    code, scripts = read_code(ROOT), read_code(ROOT, "scripts")
    lines = count_lines(code) + count_lines(scripts)
    print("\n".join(table_lines(lines, _add(code.tokens) + _add(scripts.tokens), _count_data(), budgets)))
    excesses = list_excesses(lines, budgets) if options.check else []
    print("\n".join(excesses), end="\n" if excesses else "", file=sys.stderr)
    return 1 if excesses else 0


def table_lines(
    lines: Counter[str], tokens: Counter[str], data: Counter[str], budgets: dict[str, int]
) -> Iterator[str]:
    """Yield the lines of the table, the largest package first; the total is of mlscale/ alone."""
    yield f"{'':14} {'lines':>7} {'budget':>7} {'tokens':>8} {'YAML, JSON, HTML':>17}"
    for name, count in lines.most_common():
        yield f"{name:14} {count:7} {budgets.get(name, 0):7} {tokens[name]:8} {data[name]:17}"
    inside = [sum(counter.values()) - counter["scripts"] for counter in (lines, tokens, data)]
    budget = sum(budgets.values()) - budgets.get("scripts", 0)
    yield f"{'in all':14} {inside[0]:7} {budget:7} {inside[1]:8} {inside[2]:17}"


def _count_data() -> Counter[str]:
    files = [path for path in (ROOT / "mlscale").rglob("*") if path.suffix in _DATA]
    return _add({str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files})


def _add(by_path: dict[str, int]) -> Counter[str]:
    counted: Counter[str] = Counter()
    for path, count in by_path.items():
        parts = Path(path).parts
        counted[parts[1] if parts[0] == "mlscale" and len(parts) > 2 else parts[0]] += count
    return counted


if __name__ == "__main__":
    sys.exit(main())
