"""A real Triton server for tests: the one that MLSCALE_TRITON names, or one that is installed once into .ci/tools."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlscale.errors import MLScaleError
from mlscale.export.servable import load
from mlscale.targets import TritonTarget
from mlscale.targets.triton.install_server import VARIABLE, install_server
from mlscale.targets.triton.running_server import ServerCommand, find_server_command, run_triton

_TOOLS = Path(__file__).resolve().parents[1] / ".ci" / "tools"


def find_triton() -> Path:
    """Return the folder of an installed server, or skip the test."""
    folder = Path(os.environ.get(VARIABLE) or Path(os.environ.get("MLSCALE_TOOLS") or _TOOLS, "triton"))
    try:
        install_server(folder)
    except MLScaleError as error:
        pytest.skip(f"no Triton server: python -m scripts.triton_server install {folder} ({error.why})")
    return folder


@contextmanager
def serving_triton(folder: Path, servables: Sequence[Path]) -> Iterator[ServerCommand]:
    """A server with the repositories of several servables in one."""
    installed = find_triton()
    repository = folder / "repository"
    repository.mkdir()
    for path in servables:
        TritonTarget(instances=1).build(load(path), repository)
    with run_triton(find_server_command(repository, image="", server=str(installed))) as command:
        yield command
