"""`mlscale loadtest`: a user's commands, against a real server."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mlscale.cli import main
from tests.contract.test_documents import validate
from tests.unit.loadtest.servers import Answer, fast_server, label, serving, serving_rows

SHORT = ("users=2", "seconds=0.8", "warmup_s=0.2")


def test_an_objective_that_is_met(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = np.random.default_rng(0).integers(0, 256, (5, 1, 4, 4), np.uint8)
    np.savez("s.npz", raw=raw, labels=np.array([label(sample) for sample in raw]))
    with serving() as server:
        code = main(["loadtest", server.url, *SHORT, "samples=s.npz", "slo.p99_ms=5000", "output=json"])
    out, err = capsys.readouterr()
    printed = json.loads(out)
    validate("result", printed)
    assert (code, printed["ok"]) == (0, True)
    assert "sums, 5 samples of s.npz by bytes, 2 users without a pause" in err
    metrics = printed["metrics"]
    assert metrics["requests"] > 10
    assert metrics["failures"] == 0
    assert metrics["accuracy"] == 1.0
    assert 0 < metrics["p50_ms"] <= metrics["p95_ms"] <= metrics["p99_ms"] <= metrics["longest_ms"]
    assert metrics["requests_per_s"] == pytest.approx(metrics["requests"] / 0.8, rel=0.5)
    assert printed["details"]["versions"] == "sums:v1"
    assert "accuracy 1.0000: the objective is met" in printed["sentence"]
    assert printed["details"]["objective"]["verdict"] == "met"
    assert metrics["empty_server_requests_per_s"] > 10
    assert 0 < metrics["client_cpu_percent"] <= metrics["client_busy_percent"]
    assert "server_p50_ms" not in metrics  # this server does not send it
    assert sorted(path.name for path in folder.iterdir()) == ["s.npz"]


def test_each_term_that_does_not_hold_is_exit_code_4(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    terms = ("slo.p50_ms=0.001", "slo.min_requests_per_s=1e9", "rate=2e9")
    with serving() as server:
        code = main(["loadtest", server.url, *SHORT, *terms])
    out = capsys.readouterr().out
    assert code == 4
    assert "more than slo.p50_ms=0.001" in out
    assert "fewer than slo.min_requests_per_s=1e+09" in out
    assert "of rate=2e+09 requests/s were sent" in out
    assert "the objective is undecided: the client was the limit: it " in out  # nor could Locust send as many


def test_a_slow_server_misses_its_objective(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def slow(answer: Answer, number: int) -> Answer:
        time.sleep(0.15)
        return (answer[0], {**answer[1], "Server-Timing": "queue;dur=0, compute;dur=150, total;dur=150"}, answer[2])

    with serving(slow) as server:
        code = main(["loadtest", server.url, "model_name=sums", *SHORT, "slo.p99_ms=20", "output=json"])
    printed = json.loads(capsys.readouterr().out)
    # Far over it: a machine on which all takes several times as long leaves it undecided otherwise.
    assert (code, printed["details"]["objective"]["verdict"]) == (4, "missed"), printed["sentence"]
    assert "more than slo.p99_ms=20: half of the batches take 150 ms to compute" in printed["sentence"]
    assert printed["metrics"]["server_p99_ms"] == pytest.approx(150, rel=0.01)
    assert 0 < printed["metrics"]["network_and_client_p50_ms"] < printed["metrics"]["p50_ms"]


@pytest.mark.slow
def test_a_client_at_its_limit_leaves_it_undecided_and_its_advice_decides_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with fast_server(folder) as url:
        words = ["loadtest", url, "model_name=sums", "users=50", "seconds=1", "warmup_s=0.2", "slo.p50_ms=0.3"]
        code = main([*words, "output=json"])
        printed = json.loads(capsys.readouterr().out)
        assert (code, printed["ok"], printed["details"]["objective"]["verdict"]) == (4, False, "undecided")
        assert printed["details"]["objective"]["client_limits"]
        sentence = printed["sentence"]
        assert "the objective is undecided: the client was the limit: it " in sentence
        assert "users=25" in sentence
        for _ in range(6):  # a machine that got busier meanwhile says so, and advises a lower rate
            code = main([*words[:-1], "slo.p99_ms=5000", re.findall(r"(?:try|or) (rate=\d+)", sentence)[-1]])
            sentence = capsys.readouterr().out
            if "this machine is too busy" not in sentence:
                break
        assert code == 0, sentence
        assert "the objective is met" in sentence


@pytest.mark.nightly  # two processes keep a core busy, and Locust needs minutes of what is left on a slow machine
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no system call for it here")
def test_a_client_that_gets_no_core_leaves_it_undecided(folder: Path) -> None:
    core = min(os.sched_getaffinity(0))
    pinned = f"import os; os.sched_setaffinity(0, {{{core}}})"
    busy = [subprocess.Popen([sys.executable, "-c", f"{pinned}\nwhile True: pass"]) for _ in range(2)]
    words = ["model_name=sums", "users=100", "rate=400", "seconds=1.5", "slo.p99_ms=5", "output=json"]
    try:
        with fast_server(folder) as url:
            code = f"{pinned}\nfrom mlscale.cli import main\nraise SystemExit(main())"
            command = [sys.executable, "-c", code, "loadtest", url, *words]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=240)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    printed = json.loads(done.stdout)
    assert (done.returncode, printed["details"]["objective"]["verdict"]) == (4, "undecided"), printed["sentence"]


def test_nobody_there_is_exit_code_5(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        code = main(["loadtest", f"http://127.0.0.1:{free.getsockname()[1]}"])
    assert code == 5
    assert "fix:   mlscale serve" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_locust_does_not_outlive_the_command(folder: Path, number: signal.Signals, code: int) -> None:
    with serving() as server:
        words = ["loadtest", server.url, "seconds=120"]
        process = subprocess.Popen(
            [sys.executable, "-m", "mlscale", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            assert _until(lambda: server.asked > 0)
            assert _locusts(server.url)
            os.kill(process.pid, number)
            assert process.wait(60) == code
        finally:
            process.kill()
            process.communicate()
        assert _until(lambda: not _locusts(server.url))


@pytest.mark.slow
def test_sigusr1_ends_the_test_with_what_was_measured(folder: Path) -> None:
    with serving() as server:
        words = ["loadtest", server.url, "seconds=120", "warmup_s=0", "users=2", "output=json"]
        process = subprocess.Popen(
            [sys.executable, "-m", "mlscale", *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        try:
            assert _until(lambda: server.asked > 20)
            os.kill(process.pid, signal.SIGUSR1)
            out, _ = process.communicate(timeout=30)
        finally:
            process.kill()
            process.communicate()
        printed = json.loads(out)
        assert (process.returncode, printed["ok"], printed["metrics"]["failures"]) == (0, True, 0)
        assert 20 <= printed["metrics"]["requests"] <= server.asked


def _until(true: object, seconds: float = 30.0) -> bool:
    """Wait for a condition, at most so long."""
    assert callable(true)
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(true())


def _locusts(url: str) -> list[int]:
    """Processes of Locust that ask this server."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"locust" in words and url.encode() in words:
            found.append(int(path.parent.name))
    return found


@pytest.mark.slow
def test_rows_of_a_csv_and_random_ones_are_sent_to_a_model_of_a_table(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "rows.csv").write_text("a,target,c\n1.5,yes,x\n,no,\n")
    with serving_rows() as server:
        code = main(["loadtest", server.url, *SHORT, "samples=rows.csv", "batch=2", "output=json"])
        out, err = capsys.readouterr()
        metrics = json.loads(out)["metrics"]
        assert (code, metrics["failures"]) == (0, 0)
        assert metrics["requests"] > 10
        assert metrics["throughput_samples_per_s"] == pytest.approx(2 * metrics["requests_per_s"])
        assert "accuracy" not in metrics
        assert "2 samples of rows.csv by raw" in err
        assert server.received[-1] == {"inputs": [{"a": 1.5, "c": "x"}, {"a": None, "c": None}]}
        asked = server.asked
        assert main(["loadtest", server.url, *SHORT, "protocol=v2", "output=json"]) == 0
        assert "random rows by v2" in capsys.readouterr().err
        assert server.asked > asked


def test_what_can_not_be_sent_is_refused_before_the_first_request(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "lines.txt").write_text("a line")
    with serving_rows() as server:
        for words, why in (
            (["samples=lines.txt"], "they are of the form text, and rows takes table"),
            (["protocol=bytes"], "it takes one tensor of a fixed size"),
            (["protocol=carrier"], "'protocol' must be auto or raw or bytes or v2"),
        ):
            assert main(["loadtest", server.url, *words]) == 2
            assert why in capsys.readouterr().err
        assert server.asked == 0


@pytest.mark.parametrize(
    ("typed", "fix"), [("warmup=1", "warmup_s=1"), ("duration=3", "seconds=3"), ("timeout=2", "timeout_s=2")]
)
def test_names_of_other_tools_are_reported_as_keys(typed: str, fix: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["loadtest", "http://127.0.0.1:1", typed]) == 2
    assert f"fix:   {fix}\n" in capsys.readouterr().err


def test_refused_samples_are_reported_with_the_reason_and_without_latencies(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(answer: Answer, number: int) -> Answer:
        return 400, {}, json.dumps({"error": "inputs[0] can't be used: a is 'x', no number"}).encode()

    with serving(refuse) as server:
        assert main(["loadtest", server.url, *SHORT, "output=json"]) == 4
        result = json.loads(capsys.readouterr().out)
    assert "p50_ms" not in result["metrics"]
    assert "nan" not in result["sentence"]
    assert "the client was the limit" not in result["sentence"]
    reported = "no request had a valid answer: {:,} × status 400: inputs[0] can't be used: a is 'x', no number"
    assert reported.format(result["metrics"]["failures"]) in result["sentence"]
