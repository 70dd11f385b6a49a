"""A run whose nodes come and go, or that is resumed by another number of ranks, sees the same global batches."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import runs_in
from tests.forked import Command

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 400.0  # of any wait; an idle machine takes ten
WORDS = (
    "+recipe=resnet",
    "model=mlp",
    "snapshot=false",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=4",
    "callbacks=[default]",
    "callbacks.checkpoint.every_n_steps=5",
)
STEPS, BATCH = 88, 64
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def note_keys(folder: Path) -> str:
    return f"+callbacks.keys={{_target_:tests.dist.recorder.Keys,folder:{folder}}}"


def pace(folder: Path) -> str:
    return f"+callbacks.pace={{_target_:tests.slurm.pace.Pace,folder:{folder},seconds:0.3}}"


def read_batches(folder: Path) -> dict[int, list[set[str]]]:
    """The keys that ranks saw in each optimizer step, an entry for each rank and attempt."""
    batches: dict[int, list[set[str]]] = {}
    for path in folder.glob("train-*.jsonl"):
        for line in path.read_text().splitlines():
            _, step, keys = json.loads(line)
            batches.setdefault(step, []).append(set(keys))
    return batches


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **variables}


def run_once(folder: Path, *words: str, **variables: str) -> tuple[int, str]:
    with Command(*words, cwd=folder, env=environment(**variables)) as process:
        out, err = process.communicate(timeout=SECONDS)
    return process.returncode, out + err


def wait_until(is_so: Callable[[], bool], what: str, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < end, f"no {what}"
        assert process.poll() is None, f"ended with {process.returncode} before {what}"
        time.sleep(0.1)


def start_agent(folder: Path, port: int, *words: str) -> "subprocess.Popen[bytes]":
    """torchrun of one of one or two nodes, in a session of its own."""
    rendezvous = [
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint=127.0.0.1:{port}",
        "--rdzv-id=sizes",
        "--local-addr=127.0.0.1",
    ]
    sizes = ["--nnodes=1:2", "--nproc-per-node=1", "--max-restarts=3", "--rdzv-conf=last_call_timeout=3"]
    with (folder / "output").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *rendezvous, *sizes, "-m", "mlscale", *words],
            cwd=folder,
            # Agents on one machine would wait for each other in vain when a node joins, with torch 2.13.
            env=environment(TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1"),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_node_leaves_and_another_joins(folder: Path) -> None:
    code, text = run_once(folder, *WORDS, note_keys(folder / "whole"), "runs_dir=whole")
    assert code == 0, text
    whole = {step: keys for step, (keys,) in read_batches(folder / "whole").items()}
    assert sorted(whole) == list(range(STEPS))

    def count_attempts() -> int:
        return sum(len(json.loads((run / "run.json").read_text())["attempts"]) for run in runs_in(folder / "elastic"))

    def have_stepped() -> bool:
        return (folder / "stepping").exists()

    (folder / "slow").touch()
    words = (*WORDS, note_keys(folder / "parts"), pace(folder), "runs_dir=elastic")
    first = start_agent(folder, 29711, *words)
    second = third = None
    try:
        # The agent that listens first has the store of all: it must be the one that stays.
        wait_until(lambda: is_listening(29711), "store of the agents", first)
        second = start_agent(folder, 29711, *words)
        wait_until(have_stepped, "step of two nodes", first)
        both = len(list((folder / "parts").glob("train-*.jsonl")))
        os.killpg(second.pid, signal.SIGKILL)  # its rank ends with it
        begun = count_attempts()
        wait_until(lambda: count_attempts() > begun, "attempt of one node", first)
        (folder / "stepping").unlink()
        wait_until(have_stepped, "step of one node", first)
        begun = count_attempts()
        third = start_agent(folder, 29711, *words)
        wait_until(lambda: count_attempts() > begun, "attempt of two nodes", first)
        (folder / "slow").unlink()
        assert first.wait(SECONDS) == 0, (folder / "output").read_text()
    finally:
        for agent in (first, second, third):
            if agent is None:
                continue
            if agent.poll() is None:
                os.killpg(agent.pid, signal.SIGKILL)
            agent.wait()
    assert both == 2
    parts = read_batches(folder / "parts")
    assert {step: set().union(*keys) for step, keys in parts.items()} == whole
    sizes = {len(keys) for seen in parts.values() for keys in seen}
    assert sizes == {BATCH, BATCH // 2}  # some steps on one rank, others on two
    (run,) = runs_in(folder / "elastic")
    assert json.loads((run / "manifest.json").read_text())["status"] == "done"


def test_a_size_that_does_not_divide_the_batch_leaves_the_run_as_it_was(folder: Path) -> None:
    end = f"+callbacks.end={{_target_:tests.dist.recorder.KillOnce,step:12,mark:{folder / 'mark'},whom:0}}"
    code, _ = run_once(folder, *WORDS, end)
    assert code == -signal.SIGKILL
    (run,) = runs_in(folder)
    before = (run / "run.json").read_text()
    step = {"WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29721"}
    three = [
        Command(*WORDS, end, "resume=auto", cwd=folder, env=environment(**step, RANK=str(rank), LOCAL_RANK=str(rank)))
        for rank in range(3)
    ]
    texts = [each.communicate(timeout=SECONDS)[1] for each in three]
    assert [each.returncode for each in three] == [2, 2, 2], texts
    assert "fix:   data.batch_size=63, or start 2 processes" in texts[0]
    assert "error: " not in texts[1] + texts[2]
    assert (run / "run.json").read_text() == before
    assert runs_in(folder) == [run]
