"""The Python API as scripts and tests use it: train, evaluate, load, predict; interrupted, and gone on with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import mlscale
from mlscale.errors import Exit, MLScaleError
from mlscale.report import Result
from mlscale.runs.find import find_run

WORDS = ("+recipe=resnet", "model=mlp", "trainer.max_epochs=2", "snapshot=false", "logger=none")
UNGUARDED = """
import mlscale

cfg = mlscale.compose(["+recipe=resnet", "model=mlp", "debug=fast", "trainer.devices=2", "snapshot=false"])
result = mlscale.run("train", cfg)
assert result.metrics["steps"] == 1, result
print("ran", mlscale.run("evaluate", ["last"]).ok)
"""
INTERRUPTS = """
import os, signal
from pytorch_lightning import Callback

class Interrupts(Callback):
    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        if trainer.global_step == 3:
            os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="module")
def trained(place: Path) -> Result:
    umask = os.umask(0o022)
    cfg = mlscale.compose([*WORDS, f"runs_dir={place}/runs", f"data.root={place}/digits"])
    cfg.optimizer.lr = 0.05
    result = mlscale.run("train", cfg)
    assert os.umask(umask) == 0o022, "files of the session that follow are as private as they were"
    return result


def digits() -> tuple[NDArray[np.uint8], list[str]]:
    from sklearn.datasets import load_digits

    found = load_digits()
    return np.round(found.images * (255 / 16)).astype(np.uint8)[:, None], [str(each) for each in found.target]


def test_what_was_altered_is_what_ran(trained: Result) -> None:
    run = find_run(trained.artifacts["run"])
    assert "lr: 0.05" in run.config_text
    assert trained.metrics["best_val/accuracy"] > 0.8
    assert run.status == "done"


def test_a_run_and_its_checkpoint_answer_raw_samples(place: Path, trained: Result) -> None:
    images, names = digits()
    for what in (trained.artifacts["run"], trained.artifacts["checkpoint"], "last"):
        model = mlscale.load(what, runs_dir=place / "runs")
        printed = model.predict(images)
        assert printed.probabilities.shape == (1797, 10)
        np.testing.assert_allclose(printed.probabilities.sum(1), 1, rtol=1e-5)
        assert np.mean([mine == right for mine, right in zip(printed.labels, names, strict=True)]) > 0.8
    with pytest.raises(MLScaleError, match="the batch is"):
        model.predict(images[0])
    with pytest.raises(MLScaleError, match="do not fit uint8"):
        model.predict(images / 255)


def test_a_run_is_measured_from_python(place: Path, trained: Result) -> None:
    result = mlscale.run("evaluate", ["last", f"runs_dir={place}/runs"])
    assert result.metrics["val/accuracy"] == pytest.approx(trained.metrics["best_val/accuracy"])


@pytest.mark.parametrize("what", ["nothing@champion", "no-such-run", "runs/none/checkpoints/best.ckpt", "some/folder"])
def test_what_is_not_there_is_reported(folder: Path, what: str) -> None:
    with pytest.raises(MLScaleError):
        mlscale.load(what)


def test_a_servable_and_a_version_answer_as_the_run_does(folder: Path, place: Path, trained: Result) -> None:
    images, _ = digits()
    exported = mlscale.run("export", [trained.artifacts["run"], f"to={folder}/served"])
    from mlscale.versions.from_servable import publish_servable
    from mlscale.versions.local_registry import LocalRegistry

    publish_servable(LocalRegistry(folder / "registry"), folder / "served", aliases=("champion",))
    expected = mlscale.load(trained.artifacts["run"]).predict(images)
    for what in (exported.artifacts["servable"], "resnet@champion", "resnet:v1", "resnet"):
        printed = mlscale.load(what).predict(images)
        np.testing.assert_allclose(printed.probabilities, expected.probabilities, atol=1e-4)


def test_a_version_of_a_checkpoint_answers_as_the_run_does(folder: Path, trained: Result) -> None:
    from mlscale.cli import main

    images, _ = digits()
    assert main(["versions", "add", trained.artifacts["run"], "name=plain", "registry.root=kept"]) == 0
    expected = mlscale.load(trained.artifacts["run"]).predict(images)
    for what in ("plain:v1", "plain@latest"):
        printed = mlscale.load(what, registry="kept").predict(images)
        np.testing.assert_array_equal(printed.probabilities, expected.probabilities)


def test_an_interrupt_stops_politely_and_the_run_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "interrupts_in_api.py").write_text(INTERRUPTS)
    monkeypatch.syspath_prepend(folder)
    with pytest.raises(MLScaleError, match="stopped by SIGINT after optimizer step") as caught:
        mlscale.run("train", [*WORDS, "+callbacks.stops._target_=interrupts_in_api.Interrupts"])
    assert caught.value.exit == Exit.INTERRUPTED
    assert find_run("last").status == "interrupted"
    result = mlscale.run("train", ["resume=last"])
    assert result.metrics["steps"] == 44
    assert "resumed from step 3 bitwise identical" in result.sentence


@pytest.mark.slow
def test_a_script_needs_no_guard_for_several_devices(folder: Path) -> None:
    (folder / "unguarded.py").write_text(UNGUARDED)
    done = subprocess.run([sys.executable, "unguarded.py"], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["ran True"]


@pytest.mark.parametrize("units", ["{mass: g}", "units.csv"])
def test_a_run_of_numbers_answers_rows_by_their_columns_also_without_its_data(folder: Path, units: str) -> None:
    (folder / "units.csv").write_text("column,unit\nmass,g\n")
    lines = ["island,mm,mass", *(f"{('Dream', 'Biscoe')[n % 2]},{n},{n * 2.5}" for n in range(80))]
    (folder / "train.csv").write_text("\n".join(lines) + "\n")
    table = ["data=table", "data.train=train.csv", "data.target=mass", f"data.units={units}", "data.batch_size=8"]
    trained = mlscale.run("train", ["+recipe=regression", *table, "debug=fast", "snapshot=false"])
    rows = [{"island": "Dream", "mm": 3}, {"island": "unseen", "mm": None}]
    expected = mlscale.load(trained.artifacts["run"], checkpoint="last").predict(rows)
    assert (expected.targets, expected.units, expected.values.shape) == (("mass",), ("g",), (2,))
    assert expected[0] == {"value": float(expected.values[0]), "unit": "g"}
    (folder / "train.csv").unlink()
    model = mlscale.load(trained.artifacts["run"], checkpoint="last")
    assert model.predict(rows).values.tobytes() == expected.values.tobytes()
    with pytest.raises(MLScaleError, match="the sample can't be predicted") as caught:
        model.predict({"island": "Dream", "nm": 3})
    assert caught.value.why.startswith("it lacks the column 'mm'")
