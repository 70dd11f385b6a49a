"""A config out of an artefact builds known classes and the user's own; what else it names is refused."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

import mlscale
from mlscale.config.checks.trust import find_distrusted
from mlscale.config.composition.argv import parse_command_line
from mlscale.config.composition.compose import compose_config
from mlscale.config.signatures import source_names as source


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run's folder below the one that the user stands in, with code of theirs and code that came with the run."""
    monkeypatch.chdir(tmp_path)
    source.find_module.cache_clear()
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "trusted_pkg").mkdir()
    (tmp_path / "trusted_pkg/__init__.py").write_text("import os\n\nclass Model: ...\n")
    folder = tmp_path / "got/2026-01-01/run-1"
    folder.mkdir(parents=True)
    (folder.parent.parent / "evil.py").write_text("class Model: ...\n")
    return folder


def refused(config: Any, run: Path, *typed: str) -> list[str]:
    return [problem.what for problem in find_distrusted(config, run, typed)]


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.Popen",
        "builtins.eval",
        "hydra.utils.get_method",
        "torch.hub.load",
        "torch.load",
        "torch.nn.functional.torch.hub.load",
        "mlscale.data.shards.shard_paths.find_shards",
        "mlscale.atomic_files.remove_tree",
        "mlscale.versions.open_registry",
        "trusted_pkg.os.system",
        "got.evil.Model",
        "nowhere.Model",
        "${oc.env:TARGET}",
    ],
)
def test_foreign_targets_are_refused_wherever_they_stand(run: Path, target: str) -> None:
    assert refused({"_target_": target}, run) == [f"the run's config may not build {target}"]
    assert len(refused({"model": {"layers": [{"_target_": target}, {"_target_": "torch.nn.ReLU"}]}}, run)) == 1


@pytest.mark.parametrize(
    "target",
    [
        "trusted_pkg.Model",
        "torch.optim.lr_scheduler.OneCycleLR",
        "mlscale.tasks.MLP",
        "mlscale.versions.LocalRegistry",
    ],
)
def test_known_classes_and_own_code_are_built(run: Path, target: str) -> None:
    assert refused({"model": {"_target_": target, "token": "${oc.decode:${oc.env:MLSCALE_SECRET_X}}"}}, run) == []


@pytest.mark.parametrize("value", ["${oc.create:{_target_:os.system}}", "a ${oc.decode:'{_target_: os.system}'}"])
def test_no_node_is_made_from_text(run: Path, value: str) -> None:
    assert len(refused({"model": value}, run)) == 1


def test_what_shards_may_do_must_be_typed(run: Path) -> None:
    config = {"data": {"allow": ["pickle", "pipe"]}}
    assert refused(config, run) == [
        "the run's data may not unpickle members of shards",
        "the run's data may not run shell commands",
    ]
    assert refused(config, run, "data.allow") == []


@pytest.mark.parametrize(
    "extra", [[], ["+recipe=resnet", "logger=[csv,tensorboard,wandb]", "data=webdataset"], ["model=timm"]]
)
def test_every_shipped_target_is_known(run: Path, extra: list[str]) -> None:
    from omegaconf import OmegaConf

    assert refused(OmegaConf.to_container(compose_config(parse_command_line("train", extra))), run) == []


def test_every_target_of_a_shipped_file_is_known_and_a_users_file_makes_none_known(run: Path) -> None:
    """Found by glob, so that an option that is added is known, too; interpolated ones are none."""
    from mlscale.config.schema.roots import get_shipped_folder

    texts = [file.read_text() for name in ("conf", "recipes") for file in get_shipped_folder(name).rglob("*.yaml")]
    targets = {
        line.split("_target_:")[1].split("#")[0].strip()
        for text in texts
        for line in text.splitlines()
        if line.lstrip().startswith("_target_:")
    }
    assert len(targets) > 50
    assert "timm.create_model" in targets
    assert [what for target in targets for what in refused({"_target_": target}, run)] == []
    Path("conf/model").mkdir(parents=True)
    Path("conf/model/mine.yaml").write_text("_target_: os.system\n")
    assert len(refused({"_target_": "os.system"}, run)) == 1


def test_a_class_of_the_session_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main = sys.modules["__main__"]
    mine = type("Mine", (), {"__module__": "__main__"})
    for name, value in {"Mine": mine, "theirs": os.system, "Path": Path, "os": os}.items():
        monkeypatch.setattr(main, name, value, raising=False)
    assert find_distrusted({"model": {"_target_": "__main__.Mine"}}, tmp_path) == []
    for target in ("__main__.theirs", "__main__.Path", "__main__.os.system", "__main__.absent"):
        assert len(find_distrusted({"model": {"_target_": target}}, tmp_path)) == 1, target


NOTIFY = "mlscale.train.callbacks.Notify"


@pytest.mark.parametrize("key", ["webhook", "command", "mail.host"])
def test_recipients_are_typed_or_of_the_environment(run: Path, key: str) -> None:
    def config(text: str | None) -> dict[str, Any]:
        first, _, second = key.partition(".")
        return {"callbacks": {"mine": {"_target_": NOTIFY, first: {second: text} if second else text}, "off": None}}

    sentence = "the run's config may not notify others, or start programs"
    assert refused(config("http://evil.example"), run) == [sentence]
    assert refused(config("http://evil.example"), run, f"callbacks.mine.{key}") == []
    assert refused(config("http://evil.example"), run, "callbacks.other.webhook") == [sentence]
    assert refused(config("${oc.env:MINE}"), run) == []
    assert refused(config(None), run) == []
    assert refused({"callbacks": None}, run) == refused([], run) == []


def test_the_doubt_is_reported(run: Path) -> None:
    (problem,) = find_distrusted({"_target_": "os.system"}, run, doubt="it was copied")
    assert problem.why.startswith("it was copied; of such a run only ")
    assert problem.where == f"{run / 'config.yaml'}: _target_"
    (problem,) = find_distrusted({"_target_": "os.system"}, run)
    assert problem.why.startswith("the run may not be yours; of such a run only ")


def test_a_clone_of_mlscale_is_not_the_users_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(mlscale.__file__).parents[1])
    source.find_module.cache_clear()
    assert len(refused({"_target_": "mlscale.atomic_files.remove_tree"}, tmp_path)) == 1


def test_installed_code_below_the_working_folder_is_not_the_users(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "venv" / "site-packages"
    (packages / "installed_pkg").mkdir(parents=True)
    (packages / "installed_pkg/__init__.py").write_text("class Model: ...\n")
    (packages / "own_pkg").mkdir()
    (packages / "own_pkg/mlscale.py").write_text("class Model: ...\n")
    monkeypatch.syspath_prepend(str(packages))
    source.find_module.cache_clear()
    assert len(refused({"_target_": "installed_pkg.Model"}, run)) == 1
    assert refused({"_target_": "trusted_pkg.Model"}, run) == []
