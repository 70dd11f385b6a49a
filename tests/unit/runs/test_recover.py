"""Any file of a run may be cut short or altered: commands recover what they can and report the rest."""

import contextlib
import io
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mlscale.cli import main
from mlscale.runs import recover
from mlscale.runs.code.code_snapshot import take_snapshot
from mlscale.runs.find import find_run, find_run_folders, list_runs
from mlscale.runs.folder import RunFolder
from mlscale.runs.initial_source import find_initial_weights
from tests.unit.runs.checkpoint_files.saved_checkpoints import save

Start = Callable[..., RunFolder]
SEED = int(os.environ.get("FUZZ_SEED", random.randrange(1 << 32)))
FACTS = ("id", "name", "created", "config_hash", "seed", "data_version", "order_version", "code", "metric", "mode")


def damaged(content: bytes, draw: random.Random) -> bytes:
    """What a failing disk or a copy that was cut makes of a file."""
    at = draw.randrange(len(content) + 1)
    length = draw.randrange(1, 64)
    return draw.choice(
        [
            content[:at],
            b"",
            content[:at] + draw.randbytes(length) + content[at + length :],
            content[:at] + bytes(length) + content[at + length :],
            content[:at] + bytes([content[at - 1] ^ (1 << draw.randrange(8))]) + content[at:] if content else b"\xff",
            draw.randbytes(len(content)),
            content[:at] + content,
            b"[" * 5000,
            b"null",
            b"{}",
        ]
    )


def made(start: Start, folder: Path) -> RunFolder:
    """A sealed run with some of everything."""
    (folder / "code").mkdir(exist_ok=True)
    (folder / "code/model.py").write_text("SIZE = 1\n")
    config = "seed: 1\nname: resnet\nmetric: val/accuracy\nmode: max\ntrainer:\n  devices: 1\n"
    derived = {"world_size": 1, "data_version": "abc", "order_version": 1}
    run = start(
        config_yaml=config, derived=derived, code=take_snapshot(folder / "code"), metric="val/accuracy", mode="max",
        data_version="abc", order_version=1,
    )  # fmt: skip
    save(run.path / "checkpoints/last.ckpt", 3)
    (run.path / "logs/metrics.csv").write_text("step,train/loss\n1,0.5\n")
    result = {"verb": "train", "ok": True, "sentence": "done", "metrics": {"a": 1.0}, "artifacts": {}, "overrides": []}
    run.write_result("train", result)
    run.seal_run("done", metrics={"val/accuracy": 0.5})
    return run


def printed_by(*words: str) -> tuple[int, str]:
    """The exit code of a command in this process, and what it said."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = main(list(words))
    return code, out.getvalue()


@pytest.mark.parametrize("length", [0, 1, 50, 200, -1])
def test_a_run_json_that_is_cut_is_rebuilt(
    start: Start, tmp_path: Path, length: int, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made(start, tmp_path)
    before = run.run
    (run.path / "run.json").write_bytes((run.path / "run.json").read_bytes()[:length].rstrip(b"}\n"))
    found = find_run("last", tmp_path / "runs")
    assert found.path == run.path
    assert {key: found.run[key] for key in FACTS} == {
        **{key: before[key] for key in FACTS},
        "created": found.run["created"],
    }
    assert found.run["created"][:19] == before["created"][:19]
    reported = capsys.readouterr().err
    assert reported.count("run.json is corrupt") == 1
    assert "lost: overrides, attempts" in reported
    assert found.status == "done"
    (run.path / "manifest.json").unlink()
    assert found.status == "crashed"
    found.start_attempt()
    assert json.loads((run.path / "run.json").read_text())["id"] == before["id"]


def test_what_can_not_be_rebuilt_is_named(start: Start, tmp_path: Path) -> None:
    run = made(start, tmp_path)
    for name in ("run.json", "config.yaml"):
        (run.path / name).write_text("")
    (run.path / "config.yaml").write_bytes(b"\xff\xfe")
    code, printed = printed_by("runs", "show", "last", f"runs_dir={tmp_path / 'runs'}")
    assert code == 2
    assert "error: no run here can be read" in printed
    assert str(run.path) in printed
    other = start(name="other")
    (run.path).rename(run.path.with_name("resnet-zzzzzzzzzzzz"))
    recover.warn_once.cache_clear()
    code, printed = printed_by("runs", "show", "last", f"runs_dir={tmp_path / 'runs'}")
    assert code == 0
    assert other.id in printed
    assert "and is not the last run for that" in printed


@pytest.mark.parametrize("in_sweep", [False, True])
@pytest.mark.parametrize("how", ["lost", "corrupt"])
def test_a_run_that_lost_both_documents_is_listed(start: Start, tmp_path: Path, how: str, in_sweep: bool) -> None:
    sweep = tmp_path / "runs" / "2026-01-01" / "grid-1n8q4kx0a2cd" if in_sweep else None
    other, run = start(name="other", sweep=sweep), start(sweep=sweep)
    save(run.path / "checkpoints/best.ckpt", 3)
    for name in ("run.json", "config.yaml"):
        (run.path / name).unlink() if how == "lost" else (run.path / name).write_text("{")
    root = [f"runs_dir={tmp_path / 'runs'}"]
    code, printed = printed_by("runs", "ls", *root)
    assert code == 0
    assert other.id in printed
    assert f"corrupt: {run.path} (run.json is {how} and config.yaml is {how}" in printed
    assert "its config, overrides, attempts" in printed
    assert json.loads(printed_by("runs", "ls", "output=json", *root)[1])["damaged"].keys() == {str(run.path)}
    for ref in (run.id, "resn", run.path.name, str(run.path)):
        code, printed = printed_by("runs", "show", ref, *root)
        assert (code, printed.count("error: the run can't be read")) == (2, 1)
    weights = printed.rsplit("init_from=", 1)[1].partition(", which")[0]
    assert find_initial_weights(weights, tmp_path / "runs").checkpoint == run.path / "checkpoints/best.ckpt"


@pytest.mark.parametrize("name", ["run.json", "config.yaml"])
def test_a_run_that_lost_one_document_is_found(start: Start, tmp_path: Path, name: str) -> None:
    run = made(start, tmp_path)
    (run.path / name).unlink()
    recover.warn_once.cache_clear()
    code, printed = printed_by("runs", "ls", f"runs_dir={tmp_path / 'runs'}")
    assert (code, run.id in printed, "corrupt: " in printed) == (0, True, False)
    assert find_run(run.id, tmp_path / "runs").path == run.path
    assert ("run.json is lost: rebuilt" in printed) is (name == "run.json")


def test_other_folders_are_no_runs(start: Start, tmp_path: Path) -> None:
    sweep = tmp_path / "runs" / "2026-01-01" / "grid-1n8q4kx0a2cd"
    run = start(sweep=sweep)
    for name in ("notes", "notes-1n8q4kx0a2ce", "mine-abc/checkpoints"):
        (tmp_path / "runs" / "2026-01-01" / name).mkdir(parents=True)
    (sweep / "sweep.json").unlink()
    assert list(find_run_folders(tmp_path / "runs")) == [run.path]


def test_a_later_format_is_not_damage(start: Start, tmp_path: Path) -> None:
    run = made(start, tmp_path)
    run.update_document(format="mlscale/run/99")
    assert list_runs(tmp_path / "runs") == []
    assert "later mlscale" in printed_by("runs", "ls", f"runs_dir={tmp_path / 'runs'}")[1]


def test_an_altered_id_is_that_of_the_folder(start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made(start, tmp_path)
    document = json.loads((run.path / "run.json").read_text())
    other = f"{'0' if run.id[0] != '0' else '1'}{run.id[1:]}"
    (run.path / "run.json").write_text(json.dumps(document | {"id": other}))
    assert recover.read_run_document(run.path)["id"] == run.id
    assert f"its id is '{other}', and its folder's '{run.id}'" in capsys.readouterr().err
    renamed = run.path.rename(run.path.with_name("the-best"))
    assert recover.read_run_document(renamed)["id"] == other  # there is nothing to compare it with


@pytest.mark.parametrize(
    "number", [0, *(pytest.param(n, marks=pytest.mark.nightly if n > 3 else pytest.mark.slow) for n in range(1, 12))]
)
def test_no_command_breaks(start: Start, tmp_path: Path, number: int) -> None:
    """Each file in turn, a fresh seed each time: FUZZ_SEED repeats one."""
    draw = random.Random(f"{SEED} {number}")
    whole, run = made(start, tmp_path), made(start, tmp_path)
    root, copy = tmp_path / "runs", tmp_path / "copy"
    shutil.copytree(run.path, copy)
    files = sorted(path.relative_to(run.path) for path in run.path.rglob("*") if path.is_file())
    assert len(files) >= 10
    for name in files:
        content = damaged((copy / name).read_bytes(), draw)
        (run.path / name).write_bytes(content)
        recover.warn_once.cache_clear()
        for words in (
            ["ls"], ["ls", "output=json"], ["show", run.id], ["show", "last", "output=json", "verify=true"],
            ["show", str(run.path)],
            ["diff", whole.id, str(run.path)], ["checkpoints", str(run.path)],
        ):  # fmt: skip
            code, printed = printed_by("runs", *words, f"runs_dir={root}")
            assert code in (0, 2), (SEED, number, name, words, content[:80], printed)
            assert "Traceback" not in printed
            if words == ["ls"]:
                assert whole.id in printed, (SEED, number, name, printed)
                assert run.path.name in printed or run.id in printed, (SEED, number, name, printed)
        assert (run.path / name).read_bytes() == content  # to look changes nothing
        shutil.copy(copy / name, run.path / name)
