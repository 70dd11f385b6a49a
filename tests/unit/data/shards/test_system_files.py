"""Files that operating systems leave among a user's own are skipped everywhere, and counted once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mlscale.data import ImageFolder, TableFiles, TextFiles, WebDataset
from mlscale.data.shards.system_files import is_system_file
from mlscale.predict.inputs import open_inputs
from tests.unit.data.conftest import picture, write_shards


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("._1.jpg", True),
        ("a/b/._1.cls", True),
        ("a/.DS_Store", True),
        ("Thumbs.db", True),
        ("photos/THUMBS.DB", True),
        ("desktop.ini", True),
        ("__MACOSX/a/1.jpg", True),
        ("a/@eaDir/1.jpg/SYNOFILE_THUMB_M.jpg", True),
        ("$RECYCLE.BIN/1.jpg", True),
        ("1.jpg", False),
        ("_1.jpg", False),
        ("thumbs.jpg", False),
        (".hidden.jpg", False),
        ("a/MACOSX/1.jpg", False),
        ("my desktop.ini.jpg", False),
    ],
)
def test_what_a_system_file_is(path: str, expected: bool) -> None:
    assert is_system_file(path) is expected


@pytest.fixture(autouse=True)
def nothing_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlscale.data.shards.system_files._reported", set())


def litter(folder: Path, suffix: str) -> None:
    """What macOS and Windows leave: 5 entries."""
    (folder / f"._0{suffix}").write_bytes(b"\0\5\26\7 of macOS")
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (folder / "desktop.ini").write_text("[.ShellClassInfo]")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / f"0{suffix}").write_bytes(picture(0))


def folder_of_images(root: Path) -> Path:
    for number in range(8):
        path = root / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    return root


def test_a_folder_of_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder_of_images(tmp_path / "photos")
    clean = ImageFolder(root, image_size=8).facts()
    assert capsys.readouterr().err == ""
    litter(root / "cat", ".png")
    litter(root, ".png")
    assert ImageFolder(root, image_size=8).facts() == clean
    assert capsys.readouterr().err == (
        f"data      {root}: skipped files of macOS, Windows or a storage system: 6, the first: __MACOSX/\n"
    )


@pytest.mark.parametrize("suffix", [".png", ".csv"])
def test_what_predict_is_given(tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / f"in/{number}{suffix}").write_bytes(picture(number) if suffix == ".png" else b"a,b\n1,2\n")
    litter(tmp_path / "in", suffix)
    assert len(open_inputs(str(tmp_path / "in"), member=None, key=None, columns=())) == 3
    assert "skipped files of macOS" in capsys.readouterr().err


def shards(tmp_path: Path) -> int:
    folder = write_shards(tmp_path / "s", 6)
    shutil.copyfile(Path(__file__), folder / "._000.tar")
    return WebDataset(folder, write_shards(tmp_path / "v", 3), image_size=8).facts().train_samples


def tables(tmp_path: Path) -> int:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("x,target\n" + "".join(f"{number},{number % 2}\n" for number in range(3)))
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX/c.csv").write_bytes(b"\0\5\26\7")
    return TableFiles(str(tmp_path / "**/*.csv"), val=str(tmp_path / "a.csv"), target="target").facts().train_samples


def texts(tmp_path: Path) -> int:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("x" * 96)
    (tmp_path / "b.txt").write_text("x" * 96)
    (tmp_path / "texts/._a.txt").write_bytes(b"\0\5\26\7")
    return TextFiles(str(tmp_path / "texts"), val=str(tmp_path / "b.txt"), length=16).facts().train_samples


@pytest.mark.parametrize("read", [shards, tables, texts])
def test_every_other_kind_of_data(
    tmp_path: Path, read: Callable[[Path], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert read(tmp_path) == 6
    assert capsys.readouterr().err.count("skipped files of macOS, Windows or a storage system: 1") == 1
