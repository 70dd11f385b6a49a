"""What a wheel, a source archive and an editable install hold and do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from scripts.lock import keep_locked, read_pins

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OWN_CODE = Path(__file__).parent / "fixtures" / "own_code"


def tracked(*patterns: str) -> set[str]:
    """Files of the repository that git knows or would take, relative to its root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return {name for name in listed if (ROOT / name).is_file()}


def in_wheel(name: str) -> str:
    """Where a file of the repository lies in the wheel: conf/ and recipes/ move into the package."""
    return name if name.startswith("mlscale/") else f"mlscale/{name}"


def test_every_package_is_listed() -> None:
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "mlscale").rglob("__init__.py")}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found | {"mlscale.conf", "mlscale.recipes"}


def test_every_python_file_is_linted() -> None:
    # ruff's own list of exclusions names folders as common as `dist`, and leaves them out in silence
    command = [sys.executable, "-m", "ruff", "check", "--show-files", "--no-cache"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert tracked("*.py", "*.pyi", "*.ipynb") - {str(Path(name).relative_to(ROOT)) for name in listed} == set()


def test_the_lock_has_a_version_and_hashes_of_every_requirement() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    entries = re.findall(r"^\S+==.*\n(?:    --hash=sha256:[0-9a-f]{64}.*\n)+", lock, flags=re.MULTILINE)
    pins = [Requirement(line) for line in read_pins(lock)]
    assert len(entries) == len(pins) > 200
    versions = {canonicalize_name(pin.name): pin.specifier for pin in pins}
    assert not versions.keys() & {"torch", "torchvision", "triton", "pip"}
    assert not [name for name in versions if name.startswith(("nvidia-", "cuda-"))]
    extras = PROJECT["project"]["optional-dependencies"]
    for text in [*PROJECT["project"]["dependencies"], *(text for extra in extras.values() for text in extra)]:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        # nvidia-…: half a gigabyte, for GPUs; .ci/nightly installs it for the tests that need it.
        if name in ("mlscale", "torch", "torchvision") or name.startswith("nvidia-"):
            continue
        # The same holds of other runtimes than ONNX Runtime, of TensorFlow, and of kernels that are mostly for GPUs.
        if name in ("bitsandbytes", "tensorflow-cpu"):
            continue
        assert name in versions, f"{name} is not in requirements.lock: python -m scripts.lock"
        (version,) = (pin.version for pin in versions[name])
        assert requirement.specifier.contains(version), f"{name}: {version} against {requirement.specifier}"


def test_a_lock_leaves_out_what_a_build_of_torch_brings() -> None:
    resolved = (
        "torch==2.13.0 \\\n    --hash=sha256:00\nnvidia-cublas==13 ; sys_platform == 'linux' \\\n    --hash=sha256:11\n"
        "torchmetrics==1.9.0 ; python_version < '4' \\\n    --hash=sha256:22 \\\n    --hash=sha256:33\npip==26.3 \\\n"
        "    --hash=sha256:44\n"
    )
    (kept,) = keep_locked(resolved)
    assert kept.count("--hash=") == 2
    assert read_pins(kept) == ["torchmetrics==1.9.0 ; python_version < '4'"]


def test_own_code_is_one_class_and_a_short_yaml() -> None:
    config, code = OWN_CODE / "conf/model/tiny.yaml", OWN_CODE / "tiny.py"
    assert len(config.read_text().splitlines()) <= 40
    assert code.read_text().count("class ") == 1


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel and a source archive; the wheel is built from the source archive."""
    folder = tmp_path_factory.mktemp("dist")
    run = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert "WARNING" not in run.stdout + run.stderr, run.stdout + run.stderr
    return folder


@pytest.mark.slow
def test_wheel_holds_all_code_and_configuration(archives: Path) -> None:
    (wheel,) = archives.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {in_wheel(name) for name in tracked("mlscale", "conf", "recipes")}
    assert wanted - names == set()
    assert {"mlscale/py.typed", "mlscale/conf/base/run.yaml", "mlscale/recipes/recipe/resnet.yaml"} <= names
    assert {name for name in names if not name.startswith(("mlscale/", "mlscale-"))} == set()


@pytest.mark.slow
def test_source_archive_holds_the_tests_and_docs(archives: Path) -> None:
    (archive,) = archives.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    wanted = tracked("mlscale", "conf", "recipes", "tests", "docs", "scripts", "LICENSE", "README.md", "*.md")
    assert wanted - names == set()
    assert {"pyproject.toml", "requirements.lock", "LICENSE", "SECURITY.md"} <= names


@pytest.mark.slow
def test_editable_install_works_in_a_foreign_folder(tmp_path: Path) -> None:
    # The packages of this interpreter are lent to the new environment, so that only mlscale itself is installed.
    environment, elsewhere = tmp_path / "venv", tmp_path / "elsewhere"
    elsewhere.mkdir()
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    env = {**os.environ, "PYTHONPATH": "", "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}

    def call(*command: str) -> str:
        run = subprocess.run(command, cwd=elsewhere, env=env, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout

    call(str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--ignore-installed", "-e", str(ROOT))
    found = json.loads(
        call(
            str(python),
            "-c",
            "import json, mlscale; from importlib.resources import files;"
            "print(json.dumps([mlscale.__file__, str(files('mlscale.conf')), str(files('mlscale.recipes'))]))",
        )
    )
    assert found == [str(ROOT / "mlscale" / "__init__.py"), str(ROOT / "conf"), str(ROOT / "recipes")]
    by_module = call(str(python), "-m", "mlscale", "config", "show", "+recipe=resnet")
    by_script = call("mlscale", "config", "show", "+recipe=resnet")
    assert by_module == by_script
    assert "mlscale.tasks.ResNet" in by_script
    assert list(elsewhere.iterdir()) == []
