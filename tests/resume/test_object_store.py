"""A run that is killed and loses its checkpoints, or its whole folder, resumes from its store, bitwise identical."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mlscale.cli import main
from mlscale.runs.folder import RunFolder
from scripts.same_run import differences
from tests.conftest import runs_in
from tests.object_store import BUCKET, list_objects, serve_bucket
from tests.resume.commands import WORDS, end, ended

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("strategy", "lost"), [("auto", "run"), ("fsdp strategy.sharded_checkpoint=true", "checkpoints")]
)
def test_a_lost_folder_is_downloaded(
    strategy: str,
    lost: str,
    folder: Path,
    undisturbed: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sharded = "fsdp" in strategy
    words = (*WORDS, f"callbacks.checkpoint.dirpath=s3://{BUCKET}/mine", *f"strategy={strategy}".split())
    words = (*words, f"trainer.devices={2 if sharded else 1}", end("step", folder, step=30), "resume=auto")
    with serve_bucket(monkeypatch) as bucket:
        code, printed_text = ended(folder, *words)
        assert code == -9, printed_text
        (run,) = runs_in(folder)
        assert any(key.endswith("/last.json") for key in list_objects(bucket))
        if lost == "run":  # the machine is gone, and another one takes its place
            shutil.rmtree(folder / "runs")
        else:
            shutil.rmtree(run / "checkpoints")
            (run / "checkpoints").mkdir()
        code, printed_text = ended(folder, *words)
        assert code == 0, printed_text
        assert ("download  the run" in printed_text) == (lost == "run")
        assert "download  last.ckpt, step 22" in printed_text
        assert "attempt 2: from step=28.ckpt" in printed_text, printed_text
        assert "bitwise identical" in printed_text
        assert runs_in(folder) == [run]
        if not sharded:  # sums are in another order there
            assert differences(undisturbed("1"), run) == []
        assert find_uploaded(bucket) == {path.stem for path in (run / "checkpoints").iterdir()}, printed_text
        # Lost again, after the end: what uses the model gets it from the store.
        (folder / "images").mkdir()
        for number in range(3):
            Image.new("L", (8, 8), 50 * number).save(folder / f"images/{number}.png")
        commands = (
            ("evaluate", str(run), "output=json"),
            ("predict", str(run), f"input={folder / 'images'}", f"to={folder / 'predicted'}"),
            ("export", str(run), f"to={folder / 'exported'}"),
            ("train", *WORDS, f"init_from={run}", "trainer.fast_dev_run=true", f"runs_dir={folder / 'more'}"),
        )
        address = os.environ["AWS_ENDPOINT_URL"]
        for command in commands:
            for path in (run / "checkpoints").iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
            assert main(command) == 5
            printed = capsys.readouterr()
            assert "the store does not answer" in printed.err, printed
            assert not list((run / "checkpoints").iterdir())
            monkeypatch.setenv("AWS_ENDPOINT_URL", address)
            assert main(command) == 0, capsys.readouterr()
            assert [path.name for path in (run / "checkpoints").iterdir()] == ["best.ckpt"]
            assert "download  best.ckpt" in capsys.readouterr().err


def find_uploaded(bucket: Any) -> set[str]:
    """Return the names of the checkpoints in the store."""
    return {Path(key).stem for key in list_objects(bucket) if key.count("/") == 2 and key.endswith(".json")}


def test_a_run_is_done_once_all_is_uploaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*WORDS, f"callbacks.checkpoint.dirpath=s3://{BUCKET}/mine", end("step", folder, step=30))
    with serve_bucket(monkeypatch) as bucket:
        code, printed_text = ended(folder, *words)
        assert code == -9, printed_text
        (run,) = runs_in(folder)
        resume = ("runs", "resume", str(run))
        for key in list_objects(bucket):
            bucket.delete_object(Bucket=BUCKET, Key=key)
        address = os.environ["AWS_ENDPOINT_URL"]
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        # At the second attempt nothing is left to train, and nothing waits for an upload but what the first has left.
        for _ in range(2):
            code, printed_text = ended(folder, *resume)
            assert (code, RunFolder.open(run).status) == (5, "failed"), printed_text
            assert "checkpoints of the run are not in its object store: " in printed_text
            assert "last.ckpt" in printed_text
        capsys.readouterr()
        assert main(["runs", "checkpoints", str(run)]) == 0
        printed_text = capsys.readouterr().out
        assert "the run resumes from last.ckpt" in printed_text
        assert (
            f"checkpoints can't be read from s3://{BUCKET}/mine/{RunFolder.open(run).id}: the store does not"
            in printed_text
        )
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        code, printed_text = ended(folder, *resume)
        assert (code, RunFolder.open(run).status) == (0, "done"), printed_text
        local = {path.stem for path in (run / "checkpoints").iterdir()}
        assert find_uploaded(bucket) == local
        # Of a run that is done, too: its store was emptied, or another version of mlscale has left it so.
        for key in list_objects(bucket):
            bucket.delete_object(Bucket=BUCKET, Key=key)
        assert main(["runs", "checkpoints", str(run)]) == 0
        printed_text = capsys.readouterr().out
        assert f"mlscale runs send {RunFolder.open(run).id} uploads what is missing" in printed_text
        results = json.loads((run / "run.json").read_text())
        code, printed_text = ended(folder, *resume)
        assert code == 0, printed_text
        assert "upload    last.ckpt, step " in printed_text
        assert find_uploaded(bucket) == local
        assert json.loads((run / "run.json").read_text()) == results  # no attempt was started
        code, printed_text = ended(folder, *resume)
        assert (code, "is done" in printed_text) == (2, True), printed_text


def test_a_stop_of_two_ranks_waits_for_the_upload(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other rank has none, and ends before: that must not end the one that uploads."""
    words = (*WORDS, "trainer.devices=2", "trainer.max_epochs=100", "trainer.max_time=00:00:00:02")
    with serve_bucket(monkeypatch) as bucket:
        code, printed_text = ended(folder, *words, f"callbacks.checkpoint.dirpath=s3://{BUCKET}/mine")
        assert code == 75, printed_text
        (run,) = runs_in(folder)
        assert find_uploaded(bucket) == {path.stem for path in (run / "checkpoints").iterdir()}, printed_text
        assert f"mine/{RunFolder.open(run).id}/run/manifest.json" in list_objects(bucket)
