"""Record the fix of every error that tests make, and check the recorded ones: what the source alone does not show.

MLSCALE_RECORD_FIXES=fixes.jsonl python -m pytest -p tests.fixes.recorder tests/unit/config
python -m tests.fixes.recorder fixes.jsonl
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import mlscale
from mlscale.errors import MLScaleError
from tests.fixes.checks import check_fix
from tests.fixes.grammar import parse_fix

VARIABLE = "MLSCALE_RECORD_FIXES"


def pytest_configure() -> None:
    """Let every error that is made in this process, or in one forked from it, add a line to the file."""
    if file := os.environ.get(VARIABLE):
        _record_errors(Path(file).absolute())


def _record_errors(file: Path) -> None:
    make = MLScaleError.__init__

    def make_and_record(error: MLScaleError, *args: Any, **kwargs: Any) -> None:
        make(error, *args, **kwargs)
        if error.fix:
            maker = next(frame for frame in traceback.extract_stack()[-2::-1] if "errors.py" not in frame.filename)
            place = f"{os.path.relpath(maker.filename, Path(mlscale.__file__).parent)}:{maker.lineno}"
            with file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({"place": place, "what": error.what, "fix": error.fix}) + "\n")

    MLScaleError.__init__ = make_and_record  # type: ignore[method-assign, assignment]


def report_recorded(file: Path) -> int:
    """Print what is wrong with the recorded fixes, each once, and how many there are; return the exit code."""
    recorded = {line["fix"]: line for line in map(json.loads, file.read_text(encoding="utf-8").splitlines())}
    kinds = Counter(parse_fix(fix)[0].kind for fix in recorded)
    wrong = [f"{line['place']}: {problem}" for fix, line in recorded.items() for problem in check_fix(fix)]
    print(*wrong, sep="\n")
    print(f"{len(recorded)} fixes: {dict(kinds)}; {len(wrong)} problems")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(report_recorded(Path(sys.argv[1])))
