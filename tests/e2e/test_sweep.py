"""A multirun: one folder per job in one sweep folder, a table by metric, and failures that do not end it."""

import json
from pathlib import Path

import pytest

from mlscale.cli import main
from tests.conftest import runs_in

WORDS = ("-m", "+recipe=resnet", "model=mlp", "debug=fast", "snapshot=false")


def table(folder: Path) -> list[dict[str, str]]:
    (path,) = folder.rglob("table.json")
    assert (path.parent / "sweep.json").is_file()
    assert {run.parent for run in runs_in(folder)} == {path.parent}
    rows: list[dict[str, str]] = json.loads(path.read_text())
    return rows


@pytest.mark.parametrize("devices", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_every_combination_has_a_run_and_a_row(folder: Path, capfd: pytest.CaptureFixture[str], devices: int) -> None:
    assert main([*WORDS, "optimizer.lr=0.1,0.01", "seed=1,2", f"trainer.devices={devices}"]) == 0
    rows = table(folder)
    assert sorted(row["overrides"] for row in rows) == [
        f"optimizer.lr={lr} seed={seed}" for lr in ("0.01", "0.1") for seed in (1, 2)
    ]
    values = [float(row["val/accuracy"]) for row in rows]
    assert values == sorted(values, reverse=True)
    runs = runs_in(folder)
    assert {row["run"] for row in rows} == {run.name for run in runs}
    assert len(runs) == 4
    for run in runs:
        document = json.loads((run / "manifest.json").read_text())
        assert document["status"] == "done"
    typed = [set(json.loads((run / "run.json").read_text())["overrides"]) for run in runs]
    assert [{"optimizer.lr=0.1", "seed=2"} <= words for words in typed].count(True) == 1
    assert {path.name for path in folder.iterdir()} == {"runs"}
    out, _ = capfd.readouterr()
    assert out.count("optimizer.lr=0.1 seed=2") == 1


def test_a_job_that_fails_is_named_and_the_others_run(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    # 63 samples can't be shared by 2. Without validation the training loss judges.
    assert main([*WORDS, "data.batch_size=63,64", "trainer.devices=2", "trainer.limit_val_batches=0"]) == 2
    rows = table(folder)
    assert [row["overrides"] for row in rows] == ["data.batch_size=64", "data.batch_size=63"]
    assert rows[1]["train/loss"] == "failed"
    assert float(rows[0]["train/loss"]) > 0
    _, err = capfd.readouterr()
    assert "1 of 2 jobs failed:\n  job 1  data.batch_size=63: " in err
    (run,) = runs_in(folder)
    for action, code in (("sweep last", 4), ("ls", 0)):
        assert main(["runs", *action.split(), "output=json"]) == code
        document = json.loads(capfd.readouterr().out)
        assert [each["path"] for each in document["runs"]] == [str(run)]
        (job,) = document["failed_jobs"]
        assert (job["job"], job["overrides"]) == (1, ["data.batch_size=63"])
        assert "63" in job["error"]
        assert main(["runs", *action.split()]) == code
        out, err = capfd.readouterr()
        assert [line.split()[:2] for line in out.splitlines() if "data.batch_size=63" in line] == [["job", "1"]]
        assert job["error"] in err


def test_a_job_that_raises(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fail = "+callbacks.fail={_target_:tests.dist.recorder.Fail,how:bug,rank:0}"
    words = [*WORDS, fail, "trainer.limit_train_batches=2,3"]
    assert main(words) == 1
    assert [row["val/accuracy"] == "failed" for row in table(folder)] == [False, True]
    _, err = capfd.readouterr()
    assert "1 of 2 jobs failed:\n  job 2  trainer.limit_train_batches=3: KeyError: 'a bug'" in err
    assert "Traceback" not in err
