"""The documents of `output=json`: each validates against its schema, and no action lacks one."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mlscale import contracts
from mlscale.cli import main
from mlscale.commands import COMMANDS

Print = Callable[..., Any]
_WITHOUT = {"runs-job"}  # job scripts call it, and print what it prints
_OTHER = {"config-schema", "runs-resume"}  # they print a schema, and the result of a training


@pytest.fixture
def printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Print:
    """Run `mlscale … output=json` in an empty folder; return its document, validated, and check its exit code."""
    monkeypatch.chdir(tmp_path)

    def run_command(line: str, code: int = 0) -> Any:
        capsys.readouterr()
        assert main([*line.split(), "output=json"]) == code
        document = json.loads(capsys.readouterr().out)
        validate_output(document)
        return document

    return run_command


def validate_output(document: Any) -> None:
    """Raise where a document does not match the schema that its first key names."""
    family, kind, number = document["format"].split("/")
    assert (family, number, next(iter(document))) == ("mlscale", "1", "format")
    schema = contracts.load_schema(kind) if kind in contracts.FORMATS else contracts.load_output_schema(kind)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(document, schema)


def test_every_action_has_a_schema() -> None:
    actions = [(name, action) for name, command in COMMANDS.items() for action in command.actions]
    # These print results, as commands with a config do.
    kinds = {f"{name}-{action}" if action else name for name, action in actions if name not in ("data", "events")}
    assert kinds - _WITHOUT - _OTHER == set(contracts.list_output_kinds()) - {"error", "multirun"}
    assert not set(contracts.list_output_kinds()) & set(contracts.FORMATS)
    for name, action in actions:
        keys = [key.name for key in COMMANDS[name].actions[action].keys]
        passes_on = (name, action) == ("runs", "resume")  # to the training, which has the key
        assert ("output" in keys or passes_on) != (f"{name}-{action}" in _WITHOUT), (name, action)


def test_actions_without_a_run(printed: Print) -> None:
    assert printed("init my-net to=net")["package"] == "my_net"
    assert "complete" in printed("completion bash")["script"]
    shown = printed("config show +recipe=resnet optimizer.lr=0.5 origin=true optimizer")
    assert shown["config"]["optimizer"]["lr"] == 0.5
    assert shown["origins"]["optimizer.lr"] == "command line: optimizer.lr=0.5"
    assert printed("config check +recipe=resnet")["overrides"] == ["+recipe=resnet"]
    assert "resnet" in [recipe["name"] for recipe in printed("recipes ls")["recipes"]]
    assert printed("recipes show resnet")["card"]
    assert printed("recipes cp resnet mine")["name"] == "mine"
    assert printed("runs ls") == {"format": "mlscale/runs-ls/1", "runs": [], "damaged": {}, "failed_jobs": []}
    problems = printed("config check +recipe=resnet optimizer.lrr=0.5 trainer.devcies=2", code=2)["problems"]
    assert [problem["fix"] for problem in problems] == ["optimizer.lr=0.5", "trainer.devices=2"]
    assert printed("runs show nothing", code=2)["exit_code"] == 2


@pytest.mark.slow
def test_actions_of_a_run(printed: Print) -> None:
    sweep = printed("-m +recipe=resnet model=mlp debug=fast snapshot=false optimizer.lr=0.1,-1", code=2)
    assert [job["ok"] for job in sweep["jobs"]] == [True, False]
    assert sweep["jobs"][1]["error"]
    run = sweep["jobs"][0]["run"]
    assert [listed["path"] for listed in printed("runs ls")["runs"]] == [run]
    assert [listed["path"] for listed in printed("runs sweep last", code=4)["runs"]] == [run]
    assert printed("runs show last verify=true")["changed"] == []
    assert printed("runs checkpoints last")["latest_valid"]
    assert printed("runs consolidate last")["consolidated"] == []
    assert printed("runs send last")["sent"] == 0
    assert printed("runs diff last last")["config"] == {}
    assert printed("runs du")["total"] > 0
    assert printed("runs gc dry_run=true")["dry_run"] is True
    for action in ("logs", "cancel"):
        assert printed(f"runs {action} last", code=2)["problems"][0]["what"].endswith("not submitted to a scheduler")
    assert printed("versions add last")["new"] is True
    assert printed("versions ls")["models"]["resnet"]["versions"][0]["ref"] == "resnet:v1"
    assert printed("versions promote resnet:v1")["aliases"] == ["champion"]
    assert printed("versions show resnet:v1")["changed"] == []
    assert printed("versions rollback resnet", code=2)["problems"]
    assert printed(f"runs rm {Path(run).name} yes=true")["removed"] == [run]


@pytest.mark.slow
def test_logs_are_json_lines(tmp_path: Path) -> None:
    words = ["+recipe=resnet", "model=mlp", "debug=fast", "snapshot=false", "log_format=json", "trainer.devices=2"]
    done = subprocess.run(
        [sys.executable, "-m", "mlscale", *words], cwd=tmp_path, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {"time", "level", "pid", "message"} <= set.intersection(*(set(line) for line in lines))
    (epoch,) = [line for line in lines if line["message"].startswith("epoch 1/1")]
    assert (epoch["epoch"], epoch["step"]) == (1, 1)
    assert epoch["metrics"]["val/loss"] > 0
    wrong = subprocess.run(
        [sys.executable, "-m", "mlscale", "runs", "show", "x"],
        cwd=tmp_path, capture_output=True, text=True, timeout=100, env={**os.environ, "MLSCALE_LOG_FORMAT": "json"},
    )  # fmt: skip
    (error,) = [json.loads(line) for line in wrong.stderr.splitlines()]
    assert (wrong.returncode, error["level"]) == (2, "error")
    assert error["problems"][0]["fix"] == "mlscale runs ls"
