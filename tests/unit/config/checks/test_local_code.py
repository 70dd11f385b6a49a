"""The code of the working folder that a config runs is named; installed packages and mlscale's own are not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mlscale.config.checks.local_code import describe_local_code, list_targets
from tests.unit.config.checks.small_configs import parse_config


def describe(*targets: str) -> list[str]:
    return describe_local_code(parse_config(f"callbacks: [{', '.join(f'{{_target_: {name}}}' for name in targets)}]"))


def test_every_target_in_order_at_any_depth() -> None:
    text = "a: {_target_: x.A, b: [{_target_: x.B}, 3, {c: {_target_: x.C}}], d: {_target_: 3, e: {_target_: x.D}}}"
    assert list_targets(parse_config(text)) == ["x.A", "x.B", "x.C", "x.D"]
    assert list_targets(parse_config("a: 3")) == []


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with modules, on the path."""
    for name in (
        *("own_net.py", "own_pack/__init__.py", "own_pack/a.py", "own_pack/sub/__init__.py", "own_pack/sub/nets.py"),
        *("own_space/deep.py", "site-packages/own_installed.py"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, tmp_path / "site-packages"):
        monkeypatch.syspath_prepend(str(folder))
    return tmp_path


@pytest.mark.usefixtures("here")
def test_modules_of_this_folder_are_named_once() -> None:
    assert describe("torch.nn.ReLU", "own_net.Net", "own_pack.a.B", "own_net.Other", "own_space.deep.C") == [
        "code of this folder runs: own_net.py, own_pack/__init__.py, own_pack/a.py, own_space/deep.py"
    ]
    # Of a nested module the packages on the way run, too.
    assert describe("own_pack.sub.nets.Net.create", "own_pack.sub.make", "own_space.none.C") == [
        "code of this folder runs: own_pack/__init__.py, own_pack/sub/__init__.py, own_pack/sub/nets.py, own_space"
    ]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "target", ["torch.nn.ReLU", "mlscale.tasks.Classification", "no_such_module.A", "own_installed.A", "sys.A", ".x"]
)
def test_what_is_elsewhere_or_does_not_exist_is_not_named(target: str) -> None:
    assert describe(target) == []
    assert describe(target, "own_net.Net") == ["code of this folder runs: own_net.py"]


def test_code_of_another_folder_is_not_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    assert describe("own_net.Net") == []


def test_of_a_package_in_several_folders_the_first_counts(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here.parent / "other" / "own_space").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [*sys.path, str(here.parent / "other")])
    assert describe("own_space.deep.C") == ["code of this folder runs: own_space/deep.py"]


def test_mlscale_is_not_named_in_its_own_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(sys.modules["mlscale"].__path__[0]).parent)
    assert describe("mlscale.tasks.Classification") == []


def test_nothing_is_imported(here: Path) -> None:
    (here / "own_net.py").write_text("raise AssertionError")
    assert describe("own_net.Net") == ["code of this folder runs: own_net.py"]
    assert "own_net" not in sys.modules
