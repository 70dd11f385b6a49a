"""Clients of the server: one that sends samples and labels, and some that send throughout and check each answer."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import Exit, MLScaleError

# Of an answer at most; without a request until a connection is opened again; between two requests of a client.
_ANSWER_SECONDS, _IDLE_SECONDS, _PAUSE_SECONDS = 30.0, 10.0, 0.01
_PROBABILITY_TOLERANCE = 1e-3
"""The largest difference between a served probability and the version's own; JSON and other batches round."""


class ServedPredictions(NamedTuple):
    """The server's answer for n samples."""

    version: str
    labels: tuple[str, ...]
    probabilities: NDArray[np.float64]


class ServerClient:
    """One connection to the server.

    Args:
        url: http://host:port.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=_ANSWER_SECONDS)
        self._used = time.monotonic()

    def request_predictions(self, raw: NDArray[Any], id: str = "") -> ServedPredictions:
        """Send a batch, (n, …), under `id`, if given, and return the answer.

        Raises:
            MLScaleError: no answer, or none that holds a prediction for each sample.
        """
        headers = {"Content-Type": "application/octet-stream", **({"mlscale-id": id} if id else {})}
        document = self._send_post("/predict", np.ascontiguousarray(raw).tobytes(), headers)
        try:
            predictions = document["predictions"]
            labels = tuple(str(prediction["label"]) for prediction in predictions)
            answer = ServedPredictions(
                str(document["model_version"]),
                labels,
                np.array([prediction["probabilities"] for prediction in predictions]),
            )
            if len(labels) != len(raw):
                raise ValueError(f"{len(labels)} predictions for {len(raw)} samples")
        except (KeyError, TypeError, ValueError) as error:
            raise _make_no_answer_error("/predict", repr(error)) from error
        return answer

    def send_labels(self, ids: Sequence[str], labels: Sequence[str]) -> None:
        """Send the correct classes of the samples that were sent under `ids`."""
        pairs = [{"id": id, "label": label} for id, label in zip(ids, labels, strict=True)]
        self._send_post("/labels", json.dumps(pairs).encode(), {"Content-Type": "application/json"})

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _send_post(self, path: str, body: bytes, headers: dict[str, str]) -> Any:
        if time.monotonic() - self._used > _IDLE_SECONDS:  # the server closes what is idle; nothing is tried twice
            self._connection.close()
        self._used = time.monotonic()
        try:
            self._connection.request("POST", path, body, headers)
            response = self._connection.getresponse()
            content = response.read()
            document = json.loads(content) if content else {}
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._connection.close()  # the next request opens another one
            raise _make_no_answer_error(path, repr(error)) from error
        if not 200 <= response.status < 300:
            raise _make_no_answer_error(path, f"status {response.status}: {content[:200]!r}")
        return document


@dataclass
class ClientObservations:
    """The observations of clients that send requests throughout.

    Attributes:
        requests: the number sent.
        dropped: requests without an answer, or with an error for one: reasons.
        wrong: answers that differ from those of the version they name: descriptions.
        versions: answers by version.
        log: (seconds since the start, latency in ms, version) of each answer.
    """

    requests: int = 0
    dropped: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    versions: Counter[str] = field(default_factory=Counter)
    log: list[tuple[float, float, str]] = field(default_factory=list)


@contextmanager
def send_checked_requests(
    url: str, raw: NDArray[Any], expected: Callable[[str], NDArray[Any]], clients: int = 3
) -> Iterator[ClientObservations]:
    """Run clients that send one sample after the other, until the block ends, and check each answer.

    Args:
        url: of the server.
        raw: the samples, (n, …).
        expected: from a version to the probabilities that it gives for them, (n, classes); called once a version.
        clients: their number, each with a connection of its own.
    """
    seen, lock, over, begin = ClientObservations(), threading.Lock(), threading.Event(), time.monotonic()
    known: dict[str, NDArray[Any]] = {}

    def find_mismatch(answer: ServedPredictions, row: int) -> str:
        # Under the lock: several clients see a new version at the same moment, and loading it once is enough.
        with lock:
            if answer.version not in known:
                try:
                    known[answer.version] = expected(answer.version)
                except MLScaleError as error:
                    return f"{answer.version}: {error.what}"
            wanted = known[answer.version][row]
        off = float(np.abs(answer.probabilities[0] - wanted).max())
        # Negated, so that NaN counts as wrong.
        return f"{answer.version}: a probability is off by {off:.2g}" if not off <= _PROBABILITY_TOLERANCE else ""

    def send_until_over(first: int) -> None:
        client, row = ServerClient(url), first
        while not over.wait(_PAUSE_SECONDS):
            # Each client starts at another row and steps by their number, so that together they send all rows.
            row = (row + clients) % len(raw)
            start, problem = time.monotonic(), ""
            try:
                answer = client.request_predictions(raw[row : row + 1])
            except MLScaleError as error:
                with lock:
                    seen.requests += 1
                    seen.dropped.append(error.why)
                continue
            ms = 1000 * (time.monotonic() - start)
            problem = find_mismatch(answer, row)
            with lock:
                seen.requests += 1
                seen.versions[answer.version] += 1
                seen.log.append((start - begin, ms, answer.version))
                if problem:
                    seen.wrong.append(problem)
        client.close()

    threads = [
        threading.Thread(target=send_until_over, args=(i,), name=f"mlscale-client-{i}", daemon=True)
        for i in range(clients)
    ]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            # With a limit: a client may wait for an answer that does not come, and daemon threads end with the process.
            thread.join(2 * _ANSWER_SECONDS)


def _make_no_answer_error(path: str, why: str) -> MLScaleError:
    return MLScaleError(
        f"the server does not answer POST {path}",
        where="the server",
        why=why,
        exit=Exit.ENVIRONMENT,
        fix="read logs/serve.log in the run folder, then start the command again",
    )
