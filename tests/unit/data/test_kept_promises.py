"""The promises of every option of `data=`, found by the files in conf/data: kills, ranks, and files that changed.

A new option is taken in by its function in `BACKENDS` of `backends`; one that has none fails here.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mlscale.data.builtin import image_sets
from mlscale.data.data_module import OrderedData
from mlscale.data.order.batch_plan import BatchLayout
from mlscale.errors import MLScaleError
from tests.unit.data.backends import BACKENDS, POLICIES, cases, probe_once, rows, same, some_digits, write_weights
from tests.unit.data.loader_process import digest_batch, read_log, write_batches

CONF = Path(__file__).resolve().parents[3] / "conf" / "data"
OPTIONS = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "none")
# These read what comes with a package by the code of another option.
READ_AS = {
    "breast_cancer": "table", "diabetes": "numbers", "python_docs": "language",
    "python_source": "texts", "digits_scenes": "masks", "fashion_mnist": "digits", "text_files": "language",
    "text_table": "texts",
}  # fmt: skip
WORLD_SIZES = (2, 4, 8)
# Without files: a user's dataset reads what it likes.
WITHOUT_FILES = {"dataset"}
# A cache is read in their place, or they are mapped: `mlscale data verify` and `prepare` read every byte.
NOT_READ_AGAIN = {"image_table", "fashion_mnist", "tokens"}
FLIPS = 8
BATCH = 32
Build = Callable[..., OrderedData]


def mark_backend(build: Build) -> Any:
    return pytest.param(build, id=build.__name__, marks=pytest.mark.slow if build.__name__ == "fashion_mnist" else ())


def test_every_option_keeps_its_promises_here() -> None:
    names = {build.__name__ for build in BACKENDS} | {"fashion_mnist", "dali"}
    missing = [option for option in OPTIONS if READ_AS.get(option, option) not in names]
    assert missing == [], "write a function for them in BACKENDS of tests/unit/data/backends.py"
    assert not set(READ_AS) - set(OPTIONS)
    assert len(OPTIONS) >= 14
    assert len(names) >= 14


def test_what_is_read_as_another_is_of_its_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_sets, "split_digits", some_digits)
    builders = {build.__name__: build for build in BACKENDS}
    for option, name in READ_AS.items():
        if name == "digits" and option == "fashion_mnist":
            continue
        target = yaml.safe_load((CONF / f"{option}.yaml").read_text())["_target_"]
        module, _, attribute = target.rpartition(".")
        cls = getattr(importlib.import_module(module), attribute)
        built = type(builders[name](tmp_path / name))
        assert cls._open_stream is built._open_stream, option


def mark_case(case: Any) -> Any:
    # One to eight ranks read each; `test_promises` has two and three of every policy.
    slow = () if case.values[0][1] in ("plain", "mixup", "skip") else (pytest.mark.slow,)
    return pytest.param(*case.values, id=case.id, marks=(*case.marks, *slow))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_sets, "split_digits", some_digits)


def read_ranks(build: Build, ranks: int, state: dict[str, Any] | None, steps: int) -> tuple[Any, dict[str, Any]]:
    """Return the next global batches as `ranks` processes have them, and the state of the last rank."""
    loaders = []
    for rank in range(ranks):
        data = build()
        data.setup("fit")
        data._build_layout = partial(BatchLayout, BATCH, ranks, rank)  # type: ignore[method-assign]
        if state is not None:
            data.load_state_dict(state)
        loaders.append((data, data.train_dataloader()))
    seen: list[Any] = []
    states: list[dict[str, Any]] = [data.state_dict() for data, _ in loaders]
    while len(seen) < steps:
        for parts in zip(*(loader for _, loader in loaders), strict=True):
            seen.append(rows(list(parts)))
            states = [data.state_dict() for data, _ in loaders]
            if len(seen) == steps:
                break
    assert all(other == states[0] for other in states)
    return seen, states[0]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("case", [*map(mark_case, cases())])
def test_world_sizes(case: tuple[Build, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One, two, four and eight ranks have the same global batches, also where each resumes what another began."""
    backend, name = case
    monkeypatch.setenv("MLSCALE_CACHE", str(tmp_path / "cache"))
    probe_once(monkeypatch)
    # Divides by eight ranks, and by the blocks of mixup on each.
    choices = {"batch_size": BATCH, **POLICIES[name]}
    if choices.get("sampling") == "weighted":
        choices["weights"] = str(write_weights(backend(tmp_path), tmp_path / "weights.csv"))

    def build() -> OrderedData:
        return backend(tmp_path, **choices)

    whole, _ = read_ranks(build, 1, None, 4)
    for ranks in WORLD_SIZES:
        seen, _ = read_ranks(build, ranks, None, 4)
        assert same(seen, whole), f"{ranks} ranks"
    state, seen = None, []
    for ranks in (8, 2, 1, 4):
        part, state = read_ranks(build, ranks, state, 1)
        seen += part
    assert same(seen, whole)


@pytest.mark.parametrize("backend", [*map(mark_backend, BACKENDS)])
def test_kills(backend: Build, tmp_path: Path) -> None:
    """A process that is killed twice, by SIGKILL, and resumed: the batches of one that was not."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.unit.data.backends"])
    policy: dict[str, Any] = {"seed": 5}
    count, killed, log = 24, 0, tmp_path / "log"
    while len(read_log(log)) < count:
        process = context.Process(target=write_batches, args=(backend.__name__, tmp_path, policy, log, count))
        process.start()
        # Killed twice, after a third and two thirds of the batches; the third process reads the others.
        goal = (killed + 1) * count // 3
        end = time.monotonic() + 120
        while killed < 2 and process.is_alive() and len(read_log(log)) < goal and time.monotonic() < end:
            time.sleep(0.001)
        if killed < 2 and process.is_alive():
            os.kill(process.pid or 0, signal.SIGKILL)
            killed += 1
        process.join(120)
        assert process.exitcode in (0, -signal.SIGKILL)
    os.environ["MLSCALE_CACHE"] = str(tmp_path / "cache")
    data = backend(tmp_path, **policy)
    data.setup("fit")
    loader, whole = data.train_dataloader(), list[str]()
    while len(whole) < count:
        whole += [digest_batch(batch) for batch in loader]
    assert [digest for digest, _ in read_log(log)] == whole[:count]
    assert killed > 0


@pytest.mark.parametrize("backend", [mark_backend(build) for build in BACKENDS if build.__name__ not in WITHOUT_FILES])
def test_files_that_change(backend: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that changes between the start of a run and its resumption ends it, or changes nothing that it reads."""
    monkeypatch.setattr(image_sets, "split_digits", some_digits)
    monkeypatch.setenv("MLSCALE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(image_sets, "get_cache_dir", lambda: tmp_path / "sets")
    data = backend(tmp_path)
    data.setup("fit")
    next(iter(data.train_dataloader()))
    state, whole = data.state_dict(), read_rest(data)
    files, outcomes = find_files(tmp_path), Counter[tuple[str, str]]()
    for path in files[:2]:
        content, status = path.read_bytes(), path.stat()
        for kind, corrupted in list_corruptions(content, files, path):
            # Built before, since the functions of `backends` write what is missing.
            data = backend(tmp_path)
            if corrupted is None:
                path.unlink()
            else:
                path.write_bytes(corrupted)
            if kind == "flip":
                # As a failing disk does, which leaves the times of a file alone.
                os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            outcome = resume_reading(data, state, whole)
            outcomes[kind, outcome] += 1
            path.write_bytes(content)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    print(backend.__name__, dict(outcomes))
    unread = {"flip"} if backend.__name__ in NOT_READ_AGAIN else set()
    assert {kind for kind, outcome in outcomes if outcome == "other"} <= unread
    # Bits that nothing depends on may flip, such as those of a tar's padding.
    assert {kind for kind, outcome in outcomes if outcome == "same"} <= {"flip"}
    assert outcomes["flip", "refused"] > 0 or unread
    assert sum(outcomes.values()) == (FLIPS + 3) * min(2, len(files)) > 0


def find_files(folder: Path) -> list[Path]:
    """Return the files of a backend, those of training first."""
    paths = [path for path in folder.rglob("*") if path.is_file() and "cache" not in path.relative_to(folder).parts[:1]]

    def is_record(path: Path) -> bool:
        """Return whether it is what wrote the data, and not what reads it, that needs the file."""
        return any(part.startswith(".") for part in path.relative_to(folder).parts)

    return sorted(
        paths, key=lambda path: (is_record(path) or (path.suffix in (".json", ".txt") and len(paths) > 1), str(path))
    )


def list_corruptions(content: bytes, files: list[Path], path: Path) -> Iterator[tuple[str, bytes | None]]:
    """Yield the kind of each corruption, and the content after it; None for a file that is missing."""
    yield "missing", None
    yield "cut", content[: len(content) * 2 // 3]
    others = [other.read_bytes() for other in files if other.suffix == path.suffix and other != path]
    lines = content.splitlines(keepends=True)
    # A file of the same kind, or the lines in another order, which is as long.
    yield "replaced", others[-1] if others else b"".join(lines[:1] + lines[:0:-1])
    random = torch.Generator().manual_seed(len(content))
    for at in torch.randint(0, len(content), (FLIPS,), generator=random).tolist():
        flipped = bytearray(content)
        flipped[at] ^= 1 << at % 8
        yield "flip", bytes(flipped)


def read_rest(data: OrderedData) -> list[str]:
    """Return the digests of the batches until the end of the next epoch, and of those of validation."""
    loader = data.train_dataloader()
    return [digest_batch(batch) for batches in (loader, loader, data.val_dataloader()) for batch in batches]


def resume_reading(data: OrderedData, state: dict[str, Any], whole: list[str]) -> str:
    """Return 'refused', 'same' or 'other': what came of resuming with a file that has changed."""
    try:
        data.setup("fit")
        data.load_state_dict(state)
        seen = read_rest(data)
    except MLScaleError as error:
        return "refused" if error.fix else "other"
    return "same" if seen == whole else "other"


def test_the_helpers_find_what_differs(tmp_path: Path) -> None:
    """The tests above could not fail otherwise."""
    backend = next(build for build in BACKENDS if build.__name__ == "webdataset")
    data = backend(tmp_path)
    data.setup("fit")
    state, whole = data.state_dict(), read_rest(data)
    assert resume_reading(backend(tmp_path), state, whole) == "same"
    assert resume_reading(backend(tmp_path), state, whole[::-1]) == "other"
    data = backend(tmp_path)
    shutil.rmtree(tmp_path / "t")
    assert resume_reading(data, state, whole) == "refused"
