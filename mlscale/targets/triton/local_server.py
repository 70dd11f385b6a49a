"""Install a real Triton server by pip alone, and start it for a model repository.

    python -m mlscale.targets.triton.local_server install triton-server
    python -m mlscale.targets.triton.local_server start triton-server servable/targets/triton

It runs on a CPU, with the Python backend; ONNX models are computed by a backend in Python, where the server's own
containers have one in C++. With MLSCALE_TRITON=triton-server, `mlscale export target=triton check=server` uses it.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from mlscale.errors import MLScaleError
from mlscale.targets.triton.install_server import VARIABLE, install_server
from mlscale.targets.triton.running_server import find_server_command, link_repository, run_triton


def main(arguments: list[str]) -> int:
    """Run a step; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m mlscale.targets.triton.local_server",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    steps = parser.add_subparsers(dest="step", required=True)
    install = steps.add_parser("install", help="install the server into a folder")
    install.add_argument("folder", type=Path)
    start = steps.add_parser("start", help="serve a repository until Ctrl-C")
    start.add_argument("folder", type=Path, help="where it is installed")
    start.add_argument("repository", type=Path, help="targets/triton of a servable")
    given = parser.parse_args(arguments)
    try:
        if given.step == "install":
            begin = time.monotonic()
            installed = install_server(given.folder)
            print(f"installed in {time.monotonic() - begin:.0f} s: export {VARIABLE}={installed.folder}")
        else:
            _serve_repository(given.folder, given.repository)
    except MLScaleError as error:
        print(f"{error.what}: {error.why}\nfix: {error.fix}", file=sys.stderr)
        return int(error.exit)
    except KeyboardInterrupt:
        print("stopped")
    return 0


def _serve_repository(folder: Path, repository: Path) -> None:
    # As Ctrl-C does: the server would run on without this process.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # The image is of no use: the folder of a server is given.
    with (
        link_repository(repository) as path,
        run_triton(find_server_command(path, image="", server=str(folder))) as command,
    ):
        print(f"ready: {command.url}, gRPC at 127.0.0.1:{command.ports['grpc']}", flush=True)
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
