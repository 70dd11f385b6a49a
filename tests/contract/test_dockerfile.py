"""The Dockerfile matches the project: what it copies exists, and is all that its install needs. Nothing builds it."""

import json
import re
import shlex
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker/Dockerfile").read_text(encoding="utf-8")
# Instructions, comments left out and continued lines joined.
LINES = re.sub(r"\\\n\s*", "", "\n".join(line for line in TEXT.splitlines() if not line.startswith("#"))).splitlines()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def read_arguments(instruction: str) -> list[str]:
    return [line.removeprefix(instruction).strip() for line in LINES if line.startswith(f"{instruction} ")]


def test_what_is_copied_exists_and_is_what_the_package_is_made_of() -> None:
    copied = [word for words in read_arguments("COPY") for word in shlex.split(words)[:-1]]
    assert all((ROOT / name).exists() for name in copied), copied
    folders = PROJECT["tool"]["setuptools"]["package-dir"].values()
    needed = {*folders, PROJECT["project"]["readme"], *PROJECT["project"]["license-files"], "pyproject.toml"}
    assert set(copied) == needed


def test_what_is_installed_exists() -> None:
    installed = [words for words in read_arguments("RUN") if "pip install" in words]
    extras = re.findall(r"\.\[([a-z,]+)\]", " ".join(installed))
    assert [extra in PROJECT["project"]["optional-dependencies"] for extra in extras] == [True]
    # Its own layer, ahead of the code; a version that the package refuses would be replaced in a second layer.
    (torch,) = (text for text in PROJECT["project"]["dependencies"] if text.startswith("torch>"))
    assert torch in shlex.split(installed[0])


def test_the_base_has_a_version_that_the_package_supports() -> None:
    (image,) = read_arguments("FROM")
    version = re.fullmatch(r"python:(3\.\d+)-slim", image)
    assert version
    assert PROJECT["project"]["requires-python"] == f">={version[1]}"


def test_it_runs_as_a_user_and_gets_signals() -> None:
    assert read_arguments("USER") == ["1000"]  # trainer, below
    (added,) = (words for words in read_arguments("RUN") if "useradd" in words)
    launch = yaml.safe_load((ROOT / "conf/launch/kubernetes.yaml").read_text(encoding="utf-8"))
    assert f"--gid {launch['fs_group']} trainer" in added
    assert "--uid 1000" in added
    (entry,) = read_arguments("ENTRYPOINT")
    assert json.loads(entry) == ["python", "-m", "mlscale"]  # a list: a shell would not pass signals on


def test_it_holds_no_secret() -> None:
    assert not re.search(r"(?i)password|secret|token|api_key", TEXT)
