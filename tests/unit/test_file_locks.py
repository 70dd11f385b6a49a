"""Folders of killed processes are removed, those of running ones are not."""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mlscale.atomic_files import replace_folder
from mlscale.file_locks import hold_folder, make_scratch_folder

_MAKE = """
import sys, time
from pathlib import Path
from mlscale.atomic_files import replace_folder
from mlscale.file_locks import make_scratch_folder
with make_scratch_folder("server") as scratch, replace_folder(Path("made")) as aside:
    (scratch / "log").touch()
    (aside / "half").touch()
    print(scratch, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of the system's for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_folders_of_a_killed_process_are_removed_and_not_before(tmp_path: Path, temporary: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", _MAKE], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    left = Path(process.stdout.readline().strip())
    assert left.parent == temporary
    with make_scratch_folder("server") as own, replace_folder(tmp_path / "made"):
        # Those of the running process stay, and this one's do.
        assert {path.name for path in temporary.iterdir()} == {left.name, own.name}
        assert len(list(tmp_path.glob(".aside-made-*"))) == 2
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert left.exists()
    assert len(list(tmp_path.glob(".aside-made-*"))) == 1
    with make_scratch_folder("int8") as own, replace_folder(tmp_path / "made") as aside:
        assert list(temporary.iterdir()) == [own]
        assert list(tmp_path.glob(".aside-made-*")) == [aside]
    assert not list(temporary.iterdir())


def test_what_others_have_named_alike_is_left(tmp_path: Path, temporary: Path) -> None:
    (temporary / "elsewhere").mkdir()
    (temporary / "mlscale-scratch-link").symlink_to(temporary / "elsewhere")
    (tmp_path / ".aside-made-twice-0123abcd").mkdir()
    with make_scratch_folder("server"), replace_folder(tmp_path / "made"):
        pass
    assert sorted(path.name for path in temporary.iterdir()) == ["elsewhere", "mlscale-scratch-link"]
    assert (tmp_path / ".aside-made-twice-0123abcd").is_dir()


def test_the_last_copy_of_a_folder_is_never_removed(tmp_path: Path) -> None:
    # As a process leaves it that is killed between its two renames.
    (tmp_path / ".aside-made-0123abcd").mkdir()
    (tmp_path / ".aside-made-0123abcd-old").mkdir()
    with replace_folder(tmp_path / "made"):
        assert (tmp_path / ".aside-made-0123abcd-old").is_dir()
        assert (tmp_path / ".aside-made-0123abcd").is_dir()
    with replace_folder(tmp_path / "made"):
        assert len(list(tmp_path.glob(".aside-*"))) == 1


def test_a_folder_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    with hold_folder(tmp_path) as first, hold_folder(tmp_path) as second:
        assert first
        assert not second
    with hold_folder(tmp_path / "absent") as absent:
        assert not absent
