"""Files are whole or absent, and private."""

import math
import os
import subprocess
from pathlib import Path

import pytest

from mlscale import atomic_files as files
from mlscale.errors import Exit, MLScaleError
from tests.conftest import NoPrivileges


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"a": 1})

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MLScaleError, match=r"can't write a.json") as caught:
        files.write_json(path, {"a": 2})
    assert caught.value.exit == Exit.ENVIRONMENT
    assert files.read_json(path) == {"a": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


def test_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        files.write_text(tmp_path / "a", "x")
        files.make_folders(tmp_path / "b" / "c")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "b" / "c").stat().st_mode & 0o777 == 0o700


def test_json_of_what_json_lacks(tmp_path: Path) -> None:
    torch_like = type("Scalar", (), {"item": lambda self: 0.5})()
    files.write_json(
        tmp_path / "a", {"n": math.nan, "i": [math.inf], "p": Path("x"), "t": torch_like, "s": {1}, 2: "é"}
    )
    assert files.read_json(tmp_path / "a") == {"n": None, "i": [None], "p": "x", "t": 0.5, "s": [1], "2": "é"}


@pytest.mark.parametrize("content", ["", '{"a": 1', "[]", "\x00"])
def test_damaged_json_is_reported(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(MLScaleError, match=r"a\.json"):
        files.read_json(tmp_path / "a.json")


def test_artefacts_leave_out_links_and_what_is_being_written(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").write_text("x")
    (tmp_path / f"{files.ASIDE}y").write_text("y")
    (tmp_path / "link").symlink_to("/etc/hostname")
    assert [path.relative_to(tmp_path).as_posix() for path in files.iterate_regular_files(tmp_path)] == ["b/x"]


def test_whether_a_folder_can_be_written_to(tmp_path: Path, no_privileges: NoPrivileges) -> None:
    files.check_writable(tmp_path / "not" / "there" / "yet")
    assert list(tmp_path.iterdir()) == []
    with no_privileges(read_only=tmp_path), pytest.raises(MLScaleError, match="can't write runs") as caught:
        files.check_writable(tmp_path / "runs")
    assert (caught.value.why, caught.value.exit) == ("Permission denied", 5)


def test_a_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    place = tmp_path / "above" / "made"
    with pytest.raises(ZeroDivisionError), files.replace_folder(place) as aside:
        (aside / "a").write_text(f"half of it, then {1 / 0}")
    assert list(place.parent.iterdir()) == []
    for content in ("old", "new"):
        with files.replace_folder(place) as aside:
            (aside / content).write_text(content)
    assert [path.name for path in place.iterdir()] == ["new"]
    assert [path.name for path in place.parent.iterdir()] == ["made"]
    assert place.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_can_not_be_written_is_reported(tmp_path: Path, no_privileges: NoPrivileges) -> None:
    with (
        no_privileges(read_only=tmp_path),
        pytest.raises(MLScaleError, match="can't write made") as caught,
        files.replace_folder(tmp_path / "made"),
    ):
        pass
    assert caught.value.exit == Exit.ENVIRONMENT


def test_the_fix_of_an_unreadable_file_is_what_a_shell_takes(tmp_path: Path) -> None:
    path = tmp_path / "it's a photo.png"
    path.write_bytes(b"")
    path.chmod(0)
    command = files.suggest_restore(path).partition(", if")[0]
    subprocess.run(["bash", "-c", command], check=True)
    assert path.stat().st_mode & 0o400
