"""Install a real Triton server from package registries, for tests and for trying a repository without a container.

The package nvidia-pytriton has the server's binary with the Python backend alone. A backend of thirty lines, which
computes by the package onnxruntime, takes the place of the one in C++; all else is the server itself.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from mlscale.atomic_files import write_text
from mlscale.errors import Exit, MLScaleError

SERVER_PACKAGE = "nvidia-pytriton==0.7.0"
"""Other packages of a similar name have only bindings, without a server."""
# With numpy 2 the server's Python backend answers 500, and crashes.
MODEL_PACKAGES = ("numpy<2", "onnxruntime>=1.23,<2", "pillow", "simplejpeg>=1.8,<2", "tokenizers>=0.21,<1")
VARIABLE = "MLSCALE_TRITON"
"""The environment variable that names the folder of an installed server."""
_DONE = "installed.txt"
_SECONDS = 600


@dataclass(frozen=True)
class InstalledServer:
    """A folder that `install_server` has filled.

    Attributes:
        folder: its path.
    """

    folder: Path

    @property
    def is_complete(self) -> bool:
        """True if the installation reached its end."""
        return (self.folder / _DONE).is_file()

    @property
    def binary(self) -> Path:
        """The server's program."""
        return self._package / "bin" / "tritonserver"

    @property
    def backends(self) -> Path:
        """The folder of its backends."""
        return self.folder / "backends"

    def build_environment(self) -> dict[str, str]:
        """Return the variables that it needs in addition to those of this process."""
        libraries = [self.folder / "server" / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR")]
        # The Python backend finds its packages by the first `python3` of PATH, and its interpreter as a library.
        path = [self.folder / "env" / "bin", os.environ.get("PATH", "")]
        # The environment of a caller's own would be looked into, too.
        return {"LD_LIBRARY_PATH": ":".join(map(str, libraries)), "PATH": ":".join(map(str, path)), "PYTHONPATH": ""}

    @property
    def _package(self) -> Path:
        return self.folder / "server" / "pytriton" / "tritonserver"

    def copy_backends(self) -> None:
        """Make the folder of backends: that of Python, and one for ONNX models that is written in it."""
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        stub = self._package / "python_backend_stubs" / version / "triton_python_backend_stub"
        if not stub.is_file():
            raise MLScaleError(
                f"this server does not run with Python {version}",
                where=str(self.folder),
                why=f"it has {', '.join(sorted(path.name for path in stub.parent.parent.glob('3.*')))}",
                fix="python3.11 -m mlscale.targets.triton.local_server install triton-server",
                exit=Exit.ENVIRONMENT,
            )
        python = self.backends / "python"
        shutil.copytree(self._package / "backends" / "python", python, dirs_exist_ok=True)
        shutil.copy2(stub, python)
        onnxruntime = self.backends / "onnxruntime"
        onnxruntime.mkdir(exist_ok=True)
        source = files("mlscale.targets.triton.repository_code").joinpath("onnxruntime_model.py")
        write_text(onnxruntime / "model.py", source.read_text(encoding="utf-8"))


def install_server(folder: Path) -> InstalledServer:
    """Install a server into a folder, once; a folder that has one is returned as it is.

    Raises:
        MLScaleError: the packages can't be installed, or this machine can't run them (exit code 5).
    """
    installed = InstalledServer(folder.absolute())
    if installed.is_complete:
        return installed
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "server"
    _run_step([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), SERVER_PACKAGE])
    _run_step([sys.executable, "-m", "venv", "--clear", str(folder / "env")])
    _run_step([str(folder / "env" / "bin" / "python"), "-m", "pip", "install", "--quiet", *MODEL_PACKAGES])
    installed.copy_backends()
    # Last: an installation that was stopped is repeated, and not used.
    write_text(folder / _DONE, f"{SERVER_PACKAGE}\n")
    return installed


def _run_step(command: Sequence[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise MLScaleError(
            "the Triton server can't be installed",
            where=" ".join(command[:6]),
            why=lines[-1] if lines else type(error).__name__,
            fix="pip download nvidia-pytriton==0.7.0 --no-deps, which shows if there is one for this machine",
            exit=Exit.ENVIRONMENT,
        ) from error
