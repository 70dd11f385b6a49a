"""Start a real Triton server for a repository, and send it samples as its clients do."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import Exit, MLScaleError
from mlscale.export.required_extras import require_extra
from mlscale.export.servable import Servable
from mlscale.targets.triton.install_server import VARIABLE, InstalledServer
from mlscale.targets.triton.raw_models import RawModels, find_raw_models
from mlscale.targets.triton.tensor_bytes import create_raw_tensor

_READY_S, _STOP_S = 300.0, 20.0
_FIX = (
    "python -m scripts.triton_server install <folder>, and MLSCALE_TRITON=<folder>\n"
    "docker pull <target.triton.image>\ncheck=none"
)


@dataclass(frozen=True)
class ServerCommand:
    """A command that starts a server.

    Attributes:
        words: the command, with the repository and the ports.
        environment: variables in addition to those of this process.
        ports: of HTTP, gRPC and metrics.
    """

    words: Sequence[str]
    environment: Mapping[str, str]
    ports: tuple[int, int, int]


class RunningTriton:
    """A server that has loaded a servable's repository.

    Args:
        servable: what it was made of.
        model: the name of the model that takes tensors.
        max_batch: the most samples of a request.
        ports: of HTTP and gRPC.
    """

    def __init__(self, servable: Servable, model: str, max_batch: int, ports: Sequence[int]) -> None:
        from tritonclient import http

        self._servable, self._max_batch = servable, max_batch
        self.http_address, self.grpc_address = (f"127.0.0.1:{port}" for port in ports[:2])
        self._raw: RawModels | None = find_raw_models(model, servable)
        self._model = model
        self._client = http.InferenceServerClient(self.http_address, network_timeout=_READY_S)

    @property
    def product(self) -> str:
        """The server's name and version, as it states them."""
        about = self._client.get_server_metadata()
        return f"{str(about['name']).capitalize()} {about['version']}"

    def compute_samples(self, raw: Sequence[Any]) -> dict[str, NDArray[Any]]:
        """Return the graph's outputs for n raw samples; those of more than a full batch are several requests.

        Raises:
            MLScaleError: the server refuses them.
        """
        parts = [self._request_outputs(list(part)) for part in self._split_requests(raw)]
        return {port.name: np.concatenate([part[port.name] for part in parts]) for port in self._servable.outputs}

    def _split_requests(self, raw: Sequence[Any]) -> Iterator[Sequence[Any]]:
        """Yield as many samples as fit into a batch, of a document each of its windows."""
        packed = self._servable.pack_samples(raw)
        rows = [1] * len(raw) if packed.counts is None else packed.counts.tolist()
        start = total = 0
        for number, count in enumerate(rows):
            if total + count > self._max_batch and number > start:
                yield raw[start:number]
                start, total = number, 0
            total += count
        yield raw[start:]

    def _request_outputs(self, raw: list[Any]) -> dict[str, NDArray[Any]]:
        from tritonclient import http
        from tritonclient.utils import InferenceServerException, np_to_triton_dtype

        if self._raw is None:
            model, tensors = self._model, dict(self._servable.pack_samples(raw).tensors)
        else:
            model, tensors = self._raw.ensemble, {self._raw.input: create_raw_tensor(raw)}
        inputs = []
        for name, values in tensors.items():
            given = values[:, None] if values.ndim == 1 else values
            inputs.append(http.InferInput(name, list(given.shape), np_to_triton_dtype(given.dtype)))
            inputs[-1].set_data_from_numpy(given)
        try:
            result = self._client.infer(model, inputs)
        except InferenceServerException as error:
            raise MLScaleError(
                f"Triton refuses a request to '{model}'",
                where=self.http_address,
                why=str(error.message())[:500],
                fix="mlscale export <its run> target=triton check=none, and look at the server's log",
                exit=Exit.GATE,
            ) from error
        return {port.name: _drop_added(result.as_numpy(port.name), port.shape) for port in self._servable.outputs}


def _drop_added(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    # A scalar is [1] in Triton.
    return values[:, 0] if len(shape) == 1 else values


@contextmanager
def start_triton(
    servable: Servable, repository: Path, model: str, *, max_batch: int, image: str, server: str | None
) -> Iterator[RunningTriton]:
    """Start a server, wait until it has loaded all models, and stop it at the end of the block.

    Args:
        servable: what the repository was made of.
        repository: the folder of models.
        model: the one that takes tensors.
        max_batch: the most samples of a request.
        image: of a container.
        server: the folder of an installed server; None for that of the variable MLSCALE_TRITON.

    Raises:
        MLScaleError: there is no server on this machine (exit code 5), or it does not load the models (exit code 4).
    """
    require_extra("triton", "tritonclient")
    with run_triton(find_server_command(repository, image=image, server=server)) as ports:
        yield RunningTriton(servable, model, max_batch, ports)


def find_server_command(repository: Path, *, image: str, server: str | None) -> ServerCommand:
    """Return the command of `tritonserver` of PATH, of an installed server, or of a container: the first that is found.

    Raises:
        MLScaleError: there is none of them (exit code 5).
    """
    ports = _find_free_ports()
    options = [f"--{name}-port={port}" for name, port in zip(("http", "grpc", "metrics"), ports, strict=True)]
    local = [f"--{name}-address=127.0.0.1" for name in ("http", "grpc", "metrics")]
    # Explicit: clients may load and unload models, and no folder is looked at twice.
    control = ["--model-control-mode=explicit", "--load-model=*"]
    words = [f"--model-repository={repository}", *options, *local, *control]
    if binary := shutil.which("tritonserver"):
        return ServerCommand([binary, *words], {}, ports)
    if folder := server or os.environ.get(VARIABLE):
        installed = InstalledServer(Path(folder).absolute())
        if not installed.is_complete:
            raise _build_absent_error(f"{folder} has no installed server")
        path = f"{installed.environment['PATH']}:{os.environ.get('PATH', '')}"
        command = [str(installed.binary), *words, f"--backend-directory={installed.backends}"]
        return ServerCommand(command, {**installed.environment, "PATH": path}, ports)
    for runtime in ("docker", "podman"):
        if shutil.which(runtime) and _has_image(runtime, image):
            return ServerCommand(_build_container_command(runtime, image, repository, ports, control), {}, ports)
    raise _build_absent_error("tritonserver is not on PATH, and no container runtime has its image")


@contextmanager
def run_triton(command: ServerCommand) -> Iterator[tuple[int, int, int]]:
    """Run a server until the end of the block; return its ports once it is ready.

    Raises:
        MLScaleError: it does not become ready (exit code 4).
    """
    with ExitStack() as stack:
        log = stack.enter_context(tempfile.NamedTemporaryFile("w+", suffix=".log"))
        process = subprocess.Popen(
            command.words,
            # A servable's folder stays as it is: no byte code of the models in Python is written there.
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **command.environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # Its models run in processes of their own, which are ended with it.
            start_new_session=True,
        )
        stack.callback(_stop_process, process)
        _wait_until_ready(process, command.ports[0], Path(log.name))
        yield command.ports


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    import http.client

    end = time.monotonic() + _READY_S
    while process.poll() is None and time.monotonic() < end:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/v2/health/ready")
            if connection.getresponse().status == http.client.OK:
                return
        connection.close()
        time.sleep(0.1)
    raise MLScaleError(
        "Triton does not load the repository",
        where="target.triton",
        why=_find_failure(log.read_text(encoding="utf-8", errors="replace")),
        fix="mlscale export <its run> target=triton, which writes it again",
        exit=Exit.GATE,
    )


def _find_failure(log: str) -> str:
    """Return the line of a log that explains why a model is not loaded."""
    lines = log.splitlines()
    failed = [line for line in lines if "failed to load" in line or "UNAVAILABLE:" in line or line.startswith("E")]
    return (failed or lines or ["it wrote nothing"])[0][:600]


def _stop_process(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        # The whole group: what runs its models would stay.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _find_free_ports() -> tuple[int, int, int]:
    with ExitStack() as stack:
        # All are open at once, so that they differ.
        sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        first, second, third = (int(one.getsockname()[1]) for one in sockets)
        return first, second, third


def _has_image(runtime: str, image: str) -> bool:
    # Not pulled here: it has tens of gigabytes.
    return subprocess.run([runtime, "image", "inspect", image], capture_output=True, check=False).returncode == 0


def _build_container_command(
    runtime: str, image: str, repository: Path, ports: Sequence[int], control: Sequence[str]
) -> list[str]:
    publish = [
        word
        for port, inner in zip(ports, (8000, 8001, 8002), strict=True)
        for word in ("-p", f"127.0.0.1:{port}:{inner}")
    ]
    needed = [f"/models/{path.parent.name}/{path.name}" for path in sorted(repository.glob("*/requirements.txt"))]
    install = f"pip install {' '.join(f'-r {path}' for path in needed)} && " if needed else ""
    serve = f"{install}exec tritonserver --model-repository=/models {' '.join(map(repr, control))}"
    # Python models exchange tensors by shared memory, of which containers have little.
    return [
        runtime,
        "run",
        "--rm",
        "--init",
        "--shm-size=1g",
        *publish,
        "-v",
        f"{repository}:/models:ro",
        image,
        "sh",
        "-c",
        serve,
    ]


def _build_absent_error(why: str) -> MLScaleError:
    return MLScaleError(
        "Triton is not installed on this machine", where="check=server", why=why, fix=_FIX, exit=Exit.ENVIRONMENT
    )
