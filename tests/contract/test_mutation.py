"""The tests of order, checkpoints, resume, gate, detectors and config check notice faults that are put in."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from scripts.limited_child import limit_cpu_seconds, run_child
from scripts.mutants import list_mutants
from scripts.mutate import ROOT, Score, Target, load_targets

SOURCE = '''"""Not a fault."""
LIMIT = 5


class Gate:
    def is_open(self, value: float, *, closed: bool = False) -> bool:
        """Not a fault."""
        return value <= 0.5 and not closed


def measure(values, limit=LIMIT):
    found = max(values, key=abs)
    values.clear()
    if found["at"] % 2:
        raise ValueError(f"{found} is odd")
    return found.high - 1
'''
FAULTS = """
return value <= 0.5 and (not closed) -> return
return value <= 0.5 and (not closed) -> return value <= 0.5 or not closed
return value <= 0.5 and (not closed) -> return value < 0.5 and (not closed)
return value <= 0.5 and (not closed) -> return value > 0.5 and (not closed)
return value <= 0.5 and (not closed) -> return value <= 1.0 and (not closed)
return value <= 0.5 and (not closed) -> return value <= 0.5 and closed
found = max(values, key=abs) -> found = min(values, key=abs)
found = max(values, key=abs) -> found = max(values)
values.clear() -> pass
if found['at'] % 2: -> if found['at'] // 2:
if found['at'] % 2: -> if not found['at'] % 2:
if found['at'] % 2: -> if found['XXat'] % 2:
if found['at'] % 2: -> if found['at'] % 3:
if found['at'] % 2: -> if found['at'] % 1:
raise ValueError(f'{found} is odd') -> pass
return found.high - 1 -> return
return found.high - 1 -> return found.high + 1
return found.high - 1 -> return found.value - 1
return found.high - 1 -> return found.high - 2
return found.high - 1 -> return found.high - 0
"""


def test_faults_of_each_kind(tmp_path: Path) -> None:
    path = tmp_path / "gate.py"
    path.write_text(SOURCE)
    mutants = list_mutants(path)
    assert {f"{mutant.before} -> {mutant.after}" for mutant in mutants} == set(FAULTS.strip().splitlines())
    assert [mutant.key.partition(":")[0] for mutant in mutants] == ["Gate.is_open"] * 6 + ["measure"] * 14
    names: dict[str, object] = {}
    exec(compile(SOURCE, str(path), "exec"), names)
    later = next(mutant for mutant in mutants if "value < 0.5" in mutant.after)
    gate = names["Gate"]
    assert gate().is_open(0.5)  # type: ignore[operator]
    gate.is_open.__code__ = later.code  # type: ignore[attr-defined]
    assert not gate().is_open(0.5)  # type: ignore[operator]


def _loop_forever() -> bytes:
    while True:
        pass


def _loop_for_a_while() -> bytes:
    limit_cpu_seconds(0.1)
    return _loop_forever()


def test_a_fault_may_hang_or_end_its_process() -> None:
    assert run_child(lambda: b"failed", 60) == b"failed"
    assert run_child(lambda: b"", 60) == b""
    assert run_child(lambda: os._exit(3), 60) == b"died"
    assert run_child(_loop_forever, 0.2) is None
    assert run_child(_loop_for_a_while, 60) is None


@pytest.mark.parametrize(
    ("noticed", "survived", "left_out", "is_low"),
    [(85, 15, 0, False), (84, 16, 0, True), (30, 10, 5, False), (29, 11, 5, True), (0, 0, 9, False), (0, 0, 0, False)],
)
def test_a_sample_is_low_where_chance_does_not_explain_it(
    noticed: int, survived: int, left_out: int, is_low: bool
) -> None:
    score = Score(Target("a.py", (), {}, 2), killed=noticed, left_out=left_out)
    score.survived = [list_mutants(Path(__file__))[0]] * survived
    assert score.is_below(0.85) == is_low


def test_targets_exist_and_each_equivalent_has_a_reason() -> None:
    targets = load_targets()
    assert len(targets) == len({target.path for target in targets}) >= 80
    for target in targets:
        assert all((ROOT / path).is_file() for path in (target.path, *target.tests))
        assert all(target.equivalent.values())


@pytest.mark.nightly
def test_each_equivalent_is_a_fault_that_can_be_put_in() -> None:
    """A function that was renamed or moved leaves its entries behind."""
    for target in load_targets():
        known = {mutant.key for mutant in list_mutants(ROOT / target.path)} if target.equivalent else set()
        assert target.equivalent.keys() <= known, target.path


def mutate(*words: str) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    command = [sys.executable, "-m", "scripts.mutate", "--check", *words]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stderr


_PARTS = 8


@pytest.mark.nightly
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("part", range(_PARTS))
def test_most_faults_of_all_files_are_noticed(part: int) -> None:
    """As many of each as fit into 90 seconds, with the seed of the night: nights add up to all of the longest files."""
    # Every eighth, so that two processes have about the same to do: the files of a package are alike.
    files = [target.path for target in load_targets()][part::_PARTS]
    seed = os.environ.get("MUTATION_SEED") or datetime.now(UTC).strftime("%Y%m%d")
    mutate(*files, "--seconds", "90", "--seed", seed)
