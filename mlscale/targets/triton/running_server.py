"""Start a real Triton server for a repository, and send it samples as its clients do."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import Exit, MLScaleError
from mlscale.export.servable import Servable
from mlscale.file_locks import make_scratch_folder
from mlscale.targets.started_process import find_free_port, start_process
from mlscale.targets.triton.install_server import VARIABLE, InstalledServer
from mlscale.targets.triton.raw_models import RawModels, create_raw_tensor
from mlscale.targets.v2_client import V2Client

_PORTS = {"http": 8000, "grpc": 8001, "metrics": 8002}
"""The server's own defaults, which a container has inside."""
_READY_S = 300.0
# On a busy machine the server sometimes aborts while it starts its models in Python (interprocess::lock_exception).
_STARTS = 3
# Clients may load and unload models; without the many lines of a start, an error is among the last ones of the log.
_OPTIONS = ("--model-control-mode=explicit", "--load-model=*", "--log-info=false", "--exit-timeout-secs=5")


@dataclass(frozen=True)
class ServerCommand:
    """A command that starts a server.

    Attributes:
        words: the command, with the repository and the ports.
        environment: variables in addition to those of this process.
        ports: of http, grpc and metrics.
        note: what is particular about the server; '' for nothing.
        at_end: a command that removes what its end leaves behind.
    """

    words: Sequence[str]
    environment: Mapping[str, str]
    ports: Mapping[str, int]
    note: str = ""
    at_end: Sequence[str] = ()

    @property
    def url(self) -> str:
        """The address of HTTP."""
        return f"http://127.0.0.1:{self.ports['http']}"


@dataclass(frozen=True)
class RunningTriton:
    """A server that has loaded a servable's repository.

    Attributes:
        product: its name and version.
        servable: what the repository was made of.
        raw: the models for raw samples; None where there are none.
        client: of the model that is sent samples.
        max_batch: the most samples of a request.
    """

    product: str
    servable: Servable
    raw: RawModels | None
    client: V2Client
    max_batch: int

    def compute_samples(self, raw: Sequence[Any]) -> dict[str, NDArray[Any]]:
        """Return the graph's outputs for n raw samples; those of more than a full batch are several requests.

        Raises:
            MLScaleError: the server refuses them.
        """
        parts = [self._request_outputs(list(part)) for part in self._split_requests(raw)]
        return {port.name: np.concatenate([part[port.name] for part in parts]) for port in self.servable.outputs}

    def _split_requests(self, raw: Sequence[Any]) -> Iterator[Sequence[Any]]:
        """Yield as many samples as fit into a batch, which a document fills by its windows."""
        counts = self.servable.pack_samples(raw).counts
        rows = [1] * len(raw) if counts is None else counts.tolist()
        start = total = 0
        for number, count in enumerate(rows):
            if total + count > self.max_batch and number > start:
                yield raw[start:number]
                start, total = number, 0
            total += count
        yield raw[start:]

    def _request_outputs(self, raw: list[Any]) -> dict[str, NDArray[Any]]:
        if self.raw is None:
            packed = self.servable.pack_samples(raw).tensors
            tensors = {name: values[:, None] if values.ndim == 1 else values for name, values in packed.items()}
        else:
            tensors = {self.raw.input: create_raw_tensor(raw)}
        given = self.client.compute(tensors)
        # A scalar is [1] in Triton.
        return {
            port.name: given[port.name][:, 0] if len(port.shape) == 1 else given[port.name]
            for port in self.servable.outputs
        }


def find_server_command(repository: Path, *, image: str, server: str | None) -> ServerCommand:
    """Return the command of `tritonserver` of PATH, of an installed server, or of a container: the first that is found.

    Args:
        repository: the folder of models.
        image: of a container.
        server: the folder of an installed server; None for that of the variable MLSCALE_TRITON.

    Raises:
        MLScaleError: there is none of them (exit code 5).
    """
    ports = {name: find_free_port() for name in _PORTS}
    words, remove = _name_shared_memory()
    words += [f"--model-repository={repository}", *_OPTIONS]
    for name, port in ports.items():
        words += [f"--{name}-address=127.0.0.1", f"--{name}-port={port}"]
    if binary := shutil.which("tritonserver"):
        return ServerCommand([binary, *words], {}, ports, at_end=remove)
    if folder := server or os.environ.get(VARIABLE):
        installed = InstalledServer(Path(folder).absolute())
        if not installed.is_complete:
            raise _build_absent_error(f"{folder} has no installed server", image)
        command = [str(installed.binary), *words, f"--backend-directory={installed.backends}"]
        # An approval states that it is not by the backend in C++, which may differ in the last bits.
        return ServerCommand(command, installed.build_environment(), ports, " with ONNX Runtime in Python", remove)
    for runtime in ("docker", "podman"):
        if shutil.which(runtime) and _has_image(runtime, image):
            name = f"mlscale-check-{uuid.uuid4().hex[:12]}"
            words = _build_container_command(runtime, image, repository, ports, name)
            # A container outlives the command that started it, where that was killed.
            return ServerCommand(words, {}, ports, at_end=[runtime, "rm", "-f", name])
    raise _build_absent_error("tritonserver is not on PATH, and no container runtime has its image", image)


def _name_shared_memory() -> tuple[list[str], list[str]]:
    """Return options that name the shared memory of a server's models in Python, and what removes it at the end."""
    # A server that is ended while it loads its models has no handler of SIGTERM yet, and leaves theirs behind.
    name = f"mlscale-{uuid.uuid4().hex[:12]}"
    options = [f"--backend-config={backend},shm-region-prefix-name={name}" for backend in ("python", "onnxruntime")]
    return options, ["sh", "-c", 'rm -f "/dev/shm/$0"*', name]


@contextmanager
def link_repository(repository: Path) -> Iterator[Path]:
    """Yield a path of the repository that the server can read: its own, or of a temporary link to it."""
    path = repository.absolute()
    # The server starts a model in Python by an unquoted shell command, and waits without end where that fails; and
    # that Python reads paths as ASCII.
    if re.fullmatch(r"[\w./+-]+", str(path), re.ASCII):
        yield path
        return
    with make_scratch_folder("repository") as folder:
        link = folder / "models"
        link.symlink_to(path, target_is_directory=True)
        yield link


@contextmanager
def run_triton(command: ServerCommand) -> Iterator[ServerCommand]:
    """Run a server while the block runs; the block begins once it has loaded all models.

    Raises:
        MLScaleError: it does not load them (exit code 4).
    """

    def is_ready() -> bool:
        try:
            with urlopen(f"{command.url}/v2/health/ready", timeout=5) as response:  # noqa: S310 - of this machine
                return bool(response.status == 200)
        except OSError:  # it does not listen yet, or answers 400
            return False

    with start_process(
        command.words,
        is_ready,
        product="Triton",
        environment=command.environment,
        wait_s=_READY_S,
        at_end=command.at_end,
        starts=_STARTS,
    ):
        yield command


def build_container_words(
    image: str, repository: Path, runtime: str, publish: Sequence[str], options: str
) -> list[str]:
    """Return the command of a container that serves a repository, which it does not change."""
    needed = [f"-r /models/{path.parent.name}/{path.name}" for path in sorted(repository.glob("*/requirements.txt"))]
    serve = f"tritonserver --model-repository=/models{options}"
    # The image has numpy alone; what decodes images and reads tokenizers is installed at the start.
    inner = ["sh", "-c", f"pip install {' '.join(needed)} && exec {serve}"] if needed else serve.split()
    # Models in Python exchange tensors by shared memory, of which containers have little.
    options_of_run = ["--rm", "--init", "--shm-size=1g", *publish, "-v", f"{repository}:/models:ro"]
    return [runtime, "run", *options_of_run, image, *inner]


def _build_container_command(
    runtime: str, image: str, repository: Path, ports: Mapping[str, int], container: str
) -> list[str]:
    publish = [word for name, inner in _PORTS.items() for word in ("-p", f"127.0.0.1:{ports[name]}:{inner}")]
    publish += ["--name", container]
    options = "".join(f" {shlex.quote(option)}" for option in _OPTIONS)
    return build_container_words(image, repository, runtime, publish, options)


def _has_image(runtime: str, image: str) -> bool:
    # Not pulled here: it has tens of gigabytes.
    return subprocess.run([runtime, "image", "inspect", image], capture_output=True, check=False).returncode == 0


def _build_absent_error(why: str, image: str) -> MLScaleError:
    pull = f"docker pull {image}\n" if image else ""
    return MLScaleError(
        "a Triton server is not installed on this machine",
        where="check=server",
        why=why,
        fix="python -m mlscale.targets.triton.local_server install triton-server "
        f"&& export {VARIABLE}=$PWD/triton-server\n"
        f"{pull}check=none",
        exit=Exit.ENVIRONMENT,
    )
