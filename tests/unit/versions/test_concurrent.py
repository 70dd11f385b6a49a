"""Several processes write to one registry at once, and some are killed while they do."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from mlscale.atomic_files import ASIDE
from mlscale.versions import LocalRegistry

WRITERS, EACH = 4, 6
WRITE = """
import pathlib, sys, time
from mlscale.errors import MLScaleError
from mlscale.versions import LocalRegistry
root, here, me, count = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
registry = LocalRegistry(root)
(here / f"ready-{me}").touch()
while not (here / "go").exists():
    time.sleep(0.001)
for turn in range(count):
    for content in (f"own {me} {turn}", f"shared {turn}"):
        (here / me).write_text(content * 1000)
        version = registry.publish("resnet", {"model.ckpt": here / me}, kind="checkpoint").version
        registry.promote(version.ref)
        registry.fetch("resnet@champion")
    if me == "0":
        try:
            registry.rollback("resnet")
        except MLScaleError as error:  # a promotion between looking and swapping: nobody asked to go back from that one
            assert "resnet@champion was moved meanwhile" in error.what, error
"""


def start(root: Path, here: Path, me: str, count: int) -> "subprocess.Popen[str]":
    """A process that publishes and promotes as soon as the file `go` is there."""
    return subprocess.Popen(
        [sys.executable, "-c", WRITE, str(root), str(here), me, str(count)], stderr=subprocess.PIPE, text=True
    )


def go(here: Path, *names: str) -> None:
    """Let the processes begin when all of them are ready."""
    end = time.monotonic() + 60
    while not all((here / f"ready-{me}").exists() for me in names):
        assert time.monotonic() < end
        time.sleep(0.005)
    (here / "go").touch()


def check_chain(registry: LocalRegistry) -> None:
    """Every move of an alias begins where the one before it ended: none was lost, none seen by halves."""
    aliases, at = registry.get_aliases("resnet"), dict[str, int | None]()
    for move in aliases.moves:
        assert move.before == at.get(move.alias), move
        at[move.alias] = move.after
    assert {alias: number for alias, number in at.items() if number} == aliases.of


def test_many_writers(tmp_path: Path) -> None:
    registry = LocalRegistry(tmp_path / "registry")
    names = [str(number) for number in range(WRITERS)]
    writers = [start(registry.root, tmp_path, me, EACH) for me in names]
    go(tmp_path, *names)
    seen = set()
    while any(writer.poll() is None for writer in writers):  # a reader takes no lock
        if registry.list_model_names():
            seen.add(registry.fetch("resnet").number)
    for writer in writers:
        _, printed = writer.communicate()
        assert writer.returncode == 0, printed
    found = registry.list_versions("resnet")
    assert [version.number for version in found] == list(range(1, WRITERS * EACH + EACH + 1))
    contents = {(version.payload / "model.ckpt").read_text()[:9].strip() for version in found}
    assert len(contents) == len(found)  # what all of them published is there once
    assert all(registry.find_changed_files(version) == [] for version in found)
    assert len(seen) > 1
    check_chain(registry)
    promotions = [m for m in registry.get_aliases("resnet").moves if m.alias == "champion"]
    assert len(promotions) >= len(found)


def test_killed_writers_leave_whole_versions_only(tmp_path: Path) -> None:
    registry, chance = LocalRegistry(tmp_path / "registry"), random.Random(0)
    for turn in range(6):
        here = tmp_path / str(turn)
        here.mkdir()
        writer = start(registry.root, here, f"writer-{turn}", 500)
        go(here, f"writer-{turn}")
        time.sleep(0.05 + 0.1 * chance.random())
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        assert writer.returncode == -signal.SIGKILL
        found = registry.list_versions("resnet")
        assert registry.find_corrupted_versions("resnet") == {}
        assert [version.number for version in found] == list(range(1, len(found) + 1))
        assert all(registry.find_changed_files(version) == [] for version in found)
        check_chain(registry)
    assert registry.publish("resnet", tmp_path / "0", kind="servable", aliases=["champion"]).new  # the lock is free
    assert list((registry.root / "versions").rglob(f"{ASIDE}*")) == []
    assert json.loads((registry.root / "versions/resnet/aliases.json").read_text())["aliases"]["champion"] > 1
