"""The count by which `.ci/run` notices that a real server was not asked."""

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.count_passed import main

_TESTS = """
import pytest

@pytest.mark.parametrize("number", [1, 2])
def test_of_the_server(number, {fixture}):
    pass

class TestMore:
    def test_inside(self):
        pass
"""
_ABSENT = """
import pytest

@pytest.fixture(scope="module")
def server():
    pytest.skip("no server")
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pytest reports of a file whose tests pass, and of one whose server is not there."""
    folder = tmp_path_factory.mktemp("count")
    (folder / "tests").mkdir()
    (folder / "tests/test_here.py").write_text(_TESTS.format(fixture="tmp_path"))
    (folder / "tests/test_absent.py").write_text(_ABSENT + _TESTS.format(fixture="server"))
    (folder / "tests/test_here_too.py").write_text(_TESTS.format(fixture="tmp_path"))
    words = ["-q", "-p", "no:cacheprovider", "--rootdir", str(folder), "--junitxml=report.xml", "tests"]
    subprocess.run([sys.executable, "-m", "pytest", *words], cwd=folder, check=True, capture_output=True)
    return folder / "report.xml"


@pytest.mark.parametrize(
    ("least", "file", "code", "counts"),
    [
        (3, "tests/test_here.py", 0, "3 passed, 0 skipped, 0 failed; 3 must pass\n"),
        (4, "tests/test_here.py", 1, "3 passed, 0 skipped, 0 failed; 4 must pass: TOO FEW\n"),
        (2, "tests/test_absent.py", 1, "1 passed, 2 skipped, 0 failed; 2 must pass: TOO FEW\n"),
        (1, "tests/test_renamed.py", 1, "0 passed, 0 skipped, 0 failed; 1 must pass: TOO FEW\n"),
    ],
)
def test_skipped_and_absent_tests_do_not_count(
    report: Path, least: int, file: str, code: int, counts: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(report), str(least), file]) == code
    assert capsys.readouterr().out == f"{file}: {counts}"
