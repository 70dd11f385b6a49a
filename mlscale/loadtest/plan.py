"""The file that Locust is given: users that ask one question after the other, and write down what comes back.

`MLSCALE_LOADTEST` names a JSON file with the fields of `mlscale.loadtest.drive.Plan`. Imported by Locust alone.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import gevent
from locust import FastHttpUser, constant, constant_throughput, events, task

from mlscale.loadtest.outcome import Outcome
from mlscale.loadtest.questions import Question, Wrong, question, read
from mlscale.loadtest.samples import Samples, random_of
from mlscale.loadtest.samples import read as read_samples
from mlscale.loadtest.server import Credentials, Model
from mlscale.runs.files import write_json

SETTINGS: dict[str, Any] = json.loads(Path(os.environ["MLSCALE_LOADTEST"]).read_text(encoding="utf-8"))
MODEL = Model(**{**SETTINGS["model"], "shape": tuple(SETTINGS["model"]["shape"])})
CREDENTIALS = Credentials(os.environ.get("MLSCALE_LOADTEST_KEY"), SETTINGS["ca_file"])
OUTCOME = Outcome()


def _questions() -> list[Question]:
    """All that is asked, in turn: batches of the samples, which begin again where they end."""
    path = SETTINGS["samples"]
    samples: Samples = read_samples(Path(path), MODEL) if path else random_of(MODEL)
    size, count = SETTINGS["batch"], len(samples.raw)
    batches = [[(start + i) % count for i in range(size)] for start in range(0, count, size)]
    return [
        question(
            SETTINGS["protocol"],
            samples.raw[batch],
            model=MODEL.name,
            input=MODEL.input,
            labels=tuple(samples.labels[i] for i in batch) if samples.labels else None,
        )
        for batch in batches
    ]


QUESTIONS = itertools.cycle(_questions())


class Window:
    """What counts: requests that begin between `open` and `close`, by the monotonic clock."""

    opened = closed = float("inf")

    @classmethod
    def holds(cls, began: float) -> bool:
        """Whether a request that began then counts."""
        return cls.opened <= began < cls.closed


class Client(FastHttpUser):
    """Asks, waits for the answer, and asks again: at once, or at a steady pace."""

    wait_time = constant_throughput(SETTINGS["rate"] / SETTINGS["users"]) if SETTINGS["rate"] else constant(0)
    connection_timeout = network_timeout = SETTINGS["timeout_s"]
    insecure, ssl_context_factory = False, staticmethod(CREDENTIALS.context)
    max_retries = max_redirects = 0  # an answer that needs a second try is a failure

    @task
    def ask(self) -> None:
        """One request; nothing that a server may answer ends the user."""
        asked = next(QUESTIONS)
        began = time.perf_counter()
        sent: dict[str, Any] = {
            "data": asked.body,
            "headers": {**asked.headers, **CREDENTIALS.headers},
            "catch_response": True,
        }
        with self.client.post(asked.path, **sent) as response:
            ms = 1000 * (time.perf_counter() - began)
            status, headers, body = response.status_code, response.headers or {}, response.content or b""
            try:
                said = read(SETTINGS["protocol"], asked, status, headers, body, MODEL.classes)
            except Wrong as wrong:
                why = str(wrong) if status else f"no answer: {type(response.error).__name__} {response.error}"[:200]
                response.failure(why)
                if Window.holds(began):
                    OUTCOME.failed(why)
            else:
                response.success()
                if Window.holds(began):
                    OUTCOME.answered(ms, said.version, asked.count, said.labels, asked.labels)


def _schedule(environment: Any, **_: Any) -> None:
    """When all users ask: warm up, measure, end. What was asked by then is waited for (--stop-timeout)."""

    def measure() -> None:
        gevent.sleep(SETTINGS["warmup_s"])
        Window.opened = time.perf_counter()
        while time.perf_counter() < Window.opened + SETTINGS["seconds"] and not Path(SETTINGS["end"]).exists():
            gevent.sleep(min(0.05, SETTINGS["seconds"] / 20))
        Window.closed = time.perf_counter()
        environment.runner.quit()

    environment.events.spawning_complete.add_listener(lambda **_: gevent.spawn(measure))


def _write(**_: Any) -> None:
    if Window.opened < float("inf"):
        OUTCOME.seconds = min(time.perf_counter(), Window.closed) - Window.opened
    write_json(Path(SETTINGS["outcome"]), OUTCOME.as_dict())


for hook, listener in ((events.init, _schedule), (events.quit, _write)):
    hook.add_listener(listener)  # type: ignore[no-untyped-call]
