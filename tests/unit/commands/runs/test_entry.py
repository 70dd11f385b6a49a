"""`mlscale runs`: list, show, compare, remove."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlscale.cli import main as cli
from mlscale.commands.runs.entry import main
from mlscale.commands.shown_facts import format_date
from mlscale.errors import MLScaleError
from mlscale.report import Result
from mlscale.runs.code.code_snapshot import take_snapshot
from mlscale.runs.folder import RunFolder
from tests.conftest import NoPrivileges
from tests.page_elements import Elements

Runs = Callable[..., int]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of the runs."""
    return tmp_path / "runs"


@pytest.fixture
def runs(root: Path) -> Runs:
    """Run `mlscale runs …` on that folder."""
    return lambda command, *words: main([command, *words, f"runs_dir={root}"])


def made(
    root: Path, name: str = "resnet", *, lr: float = 0.1, accuracy: float | None = 0.98, **kwargs: Any
) -> RunFolder:
    """A finished run; a running one where `accuracy` is None."""
    run = RunFolder.create(
        root, name, command="train", config_yaml=f"optimizer:\n  lr: {lr}\n", metric="val/accuracy", mode="max",
        **{"seed": 0, "overrides": [f"optimizer.lr={lr}"], **kwargs},
    )  # fmt: skip
    if accuracy is not None:
        run.write_result("train", Result("train", True, "it trained", {"val/accuracy": accuracy}).as_dict())
        (run.path / "checkpoints" / "best.ckpt").write_bytes(b"x" * 2048)
        run.seal_run(metrics={"best_val/accuracy": accuracy, "time_s": 61.0}, sentence="it trained")
    return run


def test_ls(root: Path, runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    alone = made(root)
    sweep = root / "2026-01-01" / "grid-00000000000a"
    jobs = [made(root, "job", lr=lr, sweep=sweep) for lr in (0.1, 0.01)]
    torn = made(root)
    for name in ("run.json", "config.yaml"):  # nothing is left to rebuild it from
        (torn.path / name).write_text("{")
    assert runs("ls") == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0].split() == ["id", "name", "started", "status", "metric", "time", "overrides"]
    assert "sweep of 2" in lines[2]
    assert lines[3].startswith(f"  {jobs[1].id}")
    assert lines[5].startswith(alone.id)
    assert "val/accuracy 0.98" in lines[5]
    assert "optimizer.lr=0.1" in lines[5]
    assert "corrupt" in printed.err
    assert runs("ls", "output=json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [run["id"] for run in document["runs"]] == [jobs[1].id, jobs[0].id, alone.id]
    assert list(document["damaged"]) == [str(torn.path)]


@pytest.mark.parametrize(
    ("width", "last"),
    [(38, "status"), (42, "metric"), (60, "metric"), (75, "time"), (85, "overrides"), (120, "overrides")],
)
def test_ls_fits_the_terminal(
    root: Path, runs: Runs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int, last: str
) -> None:
    sweep = root / "2026-01-01" / "grid-00000000000a"
    made_runs = [made(root, overrides=[f"optimizer.lr={lr}" for lr in range(9)], sweep=sweep) for _ in range(2)]
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert runs("ls") == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    left_out = [name for name in ("name", "started", "metric", "time", "overrides") if name not in lines[0].split()]
    assert (f"left out: {', '.join(left_out)};" in " ".join(map(str.strip, lines[-2:]))) == bool(left_out)
    assert lines[0].split()[-1] == last
    for run in made_runs:
        (line,) = [line for line in lines if run.id in line]  # whole: it is what is typed next
        assert " done" in line
        assert ("val/accuracy 0.98" in line) == (width >= 42)
        assert (format_date(run.run["created"])[:10] in line) == (width >= 75)


def test_ls_of_nothing(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    assert runs("ls") == 0
    assert "no runs" in capsys.readouterr().out


def test_show(root: Path, runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    run = made(root, derived={"world_size": 2}, notes="a note")
    assert runs("show", "last", "verify=true") == 0
    printed = capsys.readouterr().out
    for part in (
        str(run.path),
        "done",
        "it trained",
        "checkpoints/best.ckpt",
        "2.0 KiB",
        "lr: 0.1",
        "a note",
        "every file",
    ):
        assert part in printed
    (run.path / "config.yaml").write_text("changed: true\n")
    assert runs("show", run.id, "verify=true") == 2
    assert "config.yaml" in capsys.readouterr().out
    assert runs("show", run.id, "output=json") == 0
    assert json.loads(capsys.readouterr().out)["manifest"]["status"] == "done"


def test_diff(root: Path, runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "model.py").write_text("x = 1\n")
    first = made(root, "first", code=take_snapshot(code))
    (code / "model.py").write_text("x = 2\n")
    second = made(root, "second", lr=0.01, accuracy=0.99, seed=1, code=take_snapshot(code))
    for run, loss in ((first, 2.5), (second, 1.5)):
        (run.path / "logs").mkdir(exist_ok=True)
        (run.path / "logs/metrics.csv").write_text(f"step,train/loss\n0,{loss}\n")
    assert runs("diff", first.id, "last") == 0
    printed = capsys.readouterr().out
    for line in ("optimizer.lr ", "0.01", "seed", "best val/accuracy", "0.98", "0.99", "model.py"):
        assert line in printed
    page = second.path / "results" / f"diff-{first.id}.html"
    assert printed.endswith(f"\npage  {page}\n")
    elements = Elements(page.read_text())
    for part in ("1 setting and 1 code file differ", "optimizer.lr", "0.01", f"{second.path.name}: train/loss"):
        assert part in elements.text()
    for run, loss in ((first, 2.5), (second, 1.5)):
        assert f"{run.path.name}: train/loss: {loss}, optimizer step 0" in elements.text()
    named = tmp_path / "new/page.html"
    assert runs("diff", first.id, second.id, "output=json", f"page={named}") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["page"] == str(named)
    assert named.is_file()
    assert document["config"] == {"optimizer.lr": [0.1, 0.01]}
    assert document["code"] == ["model.py"]
    assert document["packages"] == {}
    assert runs("diff", first.id, first.id) == 0
    assert "started the same way" in capsys.readouterr().out


def test_rm(root: Path, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = made(root, "first"), made(root, "second")
    with pytest.raises(MLScaleError, match="can't be undone") as caught:
        runs("rm", first.id)
    assert caught.value.fix.startswith(f"mlscale runs rm {first.id} ")
    assert caught.value.fix.endswith(" yes=true")
    assert first.path.exists()
    assert runs("rm", first.id, "first", "yes=true") == 0
    assert not first.path.exists()
    assert second.path.exists()
    (tmp_path / "precious").mkdir()
    with pytest.raises(MLScaleError, match="no run"):
        runs("rm", str(tmp_path / "precious"), "yes=true")
    assert (tmp_path / "precious").exists()
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for answer, left in (("n\n", True), ("y\n", False)):
        monkeypatch.setattr("sys.stdin.readline", lambda answer=answer: answer, raising=False)
        assert runs("rm", second.id) == (2 if left else 0)
        assert second.path.exists() is left
    assert list(root.iterdir()) == []


def test_rm_refuses_a_running_one_and_removes_none(root: Path, runs: Runs) -> None:
    running, done = made(root, accuracy=None), made(root)
    with pytest.raises(MLScaleError, match="is running"):
        runs("rm", done.id, running.id, "yes=true")
    assert running.path.exists()
    assert done.path.exists()


def test_rm_of_somebody_elses(root: Path, runs: Runs, no_privileges: NoPrivileges) -> None:
    run = made(root)
    with no_privileges(root, read_only=run.path.parent), pytest.raises(MLScaleError) as caught:
        runs("rm", run.id, "yes=true")
    error = caught.value
    assert (error.what, error.where, error.exit) == (f"no permission to remove {run.path.name}", str(run.path), 5)
    assert f"{run.path.parent} belongs to " in error.why
    assert "runs_dir" not in error.fix
    assert run.path.is_dir()


def test_rm_of_a_whole_sweep(root: Path, runs: Runs) -> None:
    sweep = root / "2026-01-01" / "grid-00000000000a"
    jobs = [made(root, sweep=sweep) for _ in range(2)]
    assert runs("rm", *(job.id for job in jobs), "yes=true") == 0
    assert list(root.iterdir()) == []


def test_a_link_is_followed(root: Path, runs: Runs, tmp_path: Path) -> None:
    run = made(root)
    (tmp_path / "link").symlink_to(run.path)
    assert runs("rm", str(tmp_path / "link"), "yes=true") == 0
    assert not run.path.exists()


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ([], "mlscale runs --help"),
        (["show"], "ref=last"),
        (["ls", "--rot"], "mlscale runs ls --help"),
        (["ablation"], "mlscale runs --help"),
        (["diff", "a"], "second=<run>"),
    ],
)
def test_usage(words: list[str], fix: str) -> None:
    with pytest.raises(MLScaleError) as caught:
        main(words)
    assert caught.value.fix == fix


def test_ls_shows_at_most_as_many_as_asked_for(root: Path, runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [made(root).id for _ in range(3)]
    for limit, count in (("limit=2", 2), ("limit=0", 3), ("limit=9", 3)):
        assert runs("ls", "output=json", limit) == 0
        listed = [run["id"] for run in json.loads(capsys.readouterr().out)["runs"]]
        assert listed == ids[::-1][:count]


@pytest.mark.parametrize("words", [["--help"], ["ls", "--help"], ["rm", "--help"], ["resume", "--help"]])
def test_help_teaches(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["runs", *words]) == 0
    assert "examples:" in capsys.readouterr().out
