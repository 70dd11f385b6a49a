"""Start TensorFlow Serving on this machine: the installed binary, or a container of it."""

from __future__ import annotations

import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mlscale.errors import Exit, MLScaleError
from mlscale.export.servable import Servable
from mlscale.targets.started_process import find_free_port, start_process
from mlscale.targets.tfserving.rest_client import RestClient

BINARY, ENGINES = "tensorflow_model_server", ("docker", "podman")
GRPC_PORT, REST_PORT = 8500, 8501
"""The ports of the server's own examples; its clients know them."""
_VERSION_S = 600.0  # the first start of a container downloads it


@dataclass(frozen=True)
class ModelServer:
    """A running server, asked for encoded samples.

    Attributes:
        product: its name and version.
        servable: whose samples are sent; its engine is the server.
    """

    product: str
    servable: Servable

    def compute_samples(self, raw: Sequence[Any]) -> Mapping[str, NDArray[Any]]:
        """Return the outputs of raw samples, which are encoded here: the server takes tensors."""
        return self.servable.compute_samples(self.servable.pack_samples(raw))


def format_server_command(base: Path, image: str) -> list[str]:
    """Return the words that serve a model's folder of versions on the usual ports."""
    if shutil.which(BINARY) is not None:
        return [
            BINARY, f"--port={GRPC_PORT}", f"--rest_api_port={REST_PORT}",
            f"--model_name={base.name}", f"--model_base_path={base}",
        ]  # fmt: skip
    # Where none is installed here, the servable will be served elsewhere.
    engine = next(filter(shutil.which, ENGINES), ENGINES[0])
    ports = [f"{GRPC_PORT}:{GRPC_PORT}", f"{REST_PORT}:{REST_PORT}"]
    return [*_list_container_words(engine, base, ports), image]


def _list_container_words(engine: str, base: Path, ports: Sequence[str]) -> list[str]:
    published = [word for port in ports for word in ("-p", port)]
    mounted = ["-v", f"{base}:/models/{base.name}:ro", "-e", f"MODEL_NAME={base.name}"]
    return [engine, "run", "--rm", *published, *mounted]


@contextmanager
def start_model_server(servable: Servable, base: Path, image: str, wait_s: float) -> Iterator[ModelServer]:
    """Serve a model's folder of versions on a free port of this machine while the block runs.

    Raises:
        MLScaleError: neither the server nor a container engine is installed (exit code 5), or it does not load the
            model (exit code 4).
    """
    engine = next(filter(shutil.which, ENGINES), None)
    port, base = find_free_port(), base.absolute()
    client = RestClient(f"http://127.0.0.1:{port}", base.name, servable.inputs, servable.outputs)
    server = ModelServer(_read_product(engine, image), replace(servable, engine=client))
    if shutil.which(BINARY) is not None:
        # Port 0 is without gRPC.
        words = ["--port=0", f"--rest_api_port={port}", f"--model_name={base.name}", f"--model_base_path={base}"]
        with start_process([BINARY, *words], client.is_ready, product=server.product, wait_s=wait_s):
            yield server
        return
    assert engine is not None
    name = f"mlscale-check-{uuid.uuid4().hex[:12]}"
    words = _list_container_words(engine, base, [f"127.0.0.1:{port}:{REST_PORT}"])
    with start_process(
        [*words, "--name", name, image],
        client.is_ready,
        product=server.product,
        wait_s=wait_s,
        # A container outlives the command that started it, where that was killed.
        at_end=[engine, "rm", "-f", name],
    ):
        yield server


def require_model_server() -> None:
    """Raise an error if neither the binary nor a container engine is installed.

    Raises:
        MLScaleError: they are not (exit code 5).
    """
    if not any(map(shutil.which, (BINARY, *ENGINES))):
        raise MLScaleError(
            "TensorFlow Serving is not installed",
            where="check=server",
            why=f"neither {BINARY} nor {' nor '.join(ENGINES)} is on the PATH",
            fix="check=none\nelse install docker, or the package tensorflow-model-server: "
            "https://www.tensorflow.org/tfx/serving/setup",
            exit=Exit.ENVIRONMENT,
        )


def _read_product(engine: str | None, image: str) -> str:
    """Return the server's name and the version that it prints; over HTTP it states none.

    Raises:
        MLScaleError: it is not installed, nor a container engine (exit code 5).
    """
    command = [BINARY, "--version"]
    if shutil.which(BINARY) is None:
        require_model_server()
        assert engine is not None
        command = [engine, "run", "--rm", "--entrypoint", BINARY, image, "--version"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=_VERSION_S, check=False)
    match = re.search(r"ModelServer:\s*(\S+)", ran.stdout + ran.stderr)
    if ran.returncode and match is None:
        raise MLScaleError(
            "TensorFlow Serving can't be started",
            where="check=server",
            why=(ran.stderr or ran.stdout).strip()[-300:],
            fix=f"check=none\nelse make this work: {' '.join(command)}",
            exit=Exit.ENVIRONMENT,
        )
    return f"TensorFlow Serving {match[1]}" if match else "TensorFlow Serving"
