"""The requirements of `compile`: torch writes kernels in C++ (on CUDA in Triton, launched from C) and builds them."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from omegaconf import DictConfig

from mlscale.errors import Exit, MLScaleError

MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


def check_compile_support(cfg: DictConfig) -> Iterator[MLScaleError]:
    """Yield the problems of `compile`: an unknown mode, or a compiler or headers that this machine lacks."""
    mode = cfg.get("compile")
    if not mode:
        return
    if isinstance(mode, str) and mode not in MODES:
        yield MLScaleError(
            f"torch.compile has no mode '{mode}'",
            where="compile",
            why=f"its modes: {', '.join(MODES)}",
            fix="compile=true",
        )
    # As torch's inductor chooses it; CXX may hold flags after the program's name.
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler.split()[0]) is None:
        yield _create_missing_tool_error(
            f"a C++ compiler, and {compiler} was not found", "apt-get install g++, or CXX=<yours> in front"
        )
    elif not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        yield _create_missing_tool_error("Python's headers, and Python.h was not found", "apt-get install python3-dev")


def _create_missing_tool_error(what: str, remedy: str) -> MLScaleError:
    return MLScaleError(
        f"torch.compile needs {what}", where="compile", fix=f"{remedy}; or compile=false", exit=Exit.ENVIRONMENT
    )
