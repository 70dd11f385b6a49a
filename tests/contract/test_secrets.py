"""Ten planted secrets and the real command line: none is found in what it prints, writes, or hands to a tracker."""

from __future__ import annotations

import base64
import gzip
import json
import stat
import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.contract.commands import environment, mlscale, only_run

SECRETS = {
    "environment": "planted01-by-interpolation",
    "plainly named variable": "planted02-plain/variable",
    "user's YAML": "planted03-'quoted' literal",
    "command line": "planted04-override",
    "nested list": "planted05-in-a-list",
    "URL": "planted06-in-url",
    "code": "planted07-in-code",
    "diff": "planted08-in-the-diff",
    "logger": "planted09-logger-setting",
    "tags and notes": "planted10-free-text",
}
CODE = f'''
import logging
import sys
import warnings

from torch import nn

API_KEY = "{SECRETS["code"]}"


class Loud(nn.Module):
    """A model that says everything it was told, everywhere."""

    def __init__(self, num_classes: int, token: str, place: str, api_key: str, password: str, servers: list[dict],
                 endpoint: str, fails: bool = False) -> None:
        super().__init__()
        told = f"{{token}} {{place}} {{api_key}} {{password}} {{servers}} {{endpoint}}"
        print("on stdout:", told)
        print("on stderr:", told, file=sys.stderr)
        logging.getLogger("theirs").warning(told)
        logging.getLogger("pytorch_lightning").warning(told)
        warnings.warn(told)
        if fails:
            raise RuntimeError(f"can't reach {{endpoint}} as {{told}}")
        self.told = told
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))

    def forward(self, x):
        print("in forward:", self.told)
        return self.net(x)
'''
YAML = f"""_target_: theirs.Loud
num_classes: ${{derived.num_classes}}
token: ${{oc.env:PLANTED_TOKEN}}
place: ${{oc.env:PLANTED_PLACE}}
api_key: {json.dumps(SECRETS["user's YAML"])}
password: null
servers: []
endpoint: null
fails: false
"""
TYPED = [
    "model=loud",
    f"model.password={SECRETS['command line']}",
    f"model.servers=[{{host: a, secret: {SECRETS['nested list']}}}]",
    f"model.endpoint=https://ana:{SECRETS['URL']}@example.org/x",
    "logger=[csv,tensorboard,wandb]",
    f"logger.wandb.group=https://bot:{SECRETS['logger']}@example.org",
    f"tags=[plain,'token={SECRETS['tags and notes']}']",
    f"notes=password: '{SECRETS['tags and notes']}'",
]


def forms(secret: str) -> list[bytes]:
    """A secret as it could be found."""
    texts = [secret, quote(secret, safe=""), json.dumps(secret)[1:-1], secret.replace("'", "''"), repr(secret)[1:-1]]
    return [text.encode() for text in texts] + [base64.b64encode(secret.encode()).rstrip(b"=")[:-1]]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder under git: code with a secret in a commit, and one that is not committed."""
    base = tmp_path_factory.mktemp("secrets")
    folder = base / "project"
    (folder / "conf/model").mkdir(parents=True)
    (folder / "theirs.py").write_text(CODE)
    (folder / "conf/model/loud.yaml").write_text(YAML)
    (folder / ".gitignore").write_text("runs/\n__pycache__/\n")
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run(["git", *who, "-C", str(folder), *words], check=True, capture_output=True)
    (folder / "theirs.py").write_text(CODE + f'\nstore = {{"password": "{SECRETS["diff"]}"}}\n')
    return folder


def planted(folder: Path) -> dict[str, str]:
    return environment(
        folder.parent, PLANTED_TOKEN=SECRETS["environment"], PLANTED_PLACE=SECRETS["plainly named variable"]
    )


def leaks(texts: dict[str, bytes]) -> list[tuple[str, str]]:
    """Where which secret is."""
    return [
        (place, name)
        for place, content in texts.items()
        for name, secret in SECRETS.items()
        if any(form in content for form in forms(secret))
    ]


def written(folder: Path) -> dict[str, bytes]:
    """Every file, archives also unpacked."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return files | {f"{name}, unpacked": gzip.decompress(data) for name, data in files.items() if name.endswith("gz")}


def reported(done: subprocess.CompletedProcess[str]) -> dict[str, bytes]:
    return {"stdout": done.stdout.encode(), "stderr": done.stderr.encode()}


def is_private(folder: Path) -> bool:
    paths = [path for path in (folder, *folder.rglob("*")) if not path.is_symlink()]
    return not any(stat.S_IMODE(path.stat().st_mode) & 0o077 for path in paths)


def test_a_run_leaks_nothing(theirs: Path) -> None:
    done = mlscale(theirs, "debug=fast", *TYPED, env=planted(theirs))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("in forward: ***") >= 2
    run = only_run(theirs)
    files = written(run)
    kinds = ("config.yaml", "run.json", "code.tar.gz", "events.out", ".wandb", ".ckpt", "hparams.yaml", "metrics.csv")
    assert [kind for kind in kinds if not any(kind in name for name in files)] == []
    assert b"theirs.Loud" in next(data for name, data in files.items() if name.endswith(".wandb"))
    assert leaks(files | reported(done)) == []
    assert is_private(run)
    for words in (["runs", "show", "last"], ["runs", "show", "last", "output=json"], ["runs", "ls"]):
        assert leaks(reported(mlscale(theirs, *words, env=planted(theirs)))) == []


@pytest.mark.slow
def test_a_failing_run_of_two_processes_leaks_nothing(theirs: Path, tmp_path: Path) -> None:
    where = f"runs_dir={tmp_path}/runs"
    env = planted(theirs) | {"MLSCALE_TRACEBACK": "1"}
    done = mlscale(theirs, "debug=fast", *TYPED, "model.fails=true", "trainer.devices=2", where, env=env)
    assert done.returncode != 0
    assert "can't reach" in done.stderr
    files = written(tmp_path / "runs")
    assert any(name.endswith("failure.json") for name in files)
    assert leaks(files | reported(done)) == []
    assert is_private(only_run(tmp_path))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["optimizer.lr=fast", f"optimizer.token={SECRETS['command line']}"], "optimizer.token"),
        ([f"logger.wandb.api_key={SECRETS['logger']}", "logger=wandb"], "logger.wandb.api_key"),
        ([f"data.url=https://ana:{SECRETS['URL']}@example.org"], "data.url"),
        ([f"--password={SECRETS['command line']}"], "--password"),
        (["nosuch=1", *TYPED], "nosuch"),
    ],
)
def test_a_refused_config_leaks_nothing(theirs: Path, words: list[str], says: str) -> None:
    done = mlscale(theirs, *words, env=planted(theirs))
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert leaks(reported(done)) == []


@pytest.mark.parametrize("words", [["--cfg", "job"], ["--cfg", "job", "--resolve"], ["--info", "all"]])
def test_hydras_own_flags_leak_nothing(theirs: Path, words: list[str]) -> None:
    done = mlscale(theirs, *TYPED, *words, env=planted(theirs))
    assert done.returncode == 0, done.stderr
    assert leaks(reported(done)) == []


@pytest.mark.parametrize("words", [["show"], ["show", "origin=true"], ["check"]])
def test_looking_at_a_config_leaks_nothing(theirs: Path, words: list[str]) -> None:
    done = mlscale(theirs, "config", words[0], *TYPED, *words[1:], env=planted(theirs))
    assert done.returncode == 0, done.stderr
    assert leaks(reported(done)) == []


def test_data_that_fails_leaks_nothing(theirs: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs_data.py").write_text(
        "import pytorch_lightning as pl\n\n\nclass Locked(pl.LightningDataModule):\n"
        "    def __init__(self, password: str, place: str) -> None:\n"
        "        raise OSError(f'{password} does not open {place}')\n"
    )
    words = ["data=none", "data._target_=theirs_data.Locked", f"data.password={SECRETS['command line']}"]
    words += ["model=mlp", "model.num_classes=10", "task.num_classes=10"]
    env = planted(theirs) | {"MLSCALE_TRACEBACK": "1"}
    done = mlscale(tmp_path, *words, "data.place=${oc.env:PLANTED_PLACE}", env=env)
    assert done.returncode != 0
    assert "does not open" in done.stderr
    assert leaks(written(tmp_path / "runs") | reported(done)) == []


@pytest.mark.slow
def test_a_sweep_leaks_nothing(theirs: Path, tmp_path: Path) -> None:
    words = ["-m", "debug=fast", "logger=none", f"runs_dir={tmp_path}/runs", "model.fails=true,false"]
    done = mlscale(theirs, *words, *[word for word in TYPED if not word.startswith("logger")], env=planted(theirs))
    assert "1 of 2 jobs failed" in done.stderr
    assert done.returncode != 0
    assert leaks(written(tmp_path / "runs") | reported(done)) == []
    assert is_private(tmp_path / "runs")
