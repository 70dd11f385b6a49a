"""Runs Locust in a process of its own, with a deadline."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mlscale.atomic_files import read_json, write_json
from mlscale.errors import Exit, MLScaleError
from mlscale.file_locks import make_scratch_folder
from mlscale.loadtest.load_outcome import LoadOutcome
from mlscale.loadtest.server_metadata import Credentials
from mlscale.loadtest.server_model import ServerModel
from mlscale.runs.host.supervised_process import start_supervised

_START_SECONDS, _GRACE_SECONDS = 60.0, 5.0
"""Seconds that Locust may take to start on a busy machine, and to end after a signal."""
_CALIBRATION_S = 1.0
"""The longest calibration with an empty server, in seconds; a quarter of it is added as warm-up."""


@dataclass(frozen=True)
class LoadPlan:
    """The plan of a load test.

    Attributes:
        url: http://host:port.
        model: the model that is requested.
        users: concurrent users, each of which sends one request after the other.
        rate: requests per second of all users together (open loop); None: as fast as answers arrive (closed loop).
        seconds: the measured time.
        warmup_s: seconds before that, which do not count.
        timeout_s: the longest time of an answer, in seconds.
        protocol: see `build_requests.build_requests`.
        batch: samples in a request.
        samples: a file or folder, see `load_samples.read_request_samples`; None for random ones.
        member: the column of a table's texts; None finds it.
        credentials: for the server.
        ready_file: is created once the first measured request was answered; None for no file.
    """

    url: str
    model: ServerModel
    users: int = 8
    rate: float | None = None
    seconds: float = 10.0
    warmup_s: float = 2.0
    timeout_s: float = 10.0
    protocol: str = "bytes"
    batch: int = 1
    samples: str | None = None
    member: str | None = None
    credentials: Credentials = field(default_factory=Credentials)
    ready_file: str | None = None

    @property
    def calibration_s(self) -> float:
        """Seconds of the calibration with an empty server before the test."""
        return min(_CALIBRATION_S, self.seconds / 4)


def run_locust(plan: LoadPlan) -> LoadOutcome:
    """Run Locust as planned, and wait for it: calibration, warm-up, measurement, open requests, and a minute to start.

    SIGUSR1 ends the measurement early; the requests so far count.

    Raises:
        MLScaleError: Locust ended without an outcome, or not at all (exit code 5); the error has its last lines.
    """
    deadline = _START_SECONDS + 2 * plan.calibration_s + plan.warmup_s + plan.seconds + 2 * plan.timeout_s
    deadline += _GRACE_SECONDS
    with make_scratch_folder("loadtest") as scratch:
        names = ("plan.json", "outcome.json", "end", "locust.log")
        settings, outcome, end, log = (scratch / name for name in names)
        document = {**asdict(plan), "calibration_s": plan.calibration_s, "outcome": str(outcome), "end": str(end)}
        del document["credentials"]  # secrets must not be in a file
        write_json(settings, {**document, "ca_file": plan.credentials.ca_file})
        started = _start_locust(_build_command(plan), settings, log, plan.credentials.key)
        with _end_on_signal(end), started as process:
            try:
                code = process.wait(deadline)
            except subprocess.TimeoutExpired as error:
                raise _build_locust_error(f"Locust has not come to an end in {deadline:.0f} s", log) from error
        if code or not outcome.exists():
            raise _build_locust_error(f"Locust ended with exit code {code}" + ("" if code else ", and no outcome"), log)
        return LoadOutcome.from_document(read_json(outcome))


def _build_command(plan: LoadPlan) -> list[str]:
    # The plan ends the test; this run time is for the case that it does not.
    backstop = math.ceil(_START_SECONDS + 2 * plan.calibration_s + plan.warmup_s + plan.seconds)
    return [
        *(sys.executable, "-m", "locust", "--locustfile", str(Path(__file__).with_name("locust_plan.py"))),
        # Exit code 0 although requests failed: that is for the objective to judge. Without this option any failure
        # gives 1.
        *("--headless", "--only-summary", "--loglevel", "WARNING", "--exit-code-on-error", "0"),
        *("--host", plan.url.rstrip("/"), "--users", str(plan.users), "--spawn-rate", str(plan.users)),
        *("--run-time", f"{backstop}s", "--stop-timeout", str(math.ceil(plan.timeout_s) + 1)),
    ]


@contextlib.contextmanager
def _end_on_signal(end: Path) -> Iterator[None]:
    """Let SIGUSR1 create the file that ends the measurement, inside the block."""
    if threading.current_thread() is not threading.main_thread():  # Python only allows handlers in the main thread
        yield
        return
    # Only a file is created here: gevent's loop is in the other process, and polls for it.
    before = signal.signal(signal.SIGUSR1, lambda *_: end.touch())
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


@contextlib.contextmanager
def _start_locust(command: list[str], settings: Path, log: Path, key: str | None) -> Iterator[subprocess.Popen[bytes]]:
    """Yield the process, in a session of its own; at the end of the block no process of the session is left."""
    # Locust reads settings from LOCUST_* and from a locust.conf in the working folder: this test uses neither.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
    environment |= {"MLSCALE_LOADTEST": str(settings), "PYTHONPATH": os.pathsep.join(filter(None, map(str, sys.path)))}
    # An environment variable, not an argument: arguments are visible to all users of the machine.
    environment |= {"MLSCALE_LOADTEST_KEY": key} if key else {}
    with (
        log.open("wb") as output,
        start_supervised(
            command, grace_s=_GRACE_SECONDS, output=output, environment=environment, folder=settings.parent
        ) as process,
    ):
        yield process


def _build_locust_error(what: str, log: Path) -> MLScaleError:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return MLScaleError(
        what,
        where="Locust",
        why=" | ".join(lines[-3:])[-400:],
        fix="pip install --upgrade 'mlscale[loadtest]'\nusers=1",
        exit=Exit.ENVIRONMENT,
    )
