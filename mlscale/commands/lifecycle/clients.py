"""Clients of the server: one that sends samples and labels, and some that send throughout and check each answer."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from mlscale.errors import Exit, MLScaleError
from mlscale.loadtest.build_requests import LoadRequest

# Of an answer at most; without a request until a connection is opened again; between two requests of a client.
_ANSWER_SECONDS, _IDLE_SECONDS, _PAUSE_SECONDS = 30.0, 10.0, 0.01
_LABELS = 200  # labels of a request: masks are long


class AnswerCheck(Protocol):
    """The check of a version's answers."""

    def find_problem(self, answer: Mapping[str, Any], row: int) -> str:
        """Return how an answer differs from that to the sample of this row; '' where it does not."""


class ServedAnswer(NamedTuple):
    """The server's answer for one sample.

    Attributes:
        version: that computed it.
        answer: as `TaskType.build_answers` gives it.
    """

    version: str
    answer: dict[str, Any]


class ServerClient:
    """One connection to the server.

    Args:
        url: http://host:port.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=_ANSWER_SECONDS)
        self._used = time.monotonic()

    def request_prediction(self, request: LoadRequest, id: str = "") -> ServedAnswer:
        """Send a request of one sample, under `id`, if given, and return the answer.

        Raises:
            MLScaleError: no answer, or none that holds a prediction.
        """
        headers = {**request.headers, **({"mlscale-id": id} if id else {})}
        document = self._send_post(request.path, request.body, headers)
        try:
            (prediction,) = document["predictions"]
            answer = {name: value for name, value in prediction.items() if name != "id"}
            return ServedAnswer(str(document["model_version"]), answer)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise _make_no_answer_error(request.path, repr(error)) from error

    def send_labels(self, ids: Sequence[str], labels: Sequence[Any]) -> None:
        """Send the labels of the samples that were sent under `ids`."""
        pairs = [{"id": id, "label": label} for id, label in zip(ids, labels, strict=True)]
        for start in range(0, len(pairs), _LABELS):
            body = json.dumps(pairs[start : start + _LABELS]).encode()
            self._send_post("/labels", body, {"Content-Type": "application/json"})

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
    url: str, requests: Sequence[LoadRequest], expect: Callable[[str], AnswerCheck], clients: int = 3
) -> Iterator[ClientObservations]:
    """Run clients that send one sample after the other, until the block ends, and check each answer.

    Args:
        url: of the server.
        requests: of one sample each.
        expect: from a version to the check of its answers; called once a version.
        clients: their number, each with a connection of its own.
    """
    seen, lock, over, begin = ClientObservations(), threading.Lock(), threading.Event(), time.monotonic()
    known: dict[str, AnswerCheck] = {}

    def find_mismatch(served: ServedAnswer, row: int) -> str:
        # Under the lock: several clients see a new version at the same moment, and loading it once is enough.
        with lock:
            if served.version not in known:
                try:
                    known[served.version] = expect(served.version)
                except MLScaleError as error:
                    return f"{served.version}: {error.what}"
        problem = known[served.version].find_problem(served.answer, row)
        return f"{served.version}: {problem}" if problem else ""

    def send_until_over(first: int) -> None:
        client, row = ServerClient(url), first
        while not over.wait(_PAUSE_SECONDS):
            # Each client starts at another row and steps by their number, so that together they send all rows.
            row = (row + clients) % len(requests)
            start, problem = time.monotonic(), ""
            try:
                answer = client.request_prediction(requests[row])
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
