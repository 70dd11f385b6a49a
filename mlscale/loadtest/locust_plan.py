"""The locustfile: users that send one request after the other, and record the results.

`MLSCALE_LOADTEST` names a JSON file with the fields of `mlscale.loadtest.locust_process.LoadPlan`. Only Locust
imports it.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gevent
from locust import FastHttpUser, events, task

from mlscale.atomic_files import write_text
from mlscale.loadtest.build_requests import LoadRequest, build_requests
from mlscale.loadtest.client_calibration import start_empty_server
from mlscale.loadtest.client_load import read_usage
from mlscale.loadtest.load_outcome import LoadOutcome, read_server_time
from mlscale.loadtest.load_samples import read_request_samples
from mlscale.loadtest.parse_responses import InvalidResponse, parse_response
from mlscale.loadtest.random_samples import generate_samples
from mlscale.loadtest.server_metadata import Credentials
from mlscale.loadtest.server_model import ServerModel

SETTINGS: dict[str, Any] = json.loads(Path(os.environ["MLSCALE_LOADTEST"]).read_text(encoding="utf-8"))
MODEL = ServerModel.from_document(SETTINGS["model"])
CREDENTIALS = Credentials(os.environ.get("MLSCALE_LOADTEST_KEY"), SETTINGS["ca_file"])
_TICK_S = 0.01
"""Seconds between two measurements of the event loop's lag."""


def _build_all_requests() -> list[LoadRequest]:
    path, protocol = SETTINGS["samples"], SETTINGS["protocol"]
    member = SETTINGS["member"]
    samples = read_request_samples(Path(path), MODEL, member) if path else generate_samples(MODEL, protocol)
    return build_requests(protocol, samples, MODEL, SETTINGS["batch"])


@dataclass
class Phase:
    """A phase of the test: requests to one server. Those that begin from `opened` to `closed` (monotonic clock) count.

    Attributes:
        base: the URL before the path; "" for the server that is tested.
        headers: added to each request, for authentication.
    """

    base: str
    headers: dict[str, str] = field(default_factory=dict)
    outcome: LoadOutcome = field(default_factory=LoadOutcome)
    opened: float = float("inf")
    closed: float = float("inf")

    def is_counted(self, began: float) -> bool:
        """Return whether a request that began at this time counts."""
        return self.opened <= began < self.closed

    def let_users_send(self, seconds: float) -> None:
        """Let the users send requests for so many seconds, or until the test is ended early."""
        end = time.perf_counter() + seconds
        while time.perf_counter() < end and not Path(SETTINGS["end"]).exists():
            gevent.sleep(min(0.05, seconds / 20))

    def measure_requests(self, seconds: float) -> None:
        """Count the requests of so many seconds."""
        self.opened = time.perf_counter()
        self.let_users_send(seconds)
        self.closed = time.perf_counter()
        self.outcome.seconds = self.closed - self.opened


# Encoded before the test: the time would count as the client's.
ALL_REQUESTS = _build_all_requests()
REQUESTS = itertools.cycle(ALL_REQUESTS)
# Started here, before Locust spawns users: the calibration is the first phase.
STARTED = start_empty_server(
    ALL_REQUESTS[0], SETTINGS["url"], CREDENTIALS, SETTINGS["timeout_s"], Path(SETTINGS["outcome"]).with_name("answer")
)
SERVER = Phase("", CREDENTIALS.headers)
EMPTY = Phase(STARTED[1]) if STARTED else None


class LoadTestUser(FastHttpUser):
    """A user that sends a request, waits for the answer, and repeats: at once, or at a steady rate."""

    connection_timeout = network_timeout = SETTINGS["timeout_s"]
    insecure, ssl_context_factory = False, staticmethod(CREDENTIALS.create_tls_context)
    max_retries = max_redirects = 0  # an answer that needs a retry is a failure

    # Of the class, so that a change of phase reaches all users at once.
    phase = EMPTY or SERVER
    numbers = itertools.count()
    _due = 0.0

    def on_start(self) -> None:
        """Wait until the first request is due: those of an open loop are evenly spread over all users."""
        if SETTINGS["rate"]:
            ahead = next(self.numbers) / SETTINGS["rate"]
            self._due = time.perf_counter() + ahead
            gevent.sleep(ahead)

    def wait_time(self) -> float:
        """Return the seconds until the next request is due: 0 after a late answer, and the next ones stay as they were.

        By `constant_throughput` of Locust, users that once had to wait together would send together from then on.
        """
        if not SETTINGS["rate"]:
            return 0.0
        period, now = SETTINGS["users"] / SETTINGS["rate"], time.perf_counter()
        self._due += period
        self._due += period * max(0, int((now - self._due) / period))  # requests that were missed are left out
        return max(0.0, self._due - now)

    @task
    def send_request(self) -> None:
        """Send one request; no answer of a server ends the user."""
        # Bound before the request: its answer belongs to the phase in which it was sent.
        request, phase = next(REQUESTS), LoadTestUser.phase
        began = time.perf_counter()
        sent: dict[str, Any] = {"data": request.body, "headers": {**request.headers, **phase.headers}}
        with self.client.post(phase.base + request.path, catch_response=True, **sent) as response:
            ms = 1000 * (time.perf_counter() - began)
            status, headers, body = response.status_code, response.headers or {}, response.content or b""
            try:
                answer = parse_response(SETTINGS["protocol"], request, status, headers, body, MODEL.classes)
                server_time = read_server_time(headers)
            except InvalidResponse as wrong:
                why = str(wrong) if status else _describe_absence(response.error)
                response.failure(why)
                if phase.is_counted(began):
                    phase.outcome.record_failure(why)
            else:
                response.success()
                if phase.is_counted(began):
                    phase.outcome.record_answer(
                        ms, answer.version, request.count, answer.labels, request.labels, server_time
                    )
                    _note_first_answer(phase)


def _describe_absence(error: Exception | None) -> str:
    if "timed out" in str(error):
        return f"no answer within timeout_s={SETTINGS['timeout_s']:g}"
    return f"no answer: {type(error).__name__} {error}"[:200]


def _note_first_answer(phase: Phase) -> None:
    """Create the file that shows that the first measured request was answered."""
    # Of the server alone: the calibration has an empty one. The file is created once, as answers come by the thousand.
    if phase is SERVER and SETTINGS["ready_file"] and phase.outcome.latencies.count == 1:
        Path(SETTINGS["ready_file"]).touch()


def _run_phases() -> None:
    """Calibrate, warm up, measure. Locust then waits for open requests (--stop-timeout)."""
    client = SERVER.outcome.client
    if EMPTY:
        # A quarter of it first, as warm-up: connections are opened, code is loaded.
        EMPTY.let_users_send(SETTINGS["calibration_s"] / 4)
        EMPTY.measure_requests(SETTINGS["calibration_s"])
        client.empty, client.empty_requests_per_s = EMPTY.outcome.latencies, EMPTY.outcome.requests_per_s
        LoadTestUser.phase = SERVER
    SERVER.let_users_send(SETTINGS["warmup_s"])
    watch = gevent.spawn(_watch_lag)
    cpu_s, wait_s = read_usage()
    SERVER.measure_requests(SETTINGS["seconds"])
    now_cpu_s, now_wait_s = read_usage()
    client.cpu_s, client.wait_s = now_cpu_s - cpu_s, now_wait_s - wait_s
    watch.kill()


def _watch_lag() -> None:
    """Record how much later than requested this greenlet is resumed: one that waits for an answer is as late."""
    while True:
        began = time.perf_counter()
        gevent.sleep(_TICK_S)
        SERVER.outcome.client.lag.add_latency(max(0.0, 1000 * (time.perf_counter() - began - _TICK_S)))


def _schedule_phases(environment: Any, **_: object) -> None:
    def run_and_quit() -> None:
        _run_phases()
        environment.runner.quit()

    # Only once all users run: a ramp-up would be part of the measurement.
    environment.events.spawning_complete.add_listener(lambda **_: gevent.spawn(run_and_quit))


def _write_outcome(**_: object) -> None:
    if STARTED:
        STARTED[0].kill()
    outcome = SERVER.outcome
    if outcome.seconds == 0 and SERVER.opened < float("inf"):  # ended by a signal
        outcome.seconds = time.perf_counter() - SERVER.opened
    write_text(Path(SETTINGS["outcome"]), json.dumps(outcome, default=vars))


for hook, listener in ((events.init, _schedule_phases), (events.quit, _write_outcome)):
    hook.add_listener(listener)  # type: ignore[no-untyped-call]
