"""A run killed by SIGKILL goes on to the bit: twelve moments of its life, one process and two, every recipe."""

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mlscale.cli import main
from mlscale.runs.host import processes as process
from scripts.kill_processes import find_processes, kill_processes
from scripts.resume_layouts import Attempt
from scripts.same_run import differences
from tests.conftest import runs_in
from tests.resume.commands import ROOT, WORDS, end, ended

SLOW = pytest.mark.slow
LAST_STEP = 22  # of `WORDS`
RECIPES = sorted(path.stem for path in ROOT.glob("recipes/recipe/*.yaml"))
SMALLER = {  # what takes a minute otherwise
    "gpt": ["data.length=32", "model.width=32", "model.buckets=512", "++trainer.limit_val_batches=4"],
}


@pytest.mark.parametrize(
    ("moment", "whom", "devices"),
    [
        pytest.param("start-up", "group", 1, marks=SLOW),
        pytest.param("step", "group", 1, marks=SLOW),
        pytest.param("validation", "group", 1, marks=SLOW),
        ("writing", "group", 1),
        pytest.param("between", "group", 1, marks=SLOW),
        pytest.param("last between", "group", 1, marks=SLOW),
        pytest.param("exit", "group", 1, marks=SLOW),
        pytest.param("unsealed", "group", 1, marks=SLOW),
        pytest.param("start-up", "command", 2, marks=SLOW),
        pytest.param("step", "command", 2, marks=SLOW),
        pytest.param("validation", "rank", 2, marks=SLOW),
        pytest.param("writing", "group", 2, marks=SLOW),
        pytest.param("exit", "group", 2, marks=SLOW),
        pytest.param("last between", "group", 2, marks=SLOW),
    ],
)
def test_it_goes_on_to_the_bit(
    folder: Path, undisturbed: Callable[[str], Path], moment: str, whom: str, devices: int
) -> None:
    *last, at = moment.split()  # of the first epoch, or of the last
    arguments = {"whom": whom, **({"step": LAST_STEP} if last else {})}
    words = (*WORDS, f"trainer.devices={devices}", end(at, folder, **arguments), "resume=auto")
    code, printed = ended(folder, *words)
    assert code == (5 if whom == "rank" else -signal.SIGKILL), printed
    (run,) = runs_in(folder)
    assert list(run.glob("checkpoints/.aside-*")) if moment == "writing" else True  # it has left half of one
    assert (run / "results/train.json").exists() == (moment == "unsealed")
    assert (run / "manifest.json").exists() == (whom == "rank")  # then the launcher has lived, and sealed it
    assert main([*words, "output=json"]) == 0
    assert runs_in(folder) == [run]
    assert differences(undisturbed(str(devices)), run) == []
    assert not list(run.glob("checkpoints/.aside-*"))


@SLOW
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_goes_on_to_the_bit(folder: Path, recipe: str) -> None:
    short = ["++trainer.limit_train_batches=8", "trainer.max_epochs=2", "callbacks.checkpoint.every_n_steps=3"]
    smaller = SMALLER.get(recipe, [])
    words = (f"+recipe={recipe}", "snapshot=false", "trainer.accelerator=cpu", *short, *smaller)
    assert main([*words, "runs_dir=undisturbed"]) == 0
    code, printed = ended(folder, *words, end("step", folder, step=11))
    assert code == -signal.SIGKILL, printed
    assert main(["runs", "resume", "last", "trust=true"]) == 0
    (whole,) = runs_in(folder / "undisturbed")
    (run,) = runs_in(folder / "runs")
    assert differences(whole, run) == []


def test_ranks_end_soon_after_their_launcher(folder: Path) -> None:
    code, printed = ended(folder, *WORDS, "trainer.devices=2", end("step", folder, whom="command"))
    killed = time.monotonic()
    assert code == -signal.SIGKILL, printed
    ranks = [int(path.name.split("-")[1]) for path in (folder / "notes").glob("rank-*")]
    assert len(ranks) == 2
    assert os.getpid() not in ranks
    while any(process.is_alive(rank, None) for rank in ranks):
        time.sleep(0.05)
        assert time.monotonic() - killed < 10  # half a second; a busy machine takes longer


@SLOW
def test_no_process_is_left_when_the_launcher_has_ended(folder: Path) -> None:
    """Not even a fork server that can't notice it, as one that imports torch: the system ends it."""
    words = [*WORDS, "trainer.max_epochs=1000", "trainer.devices=2", end("exit", folder)]
    attempt = Attempt(folder, words, "2")
    attempt.start()
    deadline = time.monotonic() + 120
    try:
        while len(ranks := list((folder / "notes").glob("rank-*"))) < 2:
            assert not attempt.is_over(), (folder / "output").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        (line,) = re.findall(r"^PPid:.*", Path(f"/proc/{ranks[0].name[5:]}/status").read_text(), re.MULTILINE)
        server = int(line.split()[1])
        assert server != attempt.process.pid
        os.kill(server, signal.SIGSTOP)
        attempt.process.kill()
        attempt.process.wait()
        while left := find_processes(attempt.name, all_kinds=True):
            assert time.monotonic() < deadline, left
            time.sleep(0.05)
    finally:
        kill_processes([process.pid for process in find_processes(attempt.name, all_kinds=True)])
