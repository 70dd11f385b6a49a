"""Whose line raised an error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlscale.culprit import find_user_line, summarize_error, wrap_unforeseen_error
from mlscale.errors import Exit


def _fail(raises: BaseException) -> None:
    raise raises


def test_the_line_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    with pytest.raises(ValueError, match="odd") as caught:
        _fail(ValueError("odd"))
    reported = wrap_unforeseen_error(caught.value, "rank 1")
    line = _fail.__code__.co_firstlineno + 1
    assert (reported.what, reported.where) == ("ValueError: odd", f"rank 1: test_culprit.py:{line}, in _fail")
    assert reported.exit == Exit.BUG
    assert "your code" in reported.why


def test_a_library_called_by_the_user_is_not_the_culprit() -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{")
    assert "test_culprit.py" in find_user_line(caught.value), "json is Python's; the line that called it is ours"


def test_no_line_of_the_user() -> None:
    reported = wrap_unforeseen_error(KeyError("x"))
    assert reported.where == "mlscale, or a library that it called"
    assert reported.what == "KeyError: 'x'"


def test_an_error_out_of_a_loaders_worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    text = (
        "Caught OSError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        f'  File "{json.__file__}", line 3, in fetch\n    x()\n'
        f'  File "{tmp_path}/mine.py", line 7, in __getitem__\n    raise OSError("gone")\nOSError: gone\n'
    )
    error = OSError(text)
    assert summarize_error(error) == "OSError: gone"
    assert find_user_line(error) == "mine.py:7, in __getitem__"


def test_code_that_does_not_parse(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SyntaxError) as caught:
        compile("\ndef f(:\n", str(tmp_path / "net.py"), "exec")
    assert find_user_line(caught.value) == "net.py:2"
