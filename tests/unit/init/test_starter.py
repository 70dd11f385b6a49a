"""The project that `mlscale init` writes; that it trains and passes its own tests is in tests/e2e/test_init.py."""

import ast
from pathlib import Path

import pytest
import yaml

from mlscale.cli import main
from mlscale.errors import MLScaleError
from mlscale.init import derive_package_name, write_project


def test_every_file_is_whole(tmp_path: Path) -> None:
    files = write_project(tmp_path / "a-net", "a-net")
    there = {path.relative_to(tmp_path / "a-net") for path in (tmp_path / "a-net").rglob("*") if path.is_file()}
    assert set(files) == there
    assert {Path(".github/workflows/ci.yml"), Path(".gitignore"), Path("a_net/model.py")} <= there
    for path in sorted(there):
        text = (tmp_path / "a-net" / path).read_text()
        assert "@name@" not in text, path
        assert "@package@" not in text, path
        if path.suffix == ".py":
            ast.parse(text)
        elif path.suffix in (".yaml", ".yml"):
            assert yaml.safe_load(text), path
    assert [path.name for path in tmp_path.iterdir()] == ["a-net"]


def test_an_empty_folder_is_taken_and_a_full_one_refused(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    write_project(tmp_path / "net", "net")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(MLScaleError, match="is there, and not empty") as caught:
        write_project(tmp_path / "net", "net")
    assert caught.value.fix == "mlscale init net-2"
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "file").touch()
    with pytest.raises(MLScaleError, match="is a file"):
        write_project(tmp_path / "file", "file")


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("3x", "x"),
        ("torch", "my-torch"),
        ("class", "my-class"),
        ("json", "my-json"),
        ("NumPy", "my-NumPy"),
        ("runs", "my-runs"),
        ("default", "my-default"),
        ("a b", "a-b"),
        ("../up", "up"),
        ("", "digits"),
        ("a" * 41, "a" * 40),
    ],
)
def test_a_name_that_no_package_can_have(name: str, fix: str) -> None:
    with pytest.raises(MLScaleError, match="is not a valid name of a project") as caught:
        derive_package_name(name)
    assert caught.value.fix == f"mlscale init {fix}"
    assert derive_package_name(fix)


def test_a_folder_that_one_stands_beside_is_no_package(folder: Path) -> None:
    (folder / "mine").mkdir()
    (folder / "net.py").touch()
    assert [derive_package_name("mine"), derive_package_name("net")] == ["mine", "net"]


def test_what_is_next_is_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "my-net", "to=deep/work"]) == 0
    assert "next: cd deep/work && mlscale recipe=my_net" in capsys.readouterr().out
    assert (folder / "deep/work/ci.sh").stat().st_mode & 0o100
    assert main(["init", "my-net", "to=deep/work"]) == 2
