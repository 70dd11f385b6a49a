"""Builds the wheel, installs it into an environment of its own, and uses it from a foreign folder: the console script,
``python -m``, a recipe, a user's own class with one YAML file, their own LightningModule, DataModule, Dataset and
recipe on two processes, an option that another package brings by its entry point, and one of a ``--config-dir``.

    python -m scripts.wheel_smoke --venv build/core
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from scripts.lock import read_pins

ROOT = Path(__file__).resolve().parent.parent
OWN_CODE = ROOT / "tests" / "contract" / "fixtures" / "own_code"
THEIRS = """
[project]
name = "their-pkg"
version = "1"
[project.entry-points."mlscale.config_dirs"]
theirs = "their_pkg.conf"
[tool.setuptools]
packages = ["their_pkg", "their_pkg.conf"]
[tool.setuptools.package-data]
"their_pkg.conf" = ["**/*.yaml"]
"""


def call(*command: str | Path, cwd: Path, path: Path | None = None) -> str:
    """Run a command, show it, and return what it printed; end with its output if it fails."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    if path is not None:
        env["PATH"] = f"{path}{os.pathsep}{env['PATH']}"
    print("  $ " + " ".join(map(str, command)), flush=True)
    run = subprocess.run(
        [*map(str, command)], cwd=cwd, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600
    )
    if run.returncode:
        sys.exit(f"exit code {run.returncode}\n{run.stdout}\n{run.stderr}")
    return run.stdout


def install_wheel(environment: Path, scratch: Path) -> Path:
    """Build the wheel (from the source archive), install it; return the environment's folder of programs."""
    call(sys.executable, "-m", "build", "--outdir", scratch / "dist", ROOT, cwd=scratch)
    (wheel,) = (scratch / "dist").glob("*.whl")
    venv.create(environment, with_pip=True, clear=True)
    programs = environment.resolve() / "bin"
    constraints = scratch / "constraints.txt"  # without hashes: with them, pip would want those of torch, too
    constraints.write_text("\n".join(read_pins((ROOT / "requirements.lock").read_text())))
    call(programs / "pip", "install", "--quiet", "-c", constraints, wheel, cwd=scratch)
    return programs


def install_theirs(programs: Path, scratch: Path) -> None:
    """A package of somebody else's, whose entry point brings an option of the group `model`."""
    package = scratch / "theirs"
    (package / "their_pkg/conf/model").mkdir(parents=True)
    for name in ("their_pkg", "their_pkg/conf"):
        (package / name / "__init__.py").touch()
    shutil.copy(OWN_CODE / "tiny.py", package / "their_pkg/tiny.py")
    option = (OWN_CODE / "conf/model/tiny.yaml").read_text().replace("tiny.Tiny", "their_pkg.tiny.Tiny")
    (package / "their_pkg/conf/model/theirs.yaml").write_text(option)
    (package / "pyproject.toml").write_text(THEIRS)
    call(programs / "pip", "install", "--quiet", "--no-deps", package, cwd=scratch)


def use(programs: Path, folder: Path) -> None:
    """What a user does first, in a folder that holds their own class and configuration."""
    shutil.copytree(OWN_CODE, folder)
    before = {path for path in folder.rglob("*") if "__pycache__" not in path.parts}
    python = programs / "python"
    location = call(python, "-c", "import mlscale; print(mlscale.__file__)", cwd=folder).strip()
    if not Path(location).is_relative_to(programs.parent):
        sys.exit(f"the wheel is not what was imported: {location}")
    call("mlscale", "--help", cwd=folder, path=programs)
    call("mlscale", "recipes", "ls", cwd=folder, path=programs)
    call(python, "-m", "mlscale", "config", "show", "+recipe=resnet", cwd=folder)
    call(python, "-m", "mlscale", "+recipe=resnet", "debug=fast", cwd=folder)
    lines = len((folder / "conf/model/tiny.yaml").read_text().splitlines())
    if lines > 40:
        sys.exit(f"a class of one's own should need 40 lines of YAML at most, not {lines}")
    call("mlscale", "model=tiny", "trainer.max_epochs=1", cwd=folder, path=programs)
    call("mlscale", "task=own", "data=own", "debug=fast", "trainer.devices=2", cwd=folder, path=programs)
    call("mlscale", "recipe=own", "debug=fast", "trainer.devices=2", cwd=folder, path=programs)
    call("mlscale", "model=theirs", "debug=fast", cwd=folder, path=programs)
    # A folder of options that lies elsewhere; the class is found in the folder that one stands in.
    options = folder.parent / "options"
    (options / "model").mkdir(parents=True)
    shutil.copy(OWN_CODE / "conf/model/tiny.yaml", options / "model/elsewhere.yaml")
    call("mlscale", "--config-dir", options, "model=elsewhere", "debug=fast", cwd=folder, path=programs)
    shown = call("mlscale", "--config-dir", options, "model=elsewhere", "--cfg", "job", cwd=folder, path=programs)
    if "_target_: tiny.Tiny" not in shown:
        sys.exit(f"--config-dir did not bring its option:\n{shown}")
    sealed = list(folder.glob("runs/*/*/manifest.json"))
    if len(sealed) != 6:
        sys.exit(f"six runs should have left six sealed run folders, not {len(sealed)}")
    # Python leaves its bytecode beside every module that is imported, in packages, too.
    after = {path for path in folder.rglob("*") if "__pycache__" not in path.parts}
    added = {path.relative_to(folder).parts[0] for path in after - before}
    if not added <= {"runs"}:
        sys.exit(f"runs/ is all that may appear in the user's folder, not {sorted(added)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", type=Path, help="keep the environment here, for other checks")
    chosen: Path | None = parser.parse_args().venv
    with tempfile.TemporaryDirectory(prefix="wheel-") as name:
        scratch = Path(name)
        programs = install_wheel(chosen or scratch / "venv", scratch)
        install_theirs(programs, scratch)
        use(programs, scratch / "elsewhere")
        # What comes after looks at what mlscale needs, in this environment.
        call(programs / "pip", "uninstall", "--quiet", "--yes", "their-pkg", cwd=scratch)
    print("the wheel trains in a foreign folder")


if __name__ == "__main__":
    main()
