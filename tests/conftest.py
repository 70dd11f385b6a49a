"""For all tests: OpenMP threads that do not spin. For tests of whole commands: a folder to stand in, one data cache."""

import atexit
import contextlib
import fcntl
import functools
import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from mlscale.config.names import private_names
from mlscale.launch.threads import wait_passively
from mlscale.runs.host.machine import count_usable_cores, get_memory_bytes
from tests import composed_once

wait_passively()  # said before anything imports torch
os.environ.pop("COLUMNS", None)  # of somebody's terminal, or xdist's: tables are as wide as they are
if "PYTEST_XDIST_WORKER" in os.environ:  # several test processes share the cores, each of them its part
    _processes = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, count_usable_cores() // _processes)))
_STATE = tempfile.mkdtemp(prefix="mlscale-state-")  # where the key of a user's runs is kept
os.environ["XDG_STATE_HOME"] = _STATE
atexit.register(shutil.rmtree, _STATE, ignore_errors=True)
_UMASK = os.umask(0o077)
os.umask(_UMASK)
# Where the environment turns bytecode off, as images of containers do, what collection imports is compiled and its
# asserts rewritten once all the same, and not by each test process and each command. What tests write is not: a module
# that changes within a second would be taken for the one before.
_NO_BYTECODE, sys.dont_write_bytecode = sys.dont_write_bytecode, False


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return how many processes `-n auto` starts: one per core and 2 GiB that this process may use."""
    memory = get_memory_bytes()
    return min(count_usable_cores(), max(1, memory >> 31)) if memory else count_usable_cores()


def pytest_configure(config: pytest.Config) -> None:
    """Let xdist hand out files in order, not those of many tests first: drills, which take long, come before units."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the nightly drills out unless `-m` speaks of them."""
    if "nightly" in config.option.markexpr:
        return
    nightly = [item for item in items if item.get_closest_marker("nightly")]
    config.hook.pytest_deselected(items=nightly)
    items[:] = [item for item in items if item not in nightly]


def pytest_collection_finish() -> None:
    """Leave what imports and collection made out of later searches for garbage: each run in this process starts one."""
    sys.dont_write_bytecode = _NO_BYTECODE
    _leave_out_of_searches()


@pytest.hookimpl(trylast=True)  # when what the file's fixtures made is gone
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Leave what a file imported and keeps out of them, too: two million objects by the end, a second per search."""
    if nextitem is None or nextitem.path != item.path:
        _leave_out_of_searches()


def _leave_out_of_searches() -> None:
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def no_source_read_again() -> Iterator[None]:
    """Commands in this process read the sources of seven modules of libraries once, not each time; commands in
    processes of their own do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(private_names, "_read_source", functools.cache(private_names._read_source))
        table = functools.cache(private_names.read_private_names)
        patch.setattr(private_names, "read_private_names", lambda: dict(table()))
        yield


@pytest.fixture(autouse=True)
def forget_signals() -> Iterator[None]:
    """A signal that a test has sent to itself stops nothing in those after it: once one came, trackers send no rows."""
    yield
    if (module := sys.modules.get("mlscale.train.graceful_stop")) is not None:
        vars(module)["_received"] = 0


@pytest.fixture(scope="session", autouse=True)
def selections_composed_once() -> None:
    """What this process composes of shipped options alone, it merges once."""
    composed_once.install()


@pytest.fixture(autouse=True)
def umask_kept() -> None:
    """A run in this process makes its files private; those of the tests after it are as they were."""
    os.umask(_UMASK)


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return the folder `name` of this test run, filled by `make` in whichever of its processes needs it first."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with folder.with_suffix(".made").open("a+") as made:
        fcntl.flock(made, fcntl.LOCK_EX)
        if os.fstat(made.fileno()).st_size == 0:
            shutil.rmtree(folder, ignore_errors=True)  # what a process left that failed to make it
            folder.mkdir()
            make(folder)  # in its place: runs hold paths of their own
            made.write("made")
    return folder


@pytest.fixture(scope="session")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache folder of all commands: digits are written once."""
    return made_once(tmp_path_factory, "cache", lambda folder: None)


@pytest.fixture
def folder(tmp_path: Path, bundled: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that commands run in, with one thread each."""
    monkeypatch.setenv("MLSCALE_CACHE", str(bundled))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(sys, "path", list(sys.path))  # a command puts the folder it stands in there
    monkeypatch.chdir(tmp_path)
    return tmp_path


def runs_in(folder: Path) -> list[Path]:
    """The run folders below `folder`, oldest first."""
    return sorted((path.parent for path in folder.rglob("run.json")), key=lambda path: path.name.rsplit("-", 1)[-1])


def find_files(folder: Path, name: str) -> set[Path]:
    """The files of this name below `folder`, also while a process makes and removes folders: `rglob` raises then."""
    return {Path(base, name) for base, _, names in os.walk(folder) if name in names}


NoPrivileges = Callable[..., AbstractContextManager[None]]
_NOBODY = 65534


@pytest.fixture
def no_privileges() -> NoPrivileges:
    """A block in which a folder can be read and not written to, for root, too: it is somebody else then."""

    @contextlib.contextmanager
    def block(*owned: Path, read_only: Path) -> Iterator[None]:
        mode, root = read_only.stat().st_mode, os.geteuid() == 0
        opened: dict[Path, int] = {}
        if root:
            inside = [entry for each in owned for entry in (each, *each.rglob("*"))]
            for path in inside:
                if path != read_only:
                    os.chown(path, _NOBODY, -1)
            for parent in read_only.parents:  # pytest's folders are closed to others
                opened[parent] = parent.stat().st_mode
                parent.chmod(opened[parent] | 0o011)
        read_only.chmod(0o555)
        try:
            if root:
                os.seteuid(_NOBODY)
            yield
        finally:
            if root:
                os.seteuid(0)
            read_only.chmod(mode)
            for parent, before in opened.items():
                parent.chmod(before)

    return block
