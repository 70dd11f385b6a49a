"""A release: one version everywhere, a tag that is refused until all is ready, and workflows that call .ci/run."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import mlscale
from scripts.changelog_section import check_tag, extract_section

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / ".github/workflows").glob("*.yml")}
CONDA = yaml.safe_load((ROOT / "conda/recipe.yaml").read_text(encoding="utf-8"))


def list_steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_one_version() -> None:
    heading = re.search(r"^## (\S+), ", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert heading
    assert {mlscale.__version__, PROJECT["version"], heading[1], CONDA["context"]["version"]} == {PROJECT["version"]}


def test_conda_requires_what_pip_does() -> None:
    renamed = {"torch": "pytorch"}  # conda-forge's name
    pip = {re.match(r"[\w-]+", text)[0]: text for text in PROJECT["dependencies"]}  # type: ignore[index]
    wanted = {renamed.get(name, name): text.removeprefix(name) for name, text in pip.items()}
    conda = dict(text.split(" ", 1) for text in CONDA["requirements"]["run"])
    assert conda == {"python": PROJECT["requires-python"], **wanted}


def test_workflows_call_the_gates() -> None:
    assert set(WORKFLOWS) == {"ci", "nightly", "release"}
    commands = {name: " ".join(step.get("run", "") for step in list_steps(flow)) for name, flow in WORKFLOWS.items()}
    assert "bash .ci/run" in commands["ci"]
    assert "bash .ci/run" in commands["release"]
    assert "bash .ci/nightly" in commands["nightly"]
    for flow in WORKFLOWS.values():
        assert flow["permissions"] == {"contents": "read"}  # jobs that need more say so
        for step in list_steps(flow):
            # What users write, such as the name of a branch, must not be part of a script.
            assert "${{" not in step.get("run", "")
            assert "uses" not in step or re.search(r"@(v\d+|release/v\d+)$", step["uses"])


def test_only_a_dated_section_of_this_version_is_released() -> None:
    later, earlier = "## 1.1.0, unreleased\n\n- new\n\n", "\n## 0.9.0, 2026-01-01\n"
    text = f"# Changes\n\n{later}## 1.0.0, 2027-01-31\n\n### Upgrading\n\n- old\n{earlier}"
    assert extract_section(text, "1.0.0") == "### Upgrading\n\n- old\n"
    for version, match in (("1.1.0", "'unreleased'"), ("2.0.0", "no section")):
        with pytest.raises(ValueError, match=match):
            extract_section(text, version)
    assert check_tag("v1.0.0", '[project]\nversion = "1.0.0"') == "1.0.0"
    with pytest.raises(ValueError, match=r"is not v1\.0\.0"):
        check_tag("v1.0.1", '[project]\nversion = "1.0.0"')
