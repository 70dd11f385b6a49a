"""Install the package of docs/extending.md into a folder of its own, and use its commands, callback, logger,
recipe and task type.

    python -m scripts.third_party

Nothing is installed into this environment: the package is found by PYTHONPATH, in which pip has put it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from scripts.docs_commands import files

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/extending.md"
LIMIT = 60  # lines of Python and YAML for a command, a callback, a logger, a recipe, a task type
SMALL = ("++trainer.limit_train_batches=4", "++trainer.limit_val_batches=1", "snapshot=false")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="third-party-") as name:
        folder = Path(name)
        site = install_package(folder)
        for line in use_package(folder / "elsewhere", site):
            print(line)
    print("a third-party package adds a command, a callback, a logger, a recipe and a task type")


def install_package(folder: Path) -> Path:
    """Write the package of the page into `folder` and install it; return the folder that pip installed it into."""
    source, site = folder / "source", folder / "site"
    for name, text in files(PAGE).items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    for package in ("hello_mlscale", "hello_mlscale/conf"):
        (source / package / "__init__.py").touch()
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    command += ["--disable-pip-version-check", "--target", str(site), str(source)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return site


def use_package(folder: Path, site: Path) -> Iterator[str]:
    """Run the commands of the page in `folder`; yield what each printed that shows that it worked.

    Raises:
        AssertionError: one did not.
    """
    folder.mkdir()
    listed = run_mlscale(folder, site, "--help").stdout
    yield next(line for line in listed.splitlines() if line.startswith("  hello "))
    described = run_mlscale(folder, site, "hello", "--help").stdout
    yield next(line for line in described.splitlines() if "hello.greeting=Hello" in line)
    counted = run_mlscale(folder, site, "hello", "+recipe=hello", "hello.greeting=Hi", "output=json").stdout
    yield json.loads(counted)["sentence"]
    run_mlscale(folder, site, "recipe=hello", "callbacks=[default,batches]", "logger=[csv,lines]", *SMALL)
    (run,) = folder.glob("runs/*/hello-*")
    yield (run / "logs/metrics.jsonl").read_text().splitlines()[-1]
    counts = ("data=diabetes", "augment=none", "model=tabular_regression", "optimizer=adamw", "task=counts")
    run_mlscale(folder, site, *counts, "trainer.max_epochs=2", "snapshot=false")
    measured = json.loads(run_mlscale(folder, site, "evaluate", "last", "output=json").stdout)
    assert measured["metrics"]["val/absolute_error_low"] < measured["metrics"]["val/absolute_error_high"]
    yield measured["sentence"]
    run_mlscale(folder, site, "card", "last", "card.path=penguins.md")
    yield next(line for line in (folder / "penguins.md").read_text().splitlines() if "val/loss " in line)


def run_mlscale(folder: Path, site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `mlscale <words>` in `folder` with the packages in `site`, and show the command.

    Raises:
        AssertionError: it failed.
    """
    print("  $ mlscale " + " ".join(words), flush=True)
    path = os.pathsep.join(filter(None, [str(site), str(ROOT), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-m", "mlscale", *words]
    run = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run


if __name__ == "__main__":
    main()
