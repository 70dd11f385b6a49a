"""Test the tests: put one small fault after another into a file, and see whether a unit test notices.

    python -m scripts.mutate                                   # all files of scripts/mutation_targets.yaml
    python -m scripts.mutate mlscale/retrain/gate/group_changes.py  # one of them
    python -m scripts.mutate --sample 30 --seconds 20 --check  # 30 faults of each file at most, 20 s each at most
    python -m scripts.mutate --seconds 20 --seed 7             # other faults, where 20 s are not enough for all of them

Printed for each file: faults that a test noticed (killed), that none noticed (survived), and that made tests endless
(timeout, which counts as noticed); then each survivor as a diff. `equivalent` in the file of targets names faults that
change nothing, with the reason. `--check` fails where the share of noticed faults is below the floor; where a part of
the faults ran, only if chance does not explain it.

One process imports everything and collects the tests. Each fault is put into the functions of a child that is forked
from it, which runs the tests that call the function, the quickest first, until one fails or its time is over.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import random
import sys
import time
import types
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import yaml

from scripts.limited_child import limit_cpu_seconds, run_child
from scripts.mutants import REACHED, Mutant, list_mutants, mark_functions

ROOT = Path(__file__).resolve().parents[1]
TARGETS = ROOT / "scripts" / "mutation_targets.yaml"
FLOOR = 0.85
_CHANCE = 0.05  # that a file at the floor fails a check by the faults that were drawn
# Imported before the fork, or each child would; nothing of it has computed anything then.
_PRELOAD = (
    "scipy.stats",
    "scipy.optimize",
    "torch",
    "pytorch_lightning",
    "hydra",
    "onnx",
    "onnxruntime",
    "pyarrow.parquet",
)
_SLOWEST = 2.0


@dataclass(frozen=True)
class Target:
    """A file and what notices its faults.

    Attributes:
        path: the file.
        tests: the test files that are about it.
        equivalent: the faults that change nothing, with the reason.
        slowest: the CPU seconds that a test may take, which runs for each fault.
    """

    path: str
    tests: tuple[str, ...]
    equivalent: dict[str, str]
    slowest: float


@dataclass
class Score:
    """What happened to the faults of one file."""

    target: Target
    killed: int = 0
    timeouts: int = 0
    equivalent: int = 0
    survived: list[Mutant] = field(default_factory=list)
    left_out: int = 0
    seconds: float = 0.0

    @property
    def share(self) -> float:
        noticed = self.killed + self.timeouts
        return noticed / (noticed + len(self.survived)) if noticed or self.survived else 1.0

    def is_below(self, floor: float) -> bool:
        """Return whether too few faults were noticed: of a part of them, fewer than chance explains."""
        from scipy.stats import binom

        if not self.left_out:
            return self.share < floor
        # A sample of a file that is a little above the floor is below it on many nights.
        noticed = self.killed + self.timeouts
        return bool(binom.cdf(noticed, noticed + len(self.survived), floor) < _CHANCE)

    def format_report(self) -> str:
        """Return the share and the numbers in a line, then a diff of each that survived."""
        left = f", {self.left_out} not run" if self.left_out else ""
        line = (
            f"{self.share:6.1%}  {self.target.path}: {self.killed} killed, {len(self.survived)} survived, "
            f"{self.timeouts} timeout, {self.equivalent} equivalent{left} ({self.seconds:.0f} s)"
        )
        return "\n".join([line, *(mutant.format_diff(self.target.path) for mutant in self.survived)])


def load_targets(path: Path = TARGETS) -> list[Target]:
    """Return the files to mutate, with their tests."""
    return [
        Target(name, tuple(entry["tests"]), entry.get("equivalent", {}), entry.get("slowest", _SLOWEST))
        for name, entry in yaml.safe_load(path.read_text()).items()
    ]


class MutationRun:
    """A pytest plugin: in place of running the collected tests once, runs them for each fault."""

    def __init__(self, targets: Sequence[Target], sample: int | None, seconds: float, seed: int) -> None:
        self.targets, self.sample, self.seconds, self.seed = targets, sample, seconds, seed
        self.scores: list[Score] = []
        self.broken: list[str] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        for name in _PRELOAD:
            importlib.import_module(name)
        for target in self.targets:
            importlib.import_module(target.path.removesuffix(".py").replace("/", "."))
        gc.unfreeze()  # or what existed at collection is not listed
        functions = _find_functions({str(ROOT / target.path) for target in self.targets})
        gc.collect()
        gc.freeze()
        for target in self.targets:
            items = [item for item in session.items if item.nodeid.split("::")[0] in target.tests]
            self.scores.append(score := self._mutate_file(target, items, functions))
            print(score.format_report(), file=sys.__stdout__, flush=True)
        return True

    def _mutate_file(self, target: Target, items: list[pytest.Item], functions: _Functions) -> Score:
        score = Score(target)
        path = ROOT / target.path
        mutants = list_mutants(path)
        score.equivalent = len(target.equivalent.keys() & {mutant.key for mutant in mutants})
        self.broken += [
            f"{target.path}: not a fault any more: {key}" for key in target.equivalent.keys() - {m.key for m in mutants}
        ]
        chosen = [mutant for mutant in mutants if mutant.key not in target.equivalent]
        random.Random(f"{self.seed} {target.path}").shuffle(chosen)
        score.left_out = len(chosen[self.sample :]) if self.sample else 0
        chosen = chosen[: self.sample]
        reached = _measure_tests(items, path, target.slowest, functions)
        start = time.monotonic()
        self.broken += [f"{target.path}: {name} fails without a fault" for name in reached.failed]
        for index, mutant in enumerate(chosen):
            if time.monotonic() - start > self.seconds:
                score.left_out += len(chosen) - index
                break
            tests = reached.list_tests(items, mutant)
            seconds = [reached.seconds[item.nodeid] for item in tests]
            work = partial(_run_with_fault, mutant, tests, seconds, functions)
            result = run_child(work, 20 + 30 * sum(seconds)) if tests else b""
            if result is None:
                score.timeouts += 1
            elif result:
                score.killed += 1
            else:
                score.survived.append(mutant)
        score.survived.sort(key=lambda mutant: mutant.line)
        score.seconds = time.monotonic() - start
        return score


_Functions = dict[tuple[str, str, int], list[types.FunctionType]]


def _find_functions(files: set[str]) -> _Functions:
    """Return the functions of some files by file, qualified name and first line, however they are decorated."""
    found: _Functions = {}
    for item in gc.get_objects():
        if type(item) is types.FunctionType and item.__code__.co_filename in files:
            code = item.__code__
            found.setdefault((code.co_filename, code.co_qualname, code.co_firstlineno), []).append(item)
    return found


@dataclass(frozen=True)
class _Reached:
    """What tests did without a fault: CPU seconds of each, the functions of the file that it called, and failures."""

    seconds: dict[str, float]
    functions: dict[str, list[list[object]]]
    failed: list[str]
    marked: list[list[object]]

    def list_tests(self, items: Sequence[pytest.Item], mutant: Mutant) -> list[pytest.Item]:
        """Return the tests that call the function of a fault, the quickest first; all where calls of it are unknown."""
        place: list[object] = [mutant.function, mutant.first_line]
        near = [
            item
            for item in items
            if (calls := self.functions.get(item.nodeid)) is not None and (place in calls or place not in self.marked)
        ]
        return sorted(near, key=lambda item: self.seconds[item.nodeid])


def _measure_tests(items: list[pytest.Item], path: Path, slowest: float, functions: _Functions) -> _Reached:
    """Run tests in a child without a fault."""

    def measure() -> bytes:
        marked = mark_functions(path)
        for place, code in marked.items():
            for function in functions.get((str(path), *place), []):
                function.__code__ = code
        calls: dict[str, list[tuple[str, int]]] = {}
        seconds: dict[str, float] = {}
        failed = []
        for item, following in zip(items, [*items[1:], None], strict=True):
            REACHED.clear()
            start = time.process_time()
            passed = _run_test(item, following)
            seconds[item.nodeid] = time.process_time() - start
            if not passed:
                failed.append(item.nodeid)
            elif seconds[item.nodeid] <= slowest:
                calls[item.nodeid] = sorted(REACHED)
        return json.dumps([seconds, calls, failed, sorted(marked)]).encode()

    return _Reached(*json.loads(run_child(measure, 600) or b"[{}, {}, [], []]"))


def _run_test(item: pytest.Item, following: pytest.Item | None) -> bool:
    """Run one test; returns whether it passed or was skipped."""
    from _pytest.runner import runtestprotocol
    from _pytest.warnings import catch_warnings_for_item

    # `runtestprotocol` does not call the plugin that applies a test's own `filterwarnings`.
    with catch_warnings_for_item(config=item.config, ihook=item.ihook, when="runtest", item=item):
        reports = runtestprotocol(item, log=False, nextitem=following)
    return not any(report.failed for report in reports)


def _run_with_fault(mutant: Mutant, tests: list[pytest.Item], seconds: list[float], functions: _Functions) -> bytes:
    """Put the fault into the functions of this process and run tests; returns the name of one that fails, or b''."""
    for function in functions.get((mutant.code.co_filename, mutant.function, mutant.first_line), []):
        function.__code__ = mutant.code
    for item, following, cpu_s in zip(tests, [*tests[1:], None], seconds, strict=True):
        limit_cpu_seconds(1 + 5 * cpu_s)
        if not _run_test(item, following):
            return item.nodeid.encode()
    return b""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="files of the targets' file, or folders; all if none is given")
    parser.add_argument("--sample", type=int, help="faults of each file, drawn by the seed; all if not given")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the faults: others find other survivors")
    parser.add_argument("--seconds", type=float, default=600, help="for each file, without its last fault")
    parser.add_argument("--check", action="store_true", help=f"exit code 1 where a file is below {FLOOR:.0%}%")
    options = parser.parse_args(arguments)
    targets = [t for t in load_targets() if not options.files or t.path.startswith(tuple(options.files))]
    if not targets:
        parser.error(f"none of these is in {TARGETS.relative_to(ROOT)}: {' '.join(options.files)}")
    os.chdir(ROOT)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads of small computations cost more than they save
    print(f"faults are drawn with --seed {options.seed}", flush=True)
    run = MutationRun(targets, options.sample, options.seconds, options.seed)
    tests = sorted({test for target in targets for test in target.tests})
    code = pytest.main(["-q", "-p", "no:cacheprovider", "-m", "not slow", *tests], plugins=[run])
    if code not in (0, pytest.ExitCode.NO_TESTS_COLLECTED):
        print(f"the tests can't be collected: {' '.join(tests)}")
        return 2
    print("\n".join(run.broken))
    low = [score.target.path for score in run.scores if score.is_below(FLOOR)]
    print("\n".join(f"too few faults of {path} are noticed" for path in low))
    return 1 if options.check and (low or run.broken) else 0


if __name__ == "__main__":
    sys.exit(main())
