"""A run that starts from weights that are there, is killed and goes on, is what it would have been."""

import signal
from pathlib import Path

import pytest

from mlscale import commands
from mlscale.cli import main
from scripts.same_run import differences
from tests.conftest import runs_in
from tests.resume.commands import WORDS, end, ended


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, bundled: Path) -> Path:
    """The checkpoint of a short run."""
    place = tmp_path_factory.mktemp("weights")
    made = commands.run_command(
        "train", [*WORDS, "trainer.max_steps=5", f"runs_dir={place}/runs", f"data.root={bundled}"]
    )
    return Path(made.artifacts["run"]) / "checkpoints/last.ckpt"


@pytest.mark.parametrize("moment", [pytest.param("start-up", marks=pytest.mark.slow), "step"])
def test_it_goes_on_to_the_bit(folder: Path, weights: Path, moment: str) -> None:
    words = (*WORDS, f"init_from={weights}")
    assert main([*words, "runs_dir=undisturbed"]) == 0
    killed = (*words, end(moment, folder), "resume=auto")
    code, printed = ended(folder, *killed)
    assert code == -signal.SIGKILL, printed
    if moment == "step":
        # What was saved has later weights: those it began with are not looked at again.
        copy = weights.with_name("kept.ckpt")
        weights.rename(copy)
    try:
        assert main(["runs", "resume", "last", "trust=true"]) == 0
    finally:
        if moment == "step":
            copy.rename(weights)
    (whole,), (run,) = runs_in(folder / "undisturbed"), runs_in(folder / "runs")
    assert differences(whole, run) == []
