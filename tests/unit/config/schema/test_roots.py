"""The search path: the user's folders first, each shadowed file named."""

from pathlib import Path

import pytest
import yaml

from mlscale.config.composition.argv import parse_command_line
from mlscale.config.composition.compose import compose_config
from mlscale.config.schema.roots import BASE_GROUPS, COMMAND_BASES, SERVICE_GROUPS, TAKES_MODEL, find_roots
from mlscale.errors import MLScaleError

REPO = Path(__file__).parents[4]
# A run always has a task, a precision, a strategy, a trainer and a launcher: these groups have no option `none`.
WITHOUT_NONE = {"task", "precision", "strategy", "trainer", "launch"}


def test_base_groups_are_those_of_the_base_config() -> None:
    entries = yaml.safe_load((REPO / "conf/base/run.yaml").read_text())["defaults"]
    assert tuple(key.lstrip("/") for entry in entries if isinstance(entry, dict) for key in entry) == BASE_GROUPS


def test_service_groups_are_those_of_their_base() -> None:
    entries = yaml.safe_load((REPO / "conf/base/service.yaml").read_text())["defaults"]
    assert tuple(key.lstrip("/") for entry in entries if isinstance(entry, dict) for key in entry) == SERVICE_GROUPS


def test_verb_configs_are_all_named_each_with_its_base_and_settings() -> None:
    primaries = {path.stem: yaml.safe_load(path.read_text())["defaults"] for path in (REPO / "conf").glob("*.yaml")}
    assert {command: defaults[0]["base"] for command, defaults in primaries.items()} == COMMAND_BASES
    assert {command: defaults[1] for command, defaults in primaries.items()} == {
        v: {"command": v} for v in COMMAND_BASES
    }
    assert {path.stem for path in (REPO / "conf/command").glob("*.yaml")} == {*COMMAND_BASES, TAKES_MODEL}


def test_every_optional_group_has_none() -> None:
    groups = find_roots().groups
    assert {group for group in BASE_GROUPS if "none" not in groups[group]} == WITHOUT_NONE


def test_every_shipped_file_says_what_it_is() -> None:
    files = sorted(REPO.glob("conf/**/*.yaml")) + sorted(REPO.glob("recipes/**/*.yaml"))
    assert len(files) > 40
    for file in files:
        comments = [line for line in file.read_text().splitlines() if line.startswith("# ") and "@package" not in line]
        assert comments, f"{file} does not open with what it is"


def test_own_folder_shadows_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf/optimizer").mkdir(parents=True)
    (tmp_path / "conf/optimizer/sgd.yaml").write_text("_target_: torch.optim.SGD\n_partial_: true\nlr: 0.5\n")
    request = parse_command_line("train", [])
    assert request.roots.list_shadowed() == ["conf/optimizer/sgd.yaml replaces the shipped optimizer=sgd"]
    assert compose_config(request).optimizer.lr == 0.5


def test_primary_config_cannot_be_shadowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/train.yaml").write_text("seed: 999\n")
    request = parse_command_line("train", [])
    assert request.roots.list_shadowed()[0].startswith("conf/train.yaml is not read")
    assert compose_config(request).seed == 0


def test_own_group_and_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes/recipe").mkdir(parents=True)
    (tmp_path / "recipes/optimizer").mkdir(parents=True)
    (tmp_path / "recipes/recipe/mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /optimizer: mine\n  - _self_\nname: mine\n"
    )
    (tmp_path / "recipes/optimizer/mine.yaml").write_text("defaults: [adamw]\nlr: 0.25\n")
    cfg = compose_config(parse_command_line("train", ["recipe=mine"]))
    assert (cfg.name, cfg.optimizer.lr, cfg.optimizer._target_) == ("mine", 0.25, "torch.optim.AdamW")


def test_missing_config_dir() -> None:
    with pytest.raises(MLScaleError, match="does not exist: nowhere"):
        find_roots(["nowhere"])


@pytest.mark.parametrize("metadata", ["theirs-1.dist-info/entry_points.txt", "theirs.egg-info/entry_points.txt"])
def test_a_package_that_declares_folders_is_seen(
    metadata: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_conf/model").mkdir(parents=True)
    (tmp_path / "their_conf/__init__.py").touch()
    (tmp_path / "their_conf/model/theirs.yaml").touch()
    file = tmp_path / metadata
    file.parent.mkdir()
    file.write_text("[mlscale.config_dirs]\ntheirs = their_conf\n")
    name = "METADATA" if "dist-info" in metadata else "PKG-INFO"
    (file.parent / name).write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    assert "theirs" not in find_roots().groups["model"]
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "theirs" in find_roots().groups["model"]


def test_what_is_no_file_is_no_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "conf" / "optimizer"
    (folder / "folder.yaml").mkdir(parents=True)
    (folder / "link.yaml").symlink_to("nowhere.yaml")
    (folder / "mine.yaml").write_text("lr: 1\n")
    monkeypatch.chdir(tmp_path)
    assert {"folder", "link", "mine"}.intersection(find_roots().groups["optimizer"]) == {"mine"}
