"""What a run folder that somebody else may have written can't do to who evaluates it."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from tests.contract.commands import environment, mlscale, only_run

CODE = """
from torch import nn


class Small(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))

    def forward(self, x):
        return self.net(x)
"""
YAML = "_target_: small_pkg.Small\nnum_classes: ${derived.num_classes}\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of the user's own, and one run of it."""
    folder = tmp_path_factory.mktemp("trust") / "project"
    (folder / "conf/model").mkdir(parents=True)
    (folder / "small_pkg.py").write_text(CODE)
    (folder / "conf/model/small.yaml").write_text(YAML)
    done = mlscale(folder, "debug=fast", "model=small", env=environment(folder.parent))
    assert done.returncode == 0, done.stderr
    return folder


def test_a_run_of_ones_own_code_evaluates(project: Path) -> None:
    done = mlscale(project, "evaluate", "last", "checkpoint=last", env=environment(project.parent))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["config.yaml", "derived.yaml"])
def test_an_altered_config_builds_nothing(project: Path, name: str) -> None:
    path, env = only_run(project) / name, environment(project.parent)
    before, mark = path.read_text(), project / "it-ran"
    foreign = f"{{_target_: os.system, command: touch {mark}}}"
    place = "compress: {}" if name == "config.yaml" else "num_classes: 10"
    path.write_text(before.replace(place, f"{place.split(':')[0]}: {foreign}"))
    try:
        assert path.read_text() != before
        done = mlscale(project, "evaluate", "last", "checkpoint=last", env=env)
    finally:
        path.write_text(before)
    assert done.returncode == 2, done.stderr
    assert "may not build os.system" in done.stderr
    assert "trust=true" in done.stderr
    assert not mark.exists()


class _Malicious:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize(
    ("archive", "reported"), [(False, "it is cut short, or no checkpoint"), (True, "holds more than tensors and plain")]
)
def test_a_malicious_checkpoint_runs_nothing(project: Path, tmp_path: Path, archive: bool, reported: str) -> None:
    mark, content = tmp_path / "it-ran", {"state_dict": _Malicious(tmp_path / "it-ran")}
    if archive:  # as torch writes it
        torch.save(content, tmp_path / "bad.ckpt")
    else:
        (tmp_path / "bad.ckpt").write_bytes(pickle.dumps(content, protocol=2))
    words = ["evaluate", "last", f"checkpoint={tmp_path}/bad.ckpt"]
    done = mlscale(project, *words, env=environment(project.parent))
    assert done.returncode == 2, done.stderr
    assert reported in done.stderr
    assert "Traceback" not in done.stderr
    assert not mark.exists()


def timm_project(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A user's folder with a run whose model no option of mlscale builds: timm's, by another name of its factory."""
    folder = tmp_path / "user"
    folder.mkdir()
    env = environment(tmp_path, XDG_STATE_HOME=str(tmp_path / "state"))
    words = ["debug=fast", "model=timm", "model.model_name=test_resnet", "model._target_=timm.models.create_model"]
    done = mlscale(folder, *words, env=env)
    assert done.returncode == 0, done.stderr
    return folder, env


def test_ones_own_run_needs_no_key_and_anothers_does(tmp_path: Path) -> None:
    folder, env = timm_project(tmp_path)
    words = ["evaluate", "last", "checkpoint=last"]
    assert mlscale(folder, *words, env=env).returncode == 0
    theirs = mlscale(folder, *words, env={**env, "XDG_STATE_HOME": str(tmp_path / "theirs")})
    assert theirs.returncode == 2
    assert "may not build timm.models.create_model" in theirs.stderr
    assert "trust=true, once you have read its config.yaml" in theirs.stderr
    config = only_run(folder) / "config.yaml"
    config.write_text(config.read_text().replace("timm.models.create_model", "timm.models._factory.create_model"))
    edited = mlscale(folder, *words, env=env)
    assert edited.returncode == 2
    assert "its config.yaml is not the one that you created it with" in edited.stderr


@pytest.mark.slow
def test_a_state_folder_that_can_not_be_written_breaks_no_training(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder would be")
    folder, env = timm_project(tmp_path)
    done = mlscale(folder, "evaluate", "last", "checkpoint=last", env=env)
    assert done.returncode == 2
    assert mlscale(folder, "evaluate", "last", "checkpoint=last", "trust=true", env=env).returncode == 0
