"""Production, as a tour plays it: samples of the model's own data, a client that checks each answer, and an on-call."""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import Exit, MLScaleError
from mlscale.export.warmup.answer_comparison import AnswerComparison, answer_sample, iterate_numbers
from mlscale.export.warmup.warmup_requests import WarmupRequest, WarmupRequests
from mlscale.loadtest.build_requests import LoadRequest, build_requests
from mlscale.loadtest.load_samples import RequestSamples
from mlscale.loadtest.server_metadata import Credentials, request_model_metadata, send_once

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.data.data_module import OrderedData
    from mlscale.export.servable import Servable

_MAX_HELD_OUT, _BATCH = 2000, 256
_ANSWER_SECONDS, _PAUSE_SECONDS = 30.0, 0.01  # of an answer at most; between two requests
_LABELS = 200  # of a request: masks are long
_TOLERANCE = 1e-3  # of a number, as a share of the largest one at its place: JSON and other batches round
_MAX_ALERT_BYTES = 1 << 20
_FORMS: Mapping[str, Any] = {"table": "row", "text": "text", "document": "text"}


class LabelledSamples(NamedTuple):
    """n samples with their truth.

    Attributes:
        raw: as a client sends them: rows by column, texts and image files as bytes, images as arrays.
        truth: in the form of the task type, n first: class numbers, labels (n, k), masks (n, h, w), numbers
            (n, targets); zeros where samples have no labels.
    """

    raw: Sequence[Any]
    truth: NDArray[Any]

    def iterate_batches(self) -> Iterator[tuple[Sequence[Any], NDArray[Any]]]:
        """Yield raw samples and their truth, a few hundred at once: decoded images need memory."""
        for start in range(0, len(self.raw), _BATCH):
            yield self.raw[start : start + _BATCH], self.truth[start : start + _BATCH]


def build_prepared_data(cfg: DictConfig) -> OrderedData:
    """Return the config's data module, with its splits opened."""
    from mlscale.assembly.run_parts import build_data
    from mlscale.config.composition.frozen import add_derived
    from mlscale.data.data_module import OrderedData

    data = build_data(add_derived(cfg, {"per_device_batch": 1}))
    assert isinstance(data, OrderedData)  # checked before the first step
    data.prepare_data()
    data.setup("validate")
    return data


def load_samples(cfg: DictConfig, servable: Servable, traffic: int) -> tuple[LabelledSamples, LabelledSamples]:
    """Return samples of the config's data that the model takes: training samples, which production sends shifted and
    the retraining learns from; and validation samples, of which the shifted ones are never trained on.

    Args:
        cfg: of a training run.
        servable: the model; classes are numbered alike.
        traffic: how many training samples, at most.
    """
    data = build_prepared_data(cfg)
    return _read_samples(data, "train", traffic, servable), _read_samples(data, "val", _MAX_HELD_OUT, servable)


def _read_samples(data: OrderedData, split: str, most: int, servable: Servable) -> LabelledSamples:
    from mlscale.retrain.gate_samples import list_usable_rows, read_rows

    rows = list_usable_rows(data, split)
    chosen = rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(np.int64))]
    # Data sets are often sorted by class, and production is not; the same order every time.
    raw, truth = read_rows(data, split, np.random.default_rng(0).permutation(chosen))
    if not servable.task_type.needs_label:
        truth = np.zeros(len(raw), np.int64)
    # What training skips as corrupt would be refused by the server, too.
    bad = servable.pack_samples(raw).bad
    taken = [number for number in range(len(raw)) if number not in bad]
    return LabelledSamples([raw[number] for number in taken], truth[taken])


@dataclass
class CheckedClient:
    """A client that sends samples, one request each, and compares every answer with that of the version it names.

    Attributes:
        url: of the server.
        raw: the samples.
        load: from a version to its servable, which computes the expected answers without HTTP and other batches.
        servable: any version, for the form of requests.
        dropped: requests without an answer, or with an error for one: reasons.
        wrong: answers that differ from those of the version they name: descriptions.
        versions: answers by version.
        largest: difference of a number, in its own units.
    """

    url: str
    raw: Sequence[Any]
    load: Callable[[str], Servable]
    servable: Servable
    dropped: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    versions: Counter[str] = field(default_factory=Counter)
    largest: float = 0.0
    _id: str = field(default_factory=lambda: secrets.token_hex(8))
    _known: dict[str, tuple[AnswerComparison, list[Any]]] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        """The number of requests."""
        return len(self.dropped) + sum(self.versions.values())

    @property
    def problems(self) -> list[str]:
        """Requests without an answer, and wrong answers."""
        return self.dropped + self.wrong

    def send_all(self) -> None:
        """Send each sample once, under an id by which its label can follow."""
        for row, request in enumerate(self._build_requests()):
            self._send_sample(replace(request, headers={**request.headers, "mlscale-id": f"{self._id}-{row}"}), row)

    @contextlib.contextmanager
    def keep_sending(self) -> Iterator[None]:
        """Send one sample after the other until the block ends."""
        requests, over = self._build_requests(), threading.Event()

        def send_until_over() -> None:
            number = 0
            while not over.wait(_PAUSE_SECONDS):
                row = number % len(requests)
                self._send_sample(requests[row], row)
                number += 1

        thread = threading.Thread(target=send_until_over, name="mlscale-client", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            # With a limit: it may wait for an answer that does not come, and daemon threads end with the process.
            thread.join(2 * _ANSWER_SECONDS)

    def send_labels(self, labels: Sequence[Any], first: int) -> None:
        """Send the labels of the samples from number `first` on, which `send_all` has sent.

        Raises:
            MLScaleError: the server does not take them.
        """
        pairs = [{"id": f"{self._id}-{first + number}", "label": label} for number, label in enumerate(labels)]
        for start in range(0, len(pairs), _LABELS):
            body = json.dumps(pairs[start : start + _LABELS]).encode()
            request = LoadRequest("/labels", {"Content-Type": "application/json"}, body, 1, None)
            answer = send_once(self.url, request, Credentials(), _ANSWER_SECONDS)
            if answer is None or not 200 <= answer[0] < 300:
                raise MLScaleError(
                    "the server does not take labels",
                    where="POST /labels",
                    why=str(answer),
                    exit=Exit.ENVIRONMENT,
                    fix="read logs/serve.log in the run folder, then start the command again",
                )

    def _build_requests(self) -> list[LoadRequest]:
        form = _FORMS.get(self.servable.encoder.kind, "image" if isinstance(self.raw[0], bytes) else "")
        tensors = {} if form else {self.servable.input.name: np.stack(list(self.raw))}
        samples = RequestSamples("", tensors, raw=self.raw if form else (), form=form)
        return build_requests("raw" if form else "bytes", samples, request_model_metadata(self.url), 1)

    def _send_sample(self, request: LoadRequest, row: int) -> None:
        response = send_once(self.url, request, Credentials(), _ANSWER_SECONDS)
        if response is None or response[0] != 200:
            self.dropped.append(f"status {response[0]}: {response[2][:200]!r}" if response else "no answer")
            return
        document = json.loads(response[2])
        version, (prediction,) = str(document["model_version"]), document["predictions"]
        self.versions[version] += 1
        try:
            problem = self._find_problem(version, {k: v for k, v in prediction.items() if k != "id"}, row)
        except MLScaleError as error:
            problem = error.what
        if problem:
            self.wrong.append(f"{version}: {problem}")

    def _find_problem(self, version: str, answer: Mapping[str, Any], row: int) -> str:
        """Return how an answer differs from that of its version to the sample of this row; '' where it does not."""
        if version not in self._known:
            servable = self.load(version)
            answers: list[Any] = [answer_sample(servable, sample) for sample in self.raw]
            requests = [WarmupRequest("", sample, known) for sample, known in zip(self.raw, answers, strict=True)]
            self._known[version] = AnswerComparison(servable, WarmupRequests(tuple(requests), _TOLERANCE)), answers
        comparison, answers = self._known[version]
        pairs = zip(iterate_numbers(answer), iterate_numbers(answers[row]), strict=False)
        self.largest = max([self.largest, *(abs(given - wanted) for (_, given), (_, wanted) in pairs)])
        return comparison.find_difference(answer, answers[row])


@contextlib.contextmanager
def receive_alerts() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Run a web server that receives alerts, as a chat or a pager would; yield its URL and the alerts that arrive."""
    alerts: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Print nothing: the default prints each request in the middle of the tour's output."""

        def do_POST(self) -> None:
            # Bounded: a request with a huge length must not fill the memory.
            alerts.append(json.loads(self.rfile.read(min(_MAX_ALERT_BYTES, int(self.headers["Content-Length"])))))
            self.send_response(204)
            self.end_headers()

    # Port 0: the system chooses a free one. Only this machine can reach it.
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), name="mlscale-alerts", daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/alerts", alerts
        finally:
            server.shutdown()
