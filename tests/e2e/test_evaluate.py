"""`mlscale evaluate`: a run, a version, a checkpoint or a servable; a table, a page, a contact sheet; two compared."""

from __future__ import annotations

import csv
import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mlscale import commands
from mlscale.cli import main
from mlscale.data.encoders.stored_encoder import read_encoder
from mlscale.errors import MLScaleError
from mlscale.runs.folder import RunFolder
from tests.contract.test_documents import validate

TRAINED = ("+recipe=resnet", "model.widths=[8,16]", "snapshot=false", "logger=none")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, bundled: Path) -> Path:
    """A folder with two runs, one trained longer, and a version of each kind of the latter."""
    place = tmp_path_factory.mktemp("evaluate")
    common = [f"runs_dir={place}/runs", f"data.root={bundled}"]
    for name, epochs in (("short", 1), ("long", 4)):
        commands.run_command("train", [*TRAINED, *common, f"name={name}", f"trainer.max_epochs={epochs}"])
    run = next(place.glob("runs/*/long-*"))
    commands.run_command("export", [str(run), f"runs_dir={place}/runs"])
    root = [f"runs_dir={place / 'runs'}", f"registry.root={place / 'registry'}"]
    assert main(["versions", "add", str(run), *root]) == 0
    assert main(["versions", "add", str(run), "servable=true", "name=served", *root]) == 0
    return place


def evaluate(place: Path, *words: str) -> list[str]:
    return [*words[:1], f"runs_dir={place}/runs", f"registry.root={place}/registry", f"to={place}/out", *words[1:]]


def read_table_document(path: Path) -> dict[str, Any]:
    """What the contract's schema describes: format, metadata and columns of a table of samples."""
    schema = pq.read_schema(path)
    columns = {
        field.name: f"list<{field.type.value_type}>" if pa.types.is_list(field.type) else str(field.type)
        for field in schema
    }
    return {**json.loads(schema.metadata[b"mlscale"]), "columns": columns}


def run_of(place: Path, name: str) -> Path:
    return next(place.glob(f"runs/*/{name}-*"))


def test_a_run_is_measured_sample_by_sample(place: Path) -> None:
    run = run_of(place, "short")
    result = commands.run_command("evaluate", [str(run), f"runs_dir={place}/runs", "worst=10"])
    figures = result.metrics
    assert figures["val/accuracy_low"] < figures["val/accuracy"] < figures["val/accuracy_high"]
    assert figures["val/samples"] == 360
    assert "of 360 samples" in result.sentence
    kept = RunFolder.open(run)
    assert kept.results["evaluate"] == result.as_dict()
    validate("result", kept.results["evaluate"])
    assert kept.find_changed_artefacts() == []
    assert len(result.details["classes"]) == 10

    about = read_table_document(Path(result.artifacts["samples"]))
    validate("samples", about)
    assert (about["model"], about["split"]) == (run.name, "val")
    table = pq.read_table(result.artifacts["samples"])
    keys = np.array(table["key"].to_pylist())
    loss, truth, reported = (table[name].to_numpy() for name in ("loss", "truth", "predicted"))
    assert len(np.unique(keys)) == len(keys) == 360
    assert (truth == reported).mean() == pytest.approx(figures["val/accuracy"])
    assert loss.mean() == pytest.approx(figures["val/loss"], rel=1e-5)
    assert np.array(table["probabilities"].to_pylist()).argmax(1).tolist() == reported.tolist()
    with Image.open(result.artifacts["worst_errors"]) as sheet:
        assert sheet.width > 500
    page = (run / "results/evaluate.html").read_text()
    for shown in ("Confusion matrix", "Reliability", "data:image/png;base64,", "Worst errors"):
        assert shown in page
    wrong = np.flatnonzero(truth != reported)
    worst = keys[wrong[np.argsort(-loss[wrong], kind="stable")]]
    assert all(key in page for key in worst[:10])


def test_a_run_a_version_a_checkpoint_and_a_servable_give_the_same(place: Path) -> None:
    run = run_of(place, "long")
    wanted = commands.run_command("evaluate", evaluate(place, f"ref={run}")).metrics
    checkpoint = run / "checkpoints" / "best.ckpt"
    for words in (
        ["ref=long"],
        [f"ref={checkpoint}"],
        ["ref=served@latest"],
        [f"ref={run}/servable"],
    ):
        result = commands.run_command("evaluate", evaluate(place, *words))
        assert result.metrics["val/accuracy"] == wanted["val/accuracy"], words
        assert result.metrics["val/loss"] == pytest.approx(wanted["val/loss"], rel=1e-4), words
        assert (place / "out" / "evaluate.html").is_file()
        assert result.artifacts["samples"] == str(place / "out" / "evaluate-samples.parquet")


def test_two_models_on_the_same_samples(place: Path) -> None:
    long, short = run_of(place, "long"), run_of(place, "short")
    result = commands.run_command("evaluate", evaluate(place, f"ref={long}", f"against={short}"))
    assert f"best.ckpt of {long.name} is better than best.ckpt of {short.name}: accuracy" in result.sentence
    assert result.metrics["val/accuracy_difference_low"] > 0
    assert result.details["against"]["better"] == f"best.ckpt of {long.name}"
    served = commands.run_command("evaluate", evaluate(place, "ref=long:v1", "against=served:v1"))
    assert served.details["against"]["better"] is None
    assert "no difference is shown between long:v1 and served:v1" in served.sentence
    assert served.metrics["val/paired_samples"] == 360


def test_slices_of_a_file_and_of_members(place: Path, bundled: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    keys = []
    with tarfile.open(shards / "000.tar", "w") as target:
        for shard in sorted((bundled / "digits-1" / "val").glob("*.tar")):
            with tarfile.open(shard) as source:
                for member in source:
                    file = source.extractfile(member)
                    assert file is not None
                    add(target, member.name, file.read())
                    if member.name.endswith(".cls"):
                        key = member.name.removesuffix(".cls")
                        keys.append(key)
                        add(target, f"{key}.json", json.dumps({"camera": f"c{len(keys) % 3}", "n": len(keys)}).encode())
    with (tmp_path / "slices.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [("key", "site"), *((f"000.tar/{key}", "ab"[i % 2]) for i, key in enumerate(keys))]
        )
    words = [f"ref={run_of(place, 'short')}", "data=webdataset", f"data.train={shards}", f"data.val={shards}"]
    result = commands.run_command("evaluate", evaluate(place, *words, f"slices=[json,{tmp_path}/slices.csv]"))
    found = {(each["column"], each["value"]): each["samples"] for each in result.details["slices"]}
    assert {key: found[key] for key in found if key[0] != "n"} == {
        ("camera", "c0"): 120, ("camera", "c1"): 120, ("camera", "c2"): 120, ("site", "a"): 180, ("site", "b"): 180,
    }  # fmt: skip
    assert sum(found[key] for key in found if key[0] == "n") == 360
    with pytest.raises(MLScaleError, match=r"have no '\.xyz' member"):
        commands.run_command("evaluate", evaluate(place, *words, "slices=xyz"))


def test_other_images_are_normalised_as_the_model_was_trained(place: Path, tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    for split, rows in (("train", range(100)), ("val", range(100, 300))):
        with tarfile.open(tmp_path / f"{split}-0.tar", "w") as tar:
            for row in rows:  # much paler than those of training
                image = io.BytesIO()
                Image.fromarray((180 + digits.images[row] * 4).astype(np.uint8)).save(image, "PNG")
                add(tar, f"{row:03}.png", image.getvalue())
                add(tar, f"{row:03}.cls", str(digits.target[row]).encode())
    data = ["data=webdataset", f"data.train={tmp_path}/train-0.tar", f"data.val={tmp_path}/val-0.tar"]
    run = run_of(place, "long")
    found = commands.run_command("evaluate", evaluate(place, f"ref={run}", *data)).metrics
    served = commands.run_command("evaluate", evaluate(place, "ref=served", *data)).metrics
    assert found["val/accuracy"] == served["val/accuracy"] < 0.5
    assert abs(found["val/loss"] - served["val/loss"]) < 1e-3


def test_all_samples_are_measured_whatever_training_looked_at(place: Path, bundled: Path, tmp_path: Path) -> None:
    limits = ["trainer.limit_val_batches=0", "metric=train/loss", "mode=min", "trainer.max_epochs=1"]
    words = [f"runs_dir={tmp_path}/runs"]
    commands.run_command("train", [*TRAINED, *limits, *words, f"data.root={bundled}"])
    assert commands.run_command("evaluate", ["last", *words]).metrics["val/samples"] == 360
    one = commands.run_command("evaluate", ["last", *words, "trainer.limit_val_batches=1"])
    assert one.metrics["val/samples"] == 64
    with pytest.raises(MLScaleError, match=r"no sample of .* was measured"):
        commands.run_command("evaluate", ["last", *words, "trainer.limit_val_batches=0"])


def test_a_file_of_slices_is_read_before_the_pass(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MLScaleError, match="the slices can't be read"):
        commands.run_command("evaluate", evaluate(place, f"ref={run_of(place, 'short')}", "slices=no.csv"))
    assert capsys.readouterr().err == ""


def test_a_target_is_called_by_its_name(tmp_path: Path) -> None:
    lines = ["a,price", *(f"{number},{3 * number + number % 5}.5" for number in range(60))]
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n")
    table = ["data=table", f"data.train={tmp_path}/train.csv", "data.target=price", "data.batch_size=8"]
    words = [f"runs_dir={tmp_path}/runs"]
    commands.run_command(
        "train", ["+recipe=regression", *table, *words, "trainer.max_epochs=1", "snapshot=false", "logger=none"]
    )
    measured = commands.run_command("evaluate", ["last", *words])
    assert [each["target"] for each in measured.details["targets"]] == ["price"]


def test_rows_of_another_training_table_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, spread in (("train", 1), ("other", 9)):
        rows = [f"{x},{'yes' if x > 0 else 'no'}" for x in rng.normal(0, spread, 60)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["x,y", *rows]) + "\n")
    common = [f"runs_dir={tmp_path}/runs", "snapshot=false", "logger=none", "data.batch_size=8"]
    table = ["data=table", f"data.train={tmp_path}/train.csv", "data.target=y"]
    commands.run_command("train", ["+recipe=tabular", *table, *common, "trainer.max_epochs=1"])
    (stored,) = tmp_path.glob("runs/*/*/encoder.json")
    assert read_encoder(stored).describe_raw_input()["columns"][0]["name"] == "x"
    words = ["ref=last", f"runs_dir={tmp_path}/runs"]
    with pytest.raises(MLScaleError, match="encoded by another training table") as caught:
        commands.run_command("evaluate", [*words, f"data.train={tmp_path}/other.csv"])
    assert "data.test=" in caught.value.fix
    tested = commands.run_command("evaluate", [*words, "split=test", f"data.test={tmp_path}/other.csv"])
    assert tested.metrics["test/samples"] == 60


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize(
    ("words", "what", "fix"),
    [
        ([], "no model is named", "mlscale evaluate last"),
        (["long", "ref={run}"], "2 models are named", "mlscale evaluate long"),
        (["ref=long", "checkpoint=/some/best.ckpt"], "long is one model", "leave checkpoint out, or name the run"),
        (["ref=/nowhere.ckpt"], "checkpoint not found", "mlscale runs checkpoints last"),
        (["ref=nobody"], "no run or model 'nobody'", "mlscale versions ls"),
        (["ref={run}", "against=nobody"], "no run or model 'nobody'", "mlscale runs ls"),
        (["ref={run}", "trainer.devices=2"], "a model is measured in one process", "leave trainer.devices out"),
        (["ref={run}", "slices=colour"], "the samples have no '.colour' member", "or a CSV file of key,value lines"),
        (["ref={run}", "to=/proc/results"], "can't write results", "to=<a folder you may write to"),
        (["ref={run}", "worst=-3"], "'worst' must be int ≥ 0", ""),
        (["ref={run}", "slices=no.csv"], "the slices can't be read", "slices=<a CSV file"),
    ],
)
def test_what_is_wrong_is_reported(place: Path, words: list[str], what: str, fix: str) -> None:
    typed = [word.replace("{run}", str(run_of(place, "short"))) for word in words]
    with pytest.raises(MLScaleError) as caught:
        commands.run_command("evaluate", evaluate(place, *typed))
    assert what in str(caught.value)
    assert fix in caught.value.fix


def test_a_mistyped_second_model_is_reported_before_the_first_is_measured(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(place, "short")
    with pytest.raises(MLScaleError) as caught:
        commands.run_command("evaluate", evaluate(place, f"ref={run}", f"against={run.name}x"))
    assert (caught.value.where.partition(":")[0], caught.value.fix) == (f"against={run.name}x", f"against={run.name}")
    assert "evaluate  " not in "".join(capsys.readouterr())


def test_a_checkpoint_that_is_none_is_answered_with_a_key_of_the_command(place: Path, tmp_path: Path) -> None:
    (tmp_path / "junk.ckpt").write_bytes(b"no checkpoint" * 40)
    run = run_of(place, "short")
    with pytest.raises(MLScaleError, match="the checkpoint can't be used") as caught:
        commands.run_command("evaluate", evaluate(place, f"ref={run}", f"checkpoint={tmp_path / 'junk.ckpt'}"))
    assert caught.value.fix.startswith("checkpoint=best")


OWN = """
import torch
from pytorch_lightning import LightningModule

class Mine(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(64, 10)
    def training_step(self, batch, index):
        return torch.nn.functional.cross_entropy(self.layer(batch["x"].flatten(1)), batch["y"])
    def validation_step(self, batch, index):
        self.log("val/accuracy", (self.layer(batch["x"].flatten(1)).argmax(1) == batch["y"]).float().mean())
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
"""


def test_a_task_that_says_nothing_of_samples_has_its_own_metrics(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "own_task_of_evaluate.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(folder))
    words = [
        "task._target_=own_task_of_evaluate.Mine",
        "data=digits",
        "metric=val/accuracy",
        "trainer.max_epochs=1",
        "model=none",
    ]
    assert main([*words, "optimizer=none", "snapshot=false", "logger=none"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "last", "output=json"]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result["metrics"]["val/accuracy"] > 0.5
    assert "val/accuracy_low" not in result["metrics"]
    assert "the task's own metrics alone: the task reports nothing of single samples" in printed.err


def test_a_servable_without_its_run_is_not_measured_on_the_default_data(place: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copied"
    shutil.copytree(run_of(place, "long") / "servable", copy)
    words = [f"ref={copy}", f"runs_dir={tmp_path}/none", f"registry.root={tmp_path}/registry", f"to={tmp_path}/out"]
    with pytest.raises(MLScaleError, match="the data of this servable is not known"):
        commands.run_command("evaluate", words)
    assert commands.run_command("evaluate", [*words, "data=digits"]).metrics["val/samples"] == 360
