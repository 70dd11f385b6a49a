"""The documents of the contracts: what is written validates, what was written by earlier versions still loads."""

import functools
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mlscale import contracts
from mlscale.commands.runs.run_comparison import compare_runs
from mlscale.errors import MLScaleError
from mlscale.report import Result
from mlscale.runs.code.code_snapshot import take_snapshot
from mlscale.runs.folder import RunFolder
from mlscale.runs.initial_source import InitialWeights
from mlscale.runs.overview import summarize_run

EXAMPLES = sorted((Path(__file__).parent / "examples").glob("*.json"))


def validate(name: str, document: Any) -> None:
    """Raise where `document` breaks its contract."""
    _load_validator(name).validate(document)


@functools.cache  # a schema is checked once, and then against many documents
def _load_validator(name: str) -> Any:
    schema = contracts.load_schema(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def read(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def test_every_contract_has_an_example_of_its_format() -> None:
    assert {path.stem for path in EXAMPLES} >= {f"{name}-{number}" for name, number in contracts.FORMATS.items()}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path: Path) -> None:
    name = path.stem.rpartition("-")[0]
    document = read(path)
    validate(name, document)
    contracts.expect_format(name, document, str(path))
    with pytest.raises(MLScaleError, match="later mlscale"):
        contracts.expect_format(name, {**document, "format": f"mlscale/{name}/{contracts.FORMATS[name] + 1}"}, "x")
    with pytest.raises(MLScaleError, match=f"not a document of the format mlscale/{name}"):
        contracts.expect_format(name, {}, "x")


def test_stored_run_still_loads(tmp_path: Path) -> None:
    examples = Path(__file__).parent / "examples"
    stored = tmp_path / "runs" / "2026-01-05" / "resnet-1n8q4m7zk3xp"
    (stored / "results").mkdir(parents=True)
    for source, target in (("run", "run"), ("manifest", "manifest"), ("code", "code"), ("result", "results/train")):
        (stored / f"{target}.json").write_text((examples / f"{source}-1.json").read_text())
    (stored / "config.yaml").write_text("seed: 0\n")
    (stored / "derived.yaml").write_text("world_size: 1\n")
    run = RunFolder.open(stored)
    line = summarize_run(run)
    assert (run.status, line.value, line.metric) == ("done", 0.9917, "val/accuracy")
    result = Result.from_dict(run.results["train"])
    assert Result.from_dict(result.as_dict()).as_dict() == result.as_dict() == run.results["train"]
    assert compare_runs(run, run).config == {}


def test_what_is_written_validates(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("x = 1\n")
    sweep = tmp_path / "runs" / "2026-01-01" / "grid-000000000001"
    code = take_snapshot(tmp_path / "code")
    run = RunFolder.create(
        tmp_path / "runs",
        "a b/c",
        command="train",
        config_yaml="a: 1",
        overrides=["a=1"],
        code=code,
        sweep=sweep,
        seed=0,
    )
    run.write_result(
        "train", Result("train", True, "done", {"loss": float("nan"), "n": 3}, {"run": "x"}, ["a=2"]).as_dict()
    )
    run.start_attempt()
    run.seal_run("diverged", metrics={"loss": float("inf")}, hardware={"gpus": []})
    validate("run", run.run)
    initial = InitialWeights(
        tmp_path / "x.safetensors", "0" * 64, None, "torchvision", "X_Weights.DEFAULT", "mit"
    ).build_init_document()
    validate("run", RunFolder.create(tmp_path / "runs", "b", command="train", config_yaml="a: 1", init=initial).run)
    validate("manifest", run.manifest)
    validate("result", read(run.path / "results" / "train.json"))
    validate("code", read(run.path / "code.json"))
    validate("sweep", read(sweep / "sweep.json"))
