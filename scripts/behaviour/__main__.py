"""The command line: `python -m scripts.behaviour record|compare FOLDER`, see the package."""

from __future__ import annotations

import argparse
import difflib
import json
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from scripts.behaviour import __doc__ as usage
from scripts.behaviour.parts import SMALL, PartError, Place, build_parts, start_run

_SHOWN = 40  # lines of a difference


def main() -> int:
    """Record or compare; return the exit code."""
    parser = argparse.ArgumentParser(description=usage, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("record", "compare"))
    parser.add_argument("folder", type=Path, help="of the record")
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="of the version's environment")
    parser.add_argument("--all", action="store_true", help="compare all parts, not the small size")
    parser.add_argument("--parts", nargs="*", help="compare these alone: names, or patterns such as 'run/gpt-*'")
    parser.add_argument("--again", action="store_true", help="make again what an earlier comparison has made")
    args = parser.parse_args()
    record = args.folder.resolve()
    place = Place(args.python.absolute(), record, record / ("made" if args.action == "record" else "compared"))
    if args.again:
        shutil.rmtree(place.folder, ignore_errors=True)
    place.folder.mkdir(parents=True, exist_ok=True)
    wanted = args.parts or (["*"] if args.all or args.action == "record" else SMALL)
    if args.action == "record":
        (record / "machine.json").write_text(json.dumps(describe_machine(place)))
    elif describe_machine(place) != json.loads((record / "machine.json").read_text()):
        parser.error("the record is of another machine or of other packages, whose digests differ")
    differing = 0
    for name, part in build_parts().items():
        if not any(fnmatch(name, pattern) for pattern in wanted):
            continue
        begin = time.monotonic()
        file, recorded = (folder / "parts" / f"{name}.json" for folder in (place.folder, record / "made"))
        try:
            if args.action == "record":
                prepare_part(place, name)
            elif not recorded.exists():
                raise PartError("is not recorded: record it first")
            if not file.exists():
                found = part(place)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
            lines = list(list_differences(recorded, file))
        except PartError as error:
            lines = [str(error)]
        differing += bool(lines)
        state = "recorded" if args.action == "record" else "the same"
        print(f"{name:24} {'DIFFERS' if lines else state}  {time.monotonic() - begin:.0f} s", flush=True)
        print("".join(f"    {line}\n" for line in lines[:_SHOWN]), end="", flush=True)
    return int(differing > 0)


def prepare_part(place: Place, name: str) -> None:
    """Store what a part of the record takes in, if it is not there yet: servables, logs, words, runs cut short."""
    kind, _, rest = name.partition("/")
    if kind == "served" and not (place.record / "servables" / rest).exists():
        shutil.copytree(place.find_run(f"{rest}-1") / "servable", place.record / "servables" / rest)
    if kind == "streams" and not (place.record / "streams").exists():
        place.job("write", place.record)
    if kind == "wrong" and not (place.record / "wrong_words.json").exists():
        (place.record / "wrong_words.json").write_text(json.dumps(place.job("draw", place.record)))
    if kind == "folder" and not (place.record / "halves" / rest).exists():
        half = Place(place.python, place.record, place.folder / "cut" / rest)
        half.folder.mkdir(parents=True, exist_ok=True)
        start_run(half, *rest.split("-"))
        shutil.copytree(half.folder / "runs", place.record / "halves" / rest / "runs")


def describe_machine(place: Place) -> dict[str, Any]:
    """Return what digests depend on beside the code: the kind of CPU and the versions of packages."""
    code = (
        "import json; from importlib.metadata import distributions;"
        "print(json.dumps(sorted({f'{d.name}=={d.version}' for d in distributions() if d.name != 'mlscale'})))"
    )
    flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")
    return {"machine": platform.machine(), "flags": flags, "packages": json.loads(place.run("-c", code))}


def list_differences(one: Path, other: Path) -> Iterator[str]:
    """Yield what two files of a part differ in, as lines of a diff."""
    old, new = (path.read_text().splitlines() for path in (one, other))
    for line in difflib.unified_diff(old, new, "recorded", "now", lineterm="", n=1):
        if not line.startswith(("---", "+++")):
            yield line[:300]


if __name__ == "__main__":
    sys.exit(main())
