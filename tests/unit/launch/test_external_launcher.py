"""A command that another launcher starts several times: refused, and never run several times."""

from pathlib import Path

import pytest

from mlscale import api, cli
from mlscale.errors import MLScaleError
from mlscale.launch.external_launcher import refuse_external_rank

_MANY = {
    "torchrun": {"RANK": "1", "WORLD_SIZE": "2"},
    "srun": {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "8"},
    "Open MPI": {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"},
    "mpirun": {"PMI_RANK": "3", "PMI_SIZE": "4"},
}
_ALONE = {
    "one rank of torchrun": {"RANK": "0", "WORLD_SIZE": "1"},
    "no rank": {"WORLD_SIZE": "8"},
    "a batch script": {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"},
    "one task of srun": {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"},
}
_COMMANDS = (
    ("+recipe=resnet",),
    ("-m", "+recipe=resnet", "seed=1,2"),
    ("retrain", "resnet"),
    ("lifecycle", "+recipe=resnet"),
    ("verify-resume", "+recipe=resnet"),
    ("profile", "+recipe=resnet"),
    ("predict", "last", "input=x", "to=y"),
)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("launcher", "words"), [*((name, _COMMANDS[0]) for name in _MANY), *(("srun", words) for words in _COMMANDS[1:])]
)
def test_one_of_several_ranks_is_refused_before_anything_starts(
    launcher: str,
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in _MANY[launcher].items():
        monkeypatch.setenv(name, value)
    assert cli.main(list(words)) == 2
    told = capsys.readouterr()
    size = next(value for name, value in _MANY[launcher].items() if "RANK" not in name and "PROCID" not in name)
    assert f"of {size}, started by {launcher}" in told.err
    assert told.err.count("error:") == 1
    assert f"trainer.devices={size}" in told.err
    assert not told.out
    assert not list(tmp_path.iterdir())


def test_the_python_api_refuses_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = api.compose(["+recipe=resnet"])
    for name, value in _MANY["torchrun"].items():
        monkeypatch.setenv(name, value)
    with pytest.raises(MLScaleError, match="rank 1 of 2"):
        api.run("train", cfg)
    with pytest.raises(MLScaleError, match="rank 1 of 2"):
        api.run("lifecycle", ["+recipe=resnet"])


@pytest.mark.parametrize("environment", _ALONE.values(), ids=_ALONE.keys())
def test_a_process_that_stands_alone_is_not_refused(environment: dict[str, str]) -> None:
    refuse_external_rank("train", environment)


@pytest.mark.parametrize("words", [("config", "check", "+recipe=resnet"), ("+recipe=resnet", "--cfg", "job")])
def test_what_launches_nothing_may_run_in_every_rank(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in _MANY["torchrun"].items():
        monkeypatch.setenv(name, value)
    assert cli.main(list(words)) == 0
