"""A real MLflow server on the loopback interface, in an environment of its own: `mlflow server` needs 850 MB that no
other part of mlscale does.

    python -m scripts.mlflow_server --folder /tmp/mlflow      # installs it once, prints the address, ends with Ctrl-C

The environment lies in `.ci/tools`, or where MLSCALE_TOOLS says.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

VERSION = "3.17.2"
_ROOT = Path(__file__).resolve().parents[1]
_READY_SECONDS, _END_SECONDS = 120, 20


@dataclass(frozen=True)
class Server:
    """A server that answers.

    Attributes:
        url: its address.
        process: leads a session of its own, with its workers.
    """

    url: str
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """End it at once, as a machine that loses its power."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(_END_SECONDS)


def installed() -> Path:
    """The Python of an environment that has MLflow; made on first use."""
    tools = Path(os.environ.get("MLSCALE_TOOLS") or _ROOT / ".ci/tools")
    folder = tools / f"mlflow-{VERSION}"
    python = folder / "bin/python"
    if not (folder / "complete").exists():
        venv.create(folder, with_pip=True, clear=True)
        words = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"mlflow=={VERSION}"]
        subprocess.run([python, *words], check=True)
        (folder / "complete").touch()
    return python


@contextlib.contextmanager
def serving(folder: Path, port: int | None = None) -> Iterator[Server]:
    """A server during the block, with its database and artifacts in `folder`.

    Raises:
        RuntimeError: it does not answer.
    """
    python, port = installed(), port or free_port()
    folder.mkdir(parents=True, exist_ok=True)
    command = [str(python), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "files"),
    ]
    home = {"HOME": str(folder), "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": ""}
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **home}, stdout=log, stderr=log, start_new_session=True
        )
    server = Server(f"http://127.0.0.1:{port}", process)
    try:
        _wait(server, folder / "server.log")
        yield server
    finally:
        server.kill()


def free_port() -> int:
    """A port that is free now: MLflow can't be told to take any."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(server: Server, log: Path) -> None:
    end = time.monotonic() + _READY_SECONDS
    while time.monotonic() < end and server.process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{server.url}/health", timeout=2) as answer:
            if answer.status == 200:
                return
        time.sleep(0.1)
    raise RuntimeError(f"mlflow server does not answer:\n{log.read_text()[-2000:]}")


def main() -> None:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.suppress(KeyboardInterrupt), serving(options.folder.absolute(), options.port) as server:
        print(server.url, flush=True)
        server.process.wait()


if __name__ == "__main__":
    main()
