"""A command that another launcher starts several times: refused unless it trains, and never run several times."""

from pathlib import Path

import pytest

from mlscale import api, cli
from mlscale.errors import MLScaleError
from mlscale.launch import rank
from mlscale.launch.external.external_launcher import find_external_rank, refuse_external_rank

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
    ("evaluate", "last"),
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
    message = capsys.readouterr()
    size = next(value for name, value in _MANY[launcher].items() if "RANK" not in name and "PROCID" not in name)
    assert f"of {size}, started by {launcher}" in message.err
    assert message.err.count("error:") == 1
    assert f"trainer.devices={size}" in message.err
    assert not message.out
    assert not list(tmp_path.iterdir())


def test_the_python_api_refuses_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in _MANY["torchrun"].items():
        monkeypatch.setenv(name, value)
    with pytest.raises(MLScaleError, match="rank 1 of 2"):
        api.run("lifecycle", ["+recipe=resnet"])


@pytest.mark.parametrize("environment", _ALONE.values(), ids=_ALONE.keys())
def test_a_process_that_stands_alone_is_not_refused(environment: dict[str, str]) -> None:
    assert find_external_rank(environment) is None
    refuse_external_rank("profile", environment)


@pytest.mark.parametrize(
    ("launcher", "rank", "size", "name"),
    [("torchrun", 1, 2, "torchrun or a launcher like it"), ("srun", 0, 8, "srun"),
     ("Open MPI", 0, 2, "Open MPI's mpirun"), ("mpirun", 3, 4, "mpirun")],
)  # fmt: skip
def test_a_rank_of_several_is_found(launcher: str, rank: int, size: int, name: str) -> None:
    found = find_external_rank(_MANY[launcher])
    assert found is not None
    assert (found.rank, found.world_size, found.launcher.name, found.is_elastic) == (rank, size, name, False)


def test_torchrun_may_have_one_rank_left_and_counts_before_slurm() -> None:
    elastic = {"RANK": "0", "WORLD_SIZE": "1", "TORCHELASTIC_RUN_ID": "none", "LOCAL_RANK": "0"}
    found = find_external_rank({**elastic, **_MANY["srun"]})
    assert found is not None
    assert (found.launcher.rank, found.world_size, found.local_rank, found.is_elastic) == ("RANK", 1, 0, True)


def test_a_rank_that_mlscale_has_started_is_none_of_another_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank, "_is_rank", True)
    assert find_external_rank(_MANY["torchrun"]) is None


@pytest.mark.parametrize("words", [("+recipe=resnet",), ("+recipe=resnet", "launch.timeout_s=60")])
def test_a_training_without_an_address_names_the_variable(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in _MANY["Open MPI"].items():
        monkeypatch.setenv(name, value)
    assert cli.main(list(words)) == 2
    message = capsys.readouterr().err
    assert "error: MASTER_ADDR is not set for rank 0 of 2" in message
    assert "mpirun -x MASTER_ADDR=<the host of rank 0>" in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [("config", "check", "+recipe=resnet"), ("+recipe=resnet", "--cfg", "job")])
def test_what_launches_nothing_may_run_in_every_rank(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in _MANY["torchrun"].items():
        monkeypatch.setenv(name, value)
    assert cli.main(list(words)) == 0
