"""Log lines as JSON: what is written to stderr becomes one object a line."""

import io
import json
import sys
from typing import Any

import pytest

from mlscale.log_lines import JsonLineStream, find_typed_format, report_error, report_metrics, use_log_format


def collect(text: str, *, pieces: int = 1) -> list[dict[str, Any]]:
    """Return the objects that a text becomes which is written in pieces."""
    out = io.StringIO()
    stream = JsonLineStream(out)
    size = max(1, len(text) // pieces)
    for start in range(0, len(text), size):
        stream.write(text[start : start + size])
    stream.close()
    return [json.loads(line) for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_each_line_is_an_object(pieces: int) -> None:
    text = "epoch 1/3  loss 0.5\n\n\x1b[31mwarning   disk full\x1b[0m\n 10%|█\r 100%|██████\nhalf"
    lines = collect(text, pieces=pieces)
    assert [(line["level"], line["message"]) for line in lines] == [
        ("info", "epoch 1/3  loss 0.5"), ("warning", "warning   disk full"), ("info", " 100%|██████"), ("info", "half"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("error: unknown key 'x'", "error"),
        ("failed    rank 1; another rank has printed where and why", "error"),
        ("ValueError: no", "error"),
        ("/a/b.py:3: UserWarning: careful", "warning"),
        ("bad data  a.jpg: truncated", "warning"),
        ("model     last: a run", "info"),
    ],
)
def test_levels(line: str, level: str) -> None:
    assert [found["level"] for found in collect(line)] == [level]


def test_an_object_passes_and_other_json_is_a_message() -> None:
    assert collect('{"status": 200}\n') == [{"status": 200}]
    assert [line["message"] for line in collect("[1]\n{half\n")] == ["[1]", "{half"]


def test_the_rank_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    assert collect("x")[0]["rank"] == 3


def test_the_stream_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLSCALE_LOG_FORMAT", raising=False)
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    assert not report_error("x", [])
    with use_log_format("json"), use_log_format("json"):
        print("one", file=sys.stderr)
        assert report_error("two", [{"what": "two"}])
        assert report_metrics("three", epoch=1, loss=float("nan"))
    assert sys.stderr is out
    with use_log_format("text"):
        print("four", file=sys.stderr)
    *lines, last = out.getvalue().splitlines()
    assert ([json.loads(line)["message"] for line in lines], last) == (["one", "two", "three"], "four")


def test_the_typed_format() -> None:
    assert find_typed_format(["+recipe=x", "++log_format=json"]) == "json"
    assert find_typed_format(["log_format=json", "log_format=text"]) == "text"
    assert find_typed_format([]) == "text"
