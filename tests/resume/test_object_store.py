"""A run that is killed and loses its folder of checkpoints resumes from its object store, bitwise identical."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from mlscale.cli import main
from mlscale.runs.folder import RunFolder
from scripts.same_run import differences
from tests.conftest import runs_in
from tests.object_store import BUCKET, list_objects, serve_bucket
from tests.resume.commands import WORDS, end, ended

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("strategy", ["auto", "fsdp strategy.sharded_checkpoint=true"])
def test_a_lost_folder_is_downloaded(
    strategy: str,
    folder: Path,
    undisturbed: Callable[[int], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sharded = "fsdp" in strategy
    words = (*WORDS, f"callbacks.checkpoint.dirpath=s3://{BUCKET}/mine", *f"strategy={strategy}".split())
    words = (*words, f"trainer.devices={2 if sharded else 1}", end("step", folder, step=30), "resume=auto")
    with serve_bucket(monkeypatch) as bucket:
        code, said = ended(folder, *words)
        assert code == -9, said
        (run,) = runs_in(folder)
        assert any(key.endswith("/last.json") for key in list_objects(bucket))
        shutil.rmtree(run / "checkpoints")
        (run / "checkpoints").mkdir()
        code, said = ended(folder, *words)
        assert code == 0, said
        assert "download  last.ckpt, step 22" in said
        # What was saved right before the kill may not have been uploaded.
        assert "attempt 2: from " in said, said
        assert "bitwise identical" in said
        assert runs_in(folder) == [run]
        if not sharded:  # sums are in another order there
            assert differences(undisturbed(1), run) == []
        names = {Path(key).stem for key in list_objects(bucket) if key.endswith(".json") and "parts" not in key}
        assert names == {path.stem for path in (run / "checkpoints").iterdir()}, said
        # Lost again, after the end: what uses the model gets it from the store.
        for path in (run / "checkpoints").iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert main(["evaluate", str(run), "output=json"]) == 0
        assert [path.name for path in (run / "checkpoints").iterdir()] == ["best.ckpt"]
        assert "download  best.ckpt" in capsys.readouterr().err
        (folder / "images").mkdir()
        for number in range(3):
            Image.new("L", (8, 8), 50 * number).save(folder / f"images/{number}.png")
        assert main(["predict", str(run), f"input={folder / 'images'}", f"to={folder / 'predicted'}"]) == 0


def test_a_run_is_done_once_all_is_uploaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*WORDS, f"callbacks.checkpoint.dirpath=s3://{BUCKET}/mine", end("step", folder, step=30))
    with serve_bucket(monkeypatch) as bucket:
        code, said = ended(folder, *words)
        assert code == -9, said
        (run,) = runs_in(folder)
        resume = ("runs", "resume", str(run))
        for key in list_objects(bucket):
            bucket.delete_object(Bucket=BUCKET, Key=key)
        address = os.environ["AWS_ENDPOINT_URL"]
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        # At the second attempt nothing is left to train, and nothing waits for an upload but what the first has left.
        for _ in range(2):
            code, said = ended(folder, *resume)
            assert (code, RunFolder.open(run).status) == (5, "failed"), said
            assert "checkpoints of the run are not in its object store: " in said
            assert "last.ckpt" in said
        capsys.readouterr()
        assert main(["runs", "checkpoints", str(run)]) == 0
        said = capsys.readouterr().out
        assert "the run resumes from last.ckpt" in said
        assert f"checkpoints can't be read from s3://{BUCKET}/mine/{RunFolder.open(run).id}: the store does not" in said
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        code, said = ended(folder, *resume)
        assert (code, RunFolder.open(run).status) == (0, "done"), said
        local = {path.stem for path in (run / "checkpoints").iterdir()}
        assert {Path(key).stem for key in list_objects(bucket) if key.endswith(".json")} == local
        # Of a run that is done, too: its store was emptied, or another version of mlscale has left it so.
        for key in list_objects(bucket):
            bucket.delete_object(Bucket=BUCKET, Key=key)
        assert main(["runs", "checkpoints", str(run)]) == 0
        said = capsys.readouterr().out
        assert "nothing to resume" not in said
        assert "uploads what is missing, and trains nothing" in said
        results = json.loads((run / "run.json").read_text())
        code, said = ended(folder, *resume)
        assert code == 0, said
        assert "upload    last.ckpt, step " in said
        assert {Path(key).stem for key in list_objects(bucket) if key.endswith(".json")} == local
        assert json.loads((run / "run.json").read_text()) == results  # no attempt was started
        code, said = ended(folder, *resume)
        assert (code, "is done" in said) == (2, True), said
