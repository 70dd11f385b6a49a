"""`mlscale lifecycle`: the whole way, as a user types it; every figure of it, and every way out of it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mlscale.report import Result
from mlscale.runs.folder import RunFolder
from tests.contract.test_documents import validate

TITLES = ["prepare", "estimate", "train", "profile", "compress", "export", "serve", "load test", "shift", "alert",
          "retrain", "swap"]  # fmt: skip
QUICK = ("+recipe=resnet", "trainer.max_epochs=1", "model.widths=[8,16]", "lifecycle.probe_seconds=0.5")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def started(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mlscale", "lifecycle", *words, "snapshot=false", "output=json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background ignores it
    )


def left_over(folder: Path) -> list[str]:
    """Commands of processes that have to do with this folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(folder) in words and int(path.parent.name) != os.getpid():
            found.append(words)
    return found


def only_run(folder: Path) -> RunFolder:
    (path,) = (folder / "runs").glob("*/*")
    return RunFolder.open(path)


def take_tour(*words: str) -> tuple[dict[str, Any], str]:
    """The result of a tour that passes, and what it has printed."""
    process = started(*words)
    out, err = process.communicate()
    assert process.returncode == 0, err
    printed: dict[str, Any] = json.loads(out)
    validate("result", printed)
    return printed, err


def check_end(folder: Path, printed: dict[str, Any], err: str, titles: list[str]) -> RunFolder:
    """Check what every tour leaves, and return its run."""
    lines = re.findall(r"^\[ ?(\d+)/\d+\] (.{9})  (\S.*)  \(.*\)$", err, re.MULTILINE)
    assert [(int(number), title.strip()) for number, title, _ in lines] == list(enumerate(titles, 1))
    figures = printed["metrics"]
    assert figures["steps"] == len(titles)
    assert (figures["served_wrong"], figures["alerts"]) == (0, 1)
    assert (figures["swap_dropped"], figures["swap_wrong"]) == (0, 0)
    assert figures["swap_requests"] > 100
    assert figures["shifted_p_better"] < 0.05
    run = only_run(folder)
    assert run.status == "done"
    page = Path(printed["artifacts"]["page"])
    reported = page.read_text()
    assert page.parent == run.path / "results"
    assert all(f">{title}<" in reported for title in titles)
    assert reported.count("<svg") >= 4
    assert all((page.parent / name).is_file() for name in re.findall(r'href="([^"#:]+\.html)"', reported))
    assert Result.from_dict(run.results["lifecycle"]).ok
    assert sorted(path.name for path in folder.iterdir()) == ["runs"]
    assert left_over(folder) == []
    return run


def test_the_whole_way(folder: Path) -> None:
    printed, err = take_tour("+recipe=resnet", "trainer.max_epochs=10")
    check_end(folder, printed, err, TITLES)
    figures = printed["metrics"]
    assert figures["train_samples"] + figures["val_samples"] == 1797
    assert figures["estimated_peak_memory_bytes"] > 1e6
    assert figures["estimated_time_s"] > 0
    assert figures["best_val/accuracy"] > 0.97
    assert figures["headspace_ratio"] > 0
    assert figures["int8_speedup"] > 0
    assert figures["int8_kept"] in (0, 1)
    assert abs(figures["served_accuracy"] - figures["best_val/accuracy"]) <= 0.01
    assert figures["requests"] > 100
    assert figures["failures"] == 0
    assert figures["p99_ms"] <= 250
    assert figures["shifted_requests"] == 700
    assert figures["shifted_traffic_accuracy"] < 0.5
    assert figures["drifted_inputs"] > 0
    assert figures["monitored_accuracy"] == pytest.approx(figures["shifted_traffic_accuracy"])
    assert figures["gate_challenger_window_accuracy"] > figures["gate_champion_window_accuracy"]
    assert figures["gate_window_p_better"] < 0.05
    assert figures["shifted_accuracy_before"] < 0.5
    assert figures["shifted_accuracy"] > 0.85
    assert figures["shifted_p_better"] < 0.001
    assert "resnet:v1 → resnet:v2" in err


def test_what_can_not_work_is_refused_before_the_first_step(folder: Path) -> None:
    process = started("+recipe=resnet", "lifecycle.traffic=100")
    _, err = process.communicate()
    assert process.returncode == 2
    assert "lifecycle.traffic" in err
    assert "[ 1/12]" not in err
    assert not list(folder.glob("runs/*"))


def test_a_gate_that_is_not_met_stops_the_tour_with_exit_code_4(folder: Path) -> None:
    process = started(*QUICK, "lifecycle.slo.p99_ms=0.001")
    out, err = process.communicate()
    assert process.returncode == 4, err
    printed = json.loads(out)
    assert "stopped at [8/12] load test: " in printed["sentence"]
    assert "the objective is missed: p99 is" in printed["sentence"]
    assert printed["metrics"]["steps"] == 7
    reported = Path(printed["artifacts"]["page"]).read_text()
    assert reported.count("not reached") == 4
    run = only_run(folder)
    assert (run.status, run.results["lifecycle"]["ok"], run.results["loadtest"]["ok"]) == ("done", False, False)
    assert left_over(folder) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_no_process_outlives_a_tour_that_is_stopped(folder: Path, number: signal.Signals, code: int) -> None:
    process = started(*QUICK, "lifecycle.load_seconds=600")
    try:
        end = time.monotonic() + 300
        while not any("locust" in words for words in _of_locust(folder)) and time.monotonic() < end:
            assert process.poll() is None, process.communicate()
            time.sleep(0.2)
        assert len(left_over(folder)) >= 1
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code, err
    assert "page    " in err
    run = only_run(folder)
    assert run.status == "interrupted"
    assert (run.path / "results/lifecycle.html").is_file()
    assert left_over(folder) == []
    assert _of_locust(folder) == []


def _of_locust(folder: Path) -> list[str]:
    """Processes of Locust that ask the server of this folder."""
    try:
        url = json.loads(next((folder / "runs").glob("*/*/server.json")).read_text())["url"]
    except (StopIteration, OSError, ValueError):
        return []
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if "locust" in words and url in words:
            found.append(words)
    return found
