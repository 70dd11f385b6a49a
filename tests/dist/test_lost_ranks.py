"""A rank of another launcher dies, raises, or can't be reached any more: the others end soon, and show its error."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import runs_in
from tests.dist.pace import Pace, allow_seconds, wait_for_mark
from tests.forked import Command

ROOT = Path(__file__).resolve().parents[2]
WORDS = ("+recipe=resnet", "model=mlp", "snapshot=false", "trainer.max_epochs=5000", "trainer.accelerator=cpu")
LIMIT = 10.0  # seconds, where the cores are free
TIMEOUT = 5.0  # of the process group, likewise: ranks wait for each other's imports, too
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def end_once(mark: Path, whom: int, how: str) -> str:
    return f"+callbacks.fail={{_target_:tests.dist.recorder.KillOnce,step:30,mark:{mark},whom:{whom},how:{how}}}"


def build_variables(rank: int, port: int, host: str = "127.0.0.1") -> dict[str, str]:
    variables = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": host, "MASTER_PORT": str(port)}
    return {**os.environ, "PYTHONPATH": str(ROOT), **variables}


@contextlib.contextmanager
def start_two(folder: Path, port: int, *words: str) -> Iterator[list[Command]]:
    """Two ranks, as any launcher starts them; their imports are saved."""
    both = [Command(*WORDS, *words, cwd=folder, env=build_variables(rank, port)) for rank in (0, 1)]
    try:
        yield both
    finally:
        for process in both:
            process.kill()


@pytest.mark.parametrize(
    ("whom", "how", "error"),
    [
        (0, "kill", "rank 0 ended without a message"),
        (1, "kill", "rank 1 ended without a message"),
        (0, "raise", "the disk is full"),
        (1, "raise", "the disk is full"),
    ],
)
def test_a_dead_rank_ends_the_others_within_seconds(folder: Path, whom: int, how: str, error: str) -> None:
    mark = folder / "ended"
    with start_two(folder, 29741 + 2 * whom + (how == "kill"), end_once(mark, whom, how)) as both:
        since = wait_for_mark(mark)
        pace = Pace()
        texts = [process.communicate(timeout=400)[1] for process in both]
        assert time.time() - since < pace.allow_seconds(LIMIT)
    assert [process.returncode for process in both] == [-9 if how == "kill" and rank == whom else 5 for rank in (0, 1)]
    assert "".join(texts).count("error: ") == 1, texts
    assert f"error: {error}" in "".join(texts)
    (run,) = runs_in(folder)
    assert f"rank{whom}-failure.json" in os.listdir(run / "logs") or how == "kill"


def test_a_rank_that_does_not_answer_ends_the_others_after_the_timeout(folder: Path) -> None:
    mark = folder / "stopped"
    timeout = allow_seconds(TIMEOUT)
    words = (f"strategy.timeout={timeout:g}", end_once(mark, 1, "stop"))
    with start_two(folder, 29681, *words) as (first, second):
        since = wait_for_mark(mark)
        pace = Pace()
        error = first.communicate(timeout=400)[1]
        assert timeout - 1 <= time.time() - since < timeout + pace.allow_seconds(LIMIT)
        assert first.returncode == 5
        assert "error: a collective timed out: rank 1 did not take part" in error
        # Its machine is reachable again: it ends as well, and prints nothing more.
        os.kill(int(mark.read_text()), signal.SIGCONT)
        assert "error: " not in second.communicate(timeout=400)[1]
        assert second.returncode == 5


@contextlib.contextmanager
def join_two_networks() -> Iterator[tuple[str, str]]:
    """Two network namespaces with a cable between them: 10.77.0.1 and 10.77.0.2."""
    names = f"mlscale-{os.getpid()}-a", f"mlscale-{os.getpid()}-b"
    commands = [f"ip netns add {name}" for name in names]
    commands.append(f"ip link add cable netns {names[0]} type veth peer name cable netns {names[1]}")
    for number, name in enumerate(names, 1):
        commands += [f"ip -n {name} addr add 10.77.0.{number}/24 dev cable"]
        commands += [f"ip -n {name} link set {device} up" for device in ("lo", "cable")]
    try:
        for command in commands:
            if subprocess.run(command.split(), check=False, capture_output=True).returncode:
                pytest.skip(f"not permitted here: {command}")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def test_a_lost_link_ends_both_sides_after_the_timeout(folder: Path) -> None:
    mark = folder / "cut"
    timeout = allow_seconds(TIMEOUT)
    words = [*WORDS, f"strategy.timeout={timeout:g}", end_once(mark, 1, "wait")]
    with join_two_networks() as names:
        both = [
            subprocess.Popen(
                ["ip", "netns", "exec", name, sys.executable, "-m", "mlscale", *words],
                cwd=folder,
                env={**build_variables(rank, 29691, "10.77.0.1"), "GLOO_SOCKET_IFNAME": "cable"},
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            for rank, name in enumerate(names)
        ]
        try:
            wait_for_mark(mark)
            subprocess.run(["ip", "-n", names[1], "link", "set", "cable", "down"], check=True)
            since = time.time()
            pace = Pace()
            texts = [process.communicate(timeout=400)[1] for process in both]
            assert time.time() - since < timeout + pace.allow_seconds(LIMIT)
        finally:
            for process in both:
                process.kill()
    assert [process.returncode for process in both] == [5, 5], texts
    assert "error: a collective timed out" in "".join(texts)
    (run,) = runs_in(folder)
    assert json.loads((run / "manifest.json").read_text())["status"] == "failed"


def wait_for_text(path: Path, text: str, seconds: float = 400.0) -> None:
    end = time.monotonic() + seconds
    while text not in path.read_text():
        assert time.monotonic() < end, path.read_text()
        time.sleep(0.1)


def test_a_replaced_pod_waits_for_the_one_that_still_runs_on_a_lost_node(folder: Path) -> None:
    mark, output = folder / "stopped", folder / "output"
    variables = {**build_variables(0, 29695), "WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "none"}
    words = (*WORDS, "resume=auto", end_once(mark, 0, "stop"))
    with output.open("w") as file, contextlib.ExitStack() as stack:
        first = stack.enter_context(Command(*words, cwd=folder, env=variables, stdout=file, stderr=file))
        stack.callback(first.kill)
        wait_for_mark(mark)
        variables["MASTER_PORT"] = "29696"
        second = stack.enter_context(Command(*words, cwd=folder, env=variables, stdout=file, stderr=file))
        stack.callback(second.kill)
        wait_for_text(output, "waiting   an earlier start of the job holds the run")
        first.kill()
        wait_for_text(output, "attempt 2")
