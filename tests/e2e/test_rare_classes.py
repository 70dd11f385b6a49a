"""A newcomer's data with a rare class: what the run is judged by, and what its start and its end say."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import mlscale
from mlscale.errors import MLScaleError

SLOW = pytest.mark.slow
SHARES = "10.0 % ja; always nein would reach 90.0 % of the training samples"
TRAINED = ["trainer.max_epochs=1", "callbacks=[checkpoint]", "snapshot=false", "data.batch_size=16"]


def write_table() -> list[str]:
    draw = random.Random(1)
    for name, rows in (("train", 200), ("val", 60)):
        values = [f"{draw.gauss(0, 1)},{draw.gauss(0, 1)},{'ja' if row % 10 == 3 else 'nein'}" for row in range(rows)]
        Path(f"{name}.csv").write_text("\n".join(["a,b,answer", *values]))
    return ["recipe=tabular", "data=table", "data.train=train.csv", "data.val=val.csv", "data.target=answer"]


def write_texts() -> list[str]:
    for name, rows in (("train", 200), ("val", 60)):
        lines = [f"text {name} {row},{'ja' if row % 10 == 3 else 'nein'}" for row in range(rows)]
        Path(f"{name}.csv").write_text("\n".join(["text,label", *lines]))
    return ["recipe=text", "data=text_table", "data.train=train.csv", "data.val=val.csv", "data.length=32"]


def write_images() -> list[str]:
    draw = np.random.default_rng(1)
    for name, rows in (("train", 100), ("val", 30)):
        for row in range(rows):
            path = Path("photos", name, "ja" if row % 10 == 3 else "nein", f"{row}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(path)
    return ["recipe=resnet", "model=mlp", "data=imagefolder", "data.root=photos", "data.image_size=16"]


@pytest.mark.parametrize(
    "write", [write_table, pytest.param(write_texts, marks=SLOW), pytest.param(write_images, marks=SLOW)]
)
def test_a_rare_class_is_named_and_judged(
    write: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert callable(write)
    monkeypatch.chdir(tmp_path)
    words = write()
    trained = mlscale.run("train", [*words, *TRAINED])
    assert f"classes   {SHARES}; judged by val/auc" in capfd.readouterr().err
    assert SHARES in trained.sentence
    assert {"best_val/auc", "val/balanced_accuracy"} <= set(trained.metrics)
    run = Path(trained.artifacts["run"])
    assert yaml.safe_load((run / "derived.yaml").read_text())["metric"] == "val/auc"
    assert json.loads((run / "run.json").read_text())["metric"] == "val/auc"
    if write is not write_table:
        return
    evaluated = {name: mlscale.run("evaluate", ["last", f"positive={name}"]) for name in ("null", "ja", "NEIN")}
    assert all("(10.0 % ja; always nein would reach 90.0 %), balanced" in each.sentence for each in evaluated.values())
    # One best.ckpt, whose AUC training and evaluation compute alike, whichever class is the positive one.
    assert {round(each.metrics["val/auc"], 6) for each in evaluated.values()} == {
        round(trained.metrics["best_val/auc"], 6)
    }
    precision = {name: each.metrics["val/average_precision"] for name, each in evaluated.items()}
    assert precision["null"] == precision["ja"] < precision["NEIN"]
    with pytest.raises(MLScaleError, match="positive=vielleicht is not one of two classes") as caught:
        mlscale.run("evaluate", ["last", "positive=vielleicht"])
    assert caught.value.fix.startswith("leave positive out")  # neither class was typed
    # A metric that was typed stays.
    kept = mlscale.run("train", [*words, *TRAINED, "metric=val/accuracy"])
    assert "best_val/accuracy" in kept.metrics
    assert SHARES in kept.sentence
