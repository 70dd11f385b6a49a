"""The files of docs/deploy.md for KServe, systemd and Docker: their schema and linters accept them, and they serve."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.serving import ROOT, STORED, serving

PAGE = (ROOT / "docs" / "deploy.md").read_text()
SCHEMAS = json.loads((Path(__file__).parent / "fixtures" / "kserve_schemas.json").read_text())
KEY = "0123456789abcdef0123"


def read_file(language: str) -> str:
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    return str(text)


UNIT, DOCKERFILE = read_file("ini"), read_file("dockerfile")


def read_manifests() -> tuple[dict[str, Any], dict[str, Any]]:
    runtime, service = yaml.safe_load_all(read_file("yaml"))
    return runtime, service


def test_the_schemas_of_kserve_accept_the_manifests() -> None:
    for manifest in read_manifests():
        jsonschema.Draft202012Validator(SCHEMAS[manifest["kind"]]).validate(manifest)


def test_the_schemas_refuse_what_kserve_does_not_know() -> None:
    runtime, service = read_manifests()
    runtime["spec"]["containers"][0]["readynessProbe"] = {}
    service["spec"]["predictor"]["model"]["protocol"] = "v2"
    for manifest in (runtime, service):
        with pytest.raises(jsonschema.ValidationError, match=r"readynessProbe|protocol"):
            jsonschema.Draft202012Validator(SCHEMAS[manifest["kind"]]).validate(manifest)


def test_runtime_and_service_of_kserve_fit_each_other() -> None:
    runtime, service = read_manifests()
    model = service["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"]["name"] == runtime["spec"]["supportedModelFormats"][0]["name"]
    assert service["spec"]["predictor"]["terminationGracePeriodSeconds"] > 35, "30 s of drain after 5 s unready"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed: apt-get install systemd")
def test_systemd_accepts_the_unit_and_rates_it_as_safe(tmp_path: Path) -> None:
    unit = tmp_path / "digits.service"
    # The interpreter that the unit names is on the machine where it is installed.
    unit.write_text(UNIT.replace("/opt/mlscale/digits/venv/bin/python", sys.executable))
    verified = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
    complaints = [line for line in verified.stderr.splitlines() if unit.name in line]
    assert (verified.returncode, complaints) == (0, []), verified.stderr
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=25", str(unit)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert rated.returncode == 0, rated.stdout.splitlines()[-1]


def read_started() -> dict[str, list[str]]:
    """The words after `mlscale` that each file starts."""
    lines = DOCKERFILE.splitlines()
    entry, command = (
        json.loads(next(each for each in lines if each.startswith(key)).partition(" ")[2])
        for key in ("ENTRYPOINT", "CMD")
    )
    start = next(each for each in UNIT.splitlines() if each.startswith("ExecStart="))
    unit = shlex.split(start.removeprefix("ExecStart=").replace("$$", "$").replace("%%", "%"))
    assert entry[:3] == ["python", *unit[1:3]]
    return {
        "docker": [*entry[3:], *command],
        "kserve": [*entry[3:], *read_manifests()[0]["spec"]["containers"][0]["args"]],
        "systemd": unit[3:],
    }


@pytest.mark.parametrize("kind", ["docker", "kserve", "systemd"])
def test_what_a_file_starts_serves(kind: str, tmp_path: Path) -> None:
    verb, _, *words = read_started()[kind]
    assert verb == "serve"
    words.remove("port=8080")
    with serving(tmp_path, STORED, *words, environ={"SERVE_KEY": KEY}) as server:
        for state in ("live", "ready"):
            assert server.ask(f"/v2/health/{state}").status == 200
        assert server.ask("/v2/models/digits").status == 401
        assert server.ask("/v2/models/digits", headers={"x-api-key": KEY}).json["name"] == "digits"
        if kind == "docker":
            probe = next(line for line in DOCKERFILE.splitlines() if "HEALTHCHECK" in line)
            _, program, text = json.loads(probe.partition("CMD ")[2])
            assert program == "-c"
            port = f":{server.place[1]}/"
            assert subprocess.run([sys.executable, "-c", text.replace(":8080/", port)], timeout=30).returncode == 0
            assert subprocess.run([sys.executable, "-c", text.replace(":8080/", ":9/")], timeout=30).returncode != 0
        server.process.send_signal(2)
        assert server.process.wait(30) == 0


def test_the_packages_are_all_that_a_server_imports(tmp_path: Path) -> None:
    (listed,) = re.findall(r"grep -iE '\^\(([^)]*)\)='", PAGE)
    names = set(listed.split("|"))
    # Others must not be found: what is imported where it is installed would be missed in the image.
    block = tmp_path / "sitecustomize.py"
    block.write_text(
        "import sys, importlib.metadata as md\n"
        f"allowed = {sorted(names - {'tokenizers'})!r}\n"
        "own = {name for name, found in md.packages_distributions().items()\n"
        "       if not any(each.lower().replace('_', '-') in allowed for each in found)}\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in own - {'mlscale', 'tests', 'conf', 'recipes', '_distutils_hack'}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Block())\n"
    )
    log = tmp_path / "log"
    code = (
        "import sys, threading, os, time, urllib.request\n"
        "sys.argv = ['mlscale', *sys.argv[1:]]\n"
        "from mlscale.cli import main\n"
        "def stop():\n"
        "    while not os.path.exists('ready.json'): time.sleep(0.05)\n"
        "    os.kill(os.getpid(), 2)\n"
        "threading.Thread(target=stop, daemon=True).start()\n"
        "sys.exit(main())\n"
    )
    environment = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "/usr/bin"}
    with log.open("w") as output:
        ended = subprocess.run(
            [sys.executable, "-c", code, "serve", f"ref={STORED}", "port=0", "ready_file=ready.json"],
            cwd=tmp_path, stdout=output, stderr=output, timeout=60, env=environment,
        )  # fmt: skip
    assert ended.returncode == 0, log.read_text()
