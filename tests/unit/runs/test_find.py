"""Runs are found by what people type."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mlscale.errors import MLScaleError
from mlscale.runs.find import find_corrupted_runs, find_run, find_unfinished_run, list_runs
from mlscale.runs.folder import RunFolder
from mlscale.runs.identity import ID_LENGTH, generate_id

Start = Callable[..., RunFolder]


def test_ids_sort_by_time() -> None:
    first = generate_id()
    time.sleep(0.07)
    assert first < generate_id()
    assert len(first) == ID_LENGTH


def test_a_process_never_makes_an_id_twice() -> None:
    ids = [generate_id() for _ in range(20_000)]  # by chance alone, about six of them would be twins
    assert ids == sorted(set(ids))


def test_the_folder_of_runs_is_not_an_address(start: Start) -> None:
    start("digits")
    with pytest.raises(MLScaleError, match=r"runs_dir takes a path of this machine, not an address of 'gs:'"):
        find_run("last", "gs://bucket/runs")


def test_find(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "runs"
    first = start("digits")
    time.sleep(0.04)
    second = start("fashion")
    assert [run.id for run in list_runs(root)] == [second.id, first.id]
    for ref in (first.id, first.path.name, "digits", "dig", str(first.path), first.path, first.path / "run.json"):
        assert find_run(ref, root) == first
    assert find_run("last", root) == second
    monkeypatch.chdir(first.path.parent)
    assert find_run(first.path.name, root) == first
    with pytest.raises(MLScaleError, match="means 2 runs") as caught:
        find_run(first.id[:2], root)  # both began in the same month
    assert caught.value.fix.split("\n") == [second.path.name, first.path.name]
    with pytest.raises(MLScaleError, match="no run 'zzz'"):
        find_run("zzz", root)
    with pytest.raises(MLScaleError, match="no run ''"):
        find_run("", root)
    with pytest.raises(MLScaleError, match="no runs found"):
        find_run("last", tmp_path / "absent")


def test_runs_of_a_sweep(start: Start, tmp_path: Path) -> None:
    sweep = tmp_path / "runs" / "2026-01-01" / "grid-000000000009"
    sweep.mkdir(parents=True)
    (sweep / "multirun.yaml").write_text("api_key: hunter22")  # Hydra's own record of the command
    runs = [start(sweep=sweep) for _ in range(2)]
    assert {run.path.parent for run in runs} == {sweep}
    assert {run.id for run in list_runs(tmp_path / "runs")} == {run.id for run in runs}
    assert runs[0].run["sweep"] == "000000000009"
    with pytest.raises(MLScaleError, match="'000000000009' is a sweep, not a run") as caught:
        find_run("000000000009", tmp_path / "runs")
    assert caught.value.fix in {run.id for run in runs}
    assert sorted(path.name for path in sweep.iterdir() if path.is_file()) == ["sweep.json"]


def test_a_torn_run_is_reported_and_hides_no_other(start: Start, tmp_path: Path) -> None:
    good, torn = start(), start()
    for name in ("run.json", "config.yaml"):  # nothing is left to rebuild it from
        (torn.path / name).write_text('{"format": "mls')
    assert list_runs(tmp_path / "runs") == [good]
    assert list(find_corrupted_runs(tmp_path / "runs")) == [torn.path]


def test_unfinished(start: Start, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    run = start()
    key = run.run["config_hash"]
    assert find_unfinished_run(key, None, root) == run  # it is running, and whoever goes on with it finds it held
    run.seal_run("interrupted")
    assert find_unfinished_run(key, None, root) == run
    assert find_unfinished_run(key, None, root, exclude_id=run.id) is None
    assert find_unfinished_run(key, "other code", root) is None
    assert find_unfinished_run("other config", None, root) is None
    run.seal_run("done")
    assert find_unfinished_run(key, None, root) is None
