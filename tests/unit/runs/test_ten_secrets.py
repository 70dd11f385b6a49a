"""Ten planted secrets, looked for in every file that is written and every text that is printed."""

import base64
import gzip
import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from omegaconf import OmegaConf

from mlscale.commands.runs.entry import main as runs
from mlscale.report import Result, print_result
from mlscale.runs.code.code_snapshot import take_snapshot
from mlscale.runs.folder import RunFolder
from mlscale.secrets.config_secrets import mask_overrides, protect_config
from mlscale.secrets.mask import Masker, mask_output

SECRETS = {
    "environment": "planted-01-by-interpolation",
    "plainly named": "planted-02-plain/variable",
    "yaml": "planted-03-'quoted' literal",
    "command line": "planted-04-override",
    "nested list": "planted-05-in-a-list",
    "url": "planted-06-in-url",
    "logger": "planted-07-logger-setting",
    "code": "planted-08-in-code",
    "diff": "planted-09-in-the-diff",
    "default": "planted-10-default",
}
CONFIG: dict[str, Any] = {
    "data": {"token": "${oc.env:PLANTED_TOKEN}", "root": "${oc.env:PLANTED_PLACE}", "label_key": "cls"},
    "store": {"password": SECRETS["yaml"]},
    "optimizer": {"lr": 0.1, "api_key": SECRETS["command line"]},
    "hosts": [[{"secret": SECRETS["nested list"]}], f"https://ana:{SECRETS['url']}@example.org/x"],
    "logger": {"wandb": {"_target_": "x.y", "api_key": SECRETS["logger"], "project": "p"}},
    "mail": {"password": "${oc.env:PLANTED_ABSENT," + SECRETS["default"] + "}"},
}


def forms(secret: str) -> list[bytes]:
    """A secret as it could be found."""
    texts = [secret, quote(secret, safe=""), json.dumps(secret)[1:-1], secret.replace("'", "''"), repr(secret)[1:-1]]
    return [text.encode() for text in texts] + [base64.b64encode(secret.encode()).rstrip(b"=")[:-1]]


def plant(folder: Path) -> None:
    """Code with a secret that is committed, and one that is not."""

    def git(*words: str) -> None:
        who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, "-C", str(folder), *words], check=True, capture_output=True)

    (folder / "model.py").write_text(f'API_KEY = "{SECRETS["code"]}"\n')
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    (folder / "model.py").write_text(f'API_KEY = "{SECRETS["code"]}"\nx = {{"password": "{SECRETS["diff"]}"}}\n')


def test_no_secret_is_found_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PLANTED_TOKEN", SECRETS["environment"])
    monkeypatch.setenv("PLANTED_PLACE", SECRETS["plainly named"])
    code = tmp_path / "code"
    code.mkdir()
    plant(code)
    typed = [f"++optimizer.api_key={SECRETS['command line']}", f"hosts=[[{{secret: {SECRETS['nested list']}}}]]"]
    config = OmegaConf.create(CONFIG)

    masker = Masker.create_for_run(config)
    protected, environment = protect_config(config)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    resolved = OmegaConf.to_container(OmegaConf.create(protected), resolve=True)
    run = RunFolder.create(
        tmp_path / "runs",
        "planted",
        command="train",
        config_yaml=OmegaConf.to_yaml(OmegaConf.create(protected)),
        overrides=typed,
        notes=f"with {SECRETS['yaml']}",
        code=take_snapshot(code),
        masker=masker,
    )
    handler = logging.StreamHandler(io.StringIO())
    logging.getLogger().addHandler(handler)
    try:
        with mask_output(Masker.create_for_run(protected)):  # a rank knows the protected config alone
            print(resolved, json.dumps(resolved), OmegaConf.to_yaml(resolved), mask_overrides(typed))
            print(*SECRETS.values(), sep="\n", file=sys.stderr)
            logging.getLogger("library").warning("%s", resolved)
            result = Result("train", True, f"sent to {SECRETS['plainly named']}", overrides=typed)
            print_result(result)
            print_result(result, "json")
    finally:
        logging.getLogger().removeHandler(handler)
    run.write_result("train", result.as_dict())
    run.write_json("logs/hyperparameters.json", masker.mask_tree(resolved))
    run.seal_run("failed", sentence=f"could not reach https://ana:{SECRETS['url']}@example.org")
    assert runs(["show", "last", f"runs_dir={tmp_path / 'runs'}"]) == 0
    assert runs(["diff", "last", "last", "output=json", f"runs_dir={tmp_path / 'runs'}"]) == 0
    assert runs(["ls", f"runs_dir={tmp_path / 'runs'}"]) == 0

    reported = capsys.readouterr()
    written = {str(path): path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()}
    written["archive"] = gzip.decompress((run.path / "code.tar.gz").read_bytes())
    written |= {
        "stdout": reported.out.encode(),
        "stderr": reported.err.encode(),
        "log": handler.stream.getvalue().encode(),
    }
    in_code_only = ("code", "diff")
    found = [
        (place, name)
        for place, content in written.items()
        for name, secret in SECRETS.items()
        if any(form in content for form in forms(secret)) and not (place == "stderr" and name in in_code_only)
    ]
    assert found == []
    assert set(os.listdir(tmp_path)) == {"code", "runs"}
