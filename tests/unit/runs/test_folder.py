"""The run folder: whole at every moment, private, sealed last."""

import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mlscale.atomic_files import ASIDE
from mlscale.errors import Exit, MLScaleError
from mlscale.report import HorizontalBarPlot, LinePlot, ReportStep, Result, Series, save_result
from mlscale.runs import run_files
from mlscale.runs.code.code_snapshot import CodeSnapshot
from mlscale.runs.folder import RunFolder
from mlscale.runs.identity import compute_config_hash, find_differing_keys
from mlscale.secrets.mask import Masker

Start = Callable[..., RunFolder]


def test_a_run_from_start_to_seal(start: Start) -> None:
    run = start(
        derived={"world_size": 2}, overrides=["optimizer.lr=0.1"], tags=["a"], metric="val/accuracy", mode="max"
    )
    assert run.path.name == f"resnet-{run.id}"
    assert {entry.name for entry in run.path.iterdir()} == {
        "run.json", "config.yaml", "derived.yaml", "results", "logs", "checkpoints",
    }  # fmt: skip
    assert run.derived == {"world_size": 2, "run_dir": str(run.path), "name": run.path.name}
    assert run.status == "running"
    assert run.run["attempts"][0]["pid"] == os.getpid()
    run.write_result(
        "train", {"verb": "train", "ok": True, "sentence": "", "metrics": {}, "artifacts": {}, "overrides": []}
    )
    (run.path / "checkpoints" / "best.ckpt").write_bytes(b"weights")
    manifest = run.seal_run(metrics={"val/accuracy": 0.99})
    assert run.status == "done"
    assert manifest == run.manifest
    assert set(manifest["artefacts"]) == {
        "run.json",
        "config.yaml",
        "derived.yaml",
        "results/train.json",
        "results/train.html",
        "checkpoints/best.ckpt",
    }
    assert manifest["packages"]["torch"]
    assert run.results["train"]["ok"] is True
    assert run.find_changed_artefacts() == []
    (run.path / "checkpoints" / "best.ckpt").write_bytes(b"weighty")
    assert run.find_changed_artefacts() == ["checkpoints/best.ckpt"]


def test_everything_is_private(start: Start) -> None:
    before = os.umask(0)
    try:
        run = start()
        (run.path / "logs" / "metrics.csv").write_text("step\n")
        (run.path / "checkpoints" / "deep").mkdir()
        run.seal_run()
    finally:
        os.umask(before)
    for path in [run.path, *run.path.rglob("*"), run.path.parent, run.path.parent.parent]:
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize("failing", ["write_text", "write_json", "write_bytes"])
def test_a_start_that_fails_leaves_nothing(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def full(path: Path, content: object) -> None:
        raise MLScaleError("full", exit=Exit.ENVIRONMENT)

    monkeypatch.setattr(run_files, failing, full)
    with pytest.raises(MLScaleError, match="full"):
        start(code=CodeSnapshot("", "", b"", (), {}, {}))
    assert list(tmp_path.iterdir()) == []


def test_discard_leaves_what_was_there(start: Start, tmp_path: Path) -> None:
    start().discard_run()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "runs").mkdir()
    start().discard_run()
    assert list(tmp_path.iterdir()) == [tmp_path / "runs"]


def test_root_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MLScaleError) as caught:
        RunFolder.create(tmp_path / "file" / "runs", "a", command="train", config_yaml="{}")
    assert caught.value.exit == Exit.ENVIRONMENT


def test_a_taken_name_is_not_overwritten(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = iter(["000000000000", "000000000000", "000000000001"])
    monkeypatch.setattr(run_files, "generate_id", lambda: next(ids))
    first, second = start(), start()
    assert (first.id, second.id) == ("000000000000", "000000000001")
    assert not list(first.path.parent.glob(f"{ASIDE}*"))


def _create(root: str) -> str:
    return str(RunFolder.create(root, "same", command="train", config_yaml="a: 1").path)


def test_twenty_processes_get_twenty_folders(tmp_path: Path) -> None:
    with multiprocessing.get_context("forkserver").Pool(4) as pool:
        paths = pool.map(_create, [str(tmp_path)] * 20, chunksize=1)
    assert len(set(paths)) == 20
    assert all(RunFolder.open(path).run["name"] == "same" for path in paths)


def test_status_of_a_crash_and_of_another_machine(start: Start) -> None:
    run = start()
    attempt = run.run["attempts"][0]
    run.update_document(attempts=[{**attempt, "pid_start": 1}])  # the number was given to another process
    assert run.status == "crashed"
    run.update_document(attempts=[{**attempt, "host": "elsewhere"}])
    assert run.status == "elsewhere"


def test_going_on_takes_the_seal_off(start: Start) -> None:
    run = start()
    run.seal_run("interrupted")
    run.start_attempt()
    assert run.status == "running"
    assert len(run.run["attempts"]) == 2


def test_writes_stay_inside(start: Start) -> None:
    with pytest.raises(MLScaleError, match="inside"):
        start().write_json("../../x.json", {})


def test_results_and_words_are_masked(start: Start) -> None:
    run = start(masker=Masker(["hunter22"]), notes="hunter22", tags=["t-hunter22"], overrides=["x.y=hunter22"])
    run.write_json("results/a.json", {"say": "hunter22", "api_key": "other"})
    run.seal_run("failed", sentence="no hunter22")
    assert not [path for path in run.path.rglob("*") if path.is_file() and b"hunter22" in path.read_bytes()]
    assert json.loads((run.path / "results/a.json").read_text()) == {"say": "***", "api_key": "***"}


def test_config_with_a_literal_secret_is_protected(start: Start) -> None:
    run = start(config_yaml="logger:\n  api_key: hunter22\n")
    assert run.config_text == "logger:\n  api_key: ${oc.env:MLSCALE_SECRET_LOGGER_API_KEY}\n"


def test_open_refuses_what_is_no_run(tmp_path: Path, start: Start) -> None:
    with pytest.raises(MLScaleError, match="not a run folder"):
        RunFolder.open(tmp_path)
    run = start()
    run.update_document(format="mlscale/run/99")
    with pytest.raises(MLScaleError, match="later mlscale") as caught:
        RunFolder.open(run.path)
    assert "upgrade" in caught.value.fix


def test_config_hash_is_of_what_is_computed() -> None:
    base = compute_config_hash("seed: 1\ntrainer: {devices: 1, max_epochs: 2}\n")
    unhashed = "name: x\nlogger: {csv: {}}\nruns_dir: /r\ntags: [a]\n"
    same = unhashed + "trainer: {max_epochs: 2, devices: 8, accelerator: cpu}\nseed: 1\n"
    assert compute_config_hash(same) == base
    assert compute_config_hash("seed: 2\ntrainer: {devices: 1, max_epochs: 2}\n") != base
    assert compute_config_hash("seed: 1\ntrainer: {devices: 1, max_epochs: 3}\n") != base


def test_a_results_page_holds_no_secret_and_no_markup(start: Start) -> None:
    run = start(masker=Masker(["hunter2<b>"]))
    result = {"verb": "train", "ok": True, "sentence": "with hunter2<b>", "metrics": {"<script>": float("nan")}}
    result |= {"artifacts": {"run": "/hunter2<b>/<script>"}, "overrides": []}
    figure = LinePlot("hunter2<b>", [Series("hunter2<b>", [1.0])], "step", "hunter2<b>")
    run.write_result("train", result, [figure], [ReportStep("hunter2<b>", value="hunter2<b>", figure=figure)])
    text = (run.path / "results/train.html").read_text()
    assert "hunter2" not in text
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert (run.path / "results/train.html").stat().st_mode & 0o777 == 0o600


def test_a_result_that_is_kept_names_its_page(start: Start) -> None:
    run = start()
    kept = save_result(
        Result("train", True, "trained", {"time_s": 1.0}, figures=[HorizontalBarPlot("x", [("a", 1.0)])]), run
    )
    assert Path(kept.artifacts["page"]).read_text().startswith("<!doctype html>")
    assert "page" in kept.format_text()
    assert run.results["train"] == kept.as_dict()


def test_a_group_that_is_gone_changes_neither_the_hash_nor_the_run() -> None:
    assert compute_config_hash("seed: 1\nmonitor: {}\n") == compute_config_hash("seed: 1\n")
    chosen = {"seed": 1, "monitor": {"default": {"_target_": "mlscale.monitor.collect.CollectReference"}}}
    assert find_differing_keys(chosen, {"seed": 1}) == []
    assert find_differing_keys(chosen, {"seed": 2}) == ["seed"]
