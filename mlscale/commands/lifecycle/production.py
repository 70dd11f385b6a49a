"""Production, as a tour plays it: labelled samples of the model's own data, a change of them, and a client that checks
each answer."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import re
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlscale.assembly.run_data import RunData
from mlscale.config.metric_choice import resolve_configured_type
from mlscale.data.data_module import OrderedData
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.data.encoders.table_columns import NumberColumn
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.errors import MLScaleError
from mlscale.export.warmup.answer_comparison import AnswerComparison, answer_sample
from mlscale.export.warmup.warmup_requests import WarmupRequest, WarmupRequests
from mlscale.loadtest.build_requests import LoadRequest, build_requests
from mlscale.loadtest.load_samples import RequestSamples
from mlscale.loadtest.server_metadata import Credentials, request_model_metadata, send_once
from mlscale.report import format_number
from mlscale.retrain.gate.overall_change import OverallChange, compare_overall
from mlscale.retrain.gate.paired_columns import collect_paired_columns
from mlscale.retrain.gate_samples import list_usable_rows, read_rows

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.data.encoders.encoder import Encoder
    from mlscale.export.servable import Servable

_MAX_HELD_OUT, _BATCH, _TRIED = 2000, 256, 300  # validation samples; of a batch; on which each column is tried
_ANSWER_SECONDS, _PAUSE_SECONDS = 30.0, 0.01  # of an answer at most; between two requests
_LABELS = 200  # of a request: masks are long
ALPHA = 0.05  # of every comparison
_FLIP_TOLERANCE = 0.1  # of flips, which are not shown here
_TOLERANCE = 1e-3  # of a number, as a share of the largest one at its place: JSON and other batches round
_FORMS: Mapping[str, Any] = {"table": "row", "text": "text", "document": "text"}
_WORD = re.compile(rb"[A-Za-z]{3,}")  # shorter words are mostly those of grammar, which domains share
_LETTERS = bytes.maketrans(
    b"aeiouAEIOUbcdfghjklmnpqrstvwxyzBCDFGHJKLMNPQRSTVWXYZ", b"iouaeIOUAEnpqrstvwxyzbcdfghjklmNPQRSTVWXYZBCDFGHJKLM"
)
_MIN_SAMPLES = 300
"""A retraining needs 200 different samples (`window.min_samples`), and a part of them is held out."""


def check_lifecycle(cfg: DictConfig) -> None:
    """Check what would be found after minutes: that the tour can send the model's samples, and retrain on them.

    Raises:
        MLScaleError: it can't.
    """
    if not cfg.get("registry"):
        raise MLScaleError("the tour needs a registry", where="registry", fix="registry=local")
    data = RunData().prepare_module(cfg) if resolve_configured_type(cfg) else None
    is_known = isinstance(data, OrderedData) and data.takes_windows and list_input_shifts(data.encoder())
    if data is None or not is_known or min(data.facts().train_samples, cfg.lifecycle.traffic) < _MIN_SAMPLES:
        raise MLScaleError(
            f"the tour needs a built-in task type, and {_MIN_SAMPLES} images, rows with a column of numbers, or texts",
            where="data, task, lifecycle.traffic",
            why="it sends training samples in raw form, changed, by mlscale's own data modules, and retrains on them",
            fix="data=table, data=text_table, data=text_files, data=webdataset; lifecycle.traffic=700",
        )


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

    def select_first(self, most: int) -> LabelledSamples:
        """Return the first samples."""
        return LabelledSamples(self.raw[:most], self.truth[:most])


class Shift(NamedTuple):
    """A change of production: in words, and from a raw sample to that after it."""

    description: str
    change_sample: Callable[[Any], Any]

    def apply_to(self, samples: LabelledSamples) -> LabelledSamples:
        """Return the samples after the change."""
        return LabelledSamples([self.change_sample(sample) for sample in samples.raw], samples.truth)


def load_samples(cfg: DictConfig, servable: Servable, traffic: int) -> tuple[LabelledSamples, LabelledSamples]:
    """Return samples of the config's data that the model takes: training samples, which production sends shifted and
    the retraining learns from; and validation samples, of which the shifted ones are never trained on.

    Args:
        cfg: of a training run.
        servable: the model; classes are numbered alike.
        traffic: how many training samples, at most.
    """
    data = RunData().prepare_module(cfg)
    assert isinstance(data, OrderedData)  # checked before the first step
    data.setup("validate")
    return _read_samples(data, "train", traffic, servable), _read_samples(data, "val", _MAX_HELD_OUT, servable)


def _read_samples(data: OrderedData, split: str, most: int, servable: Servable) -> LabelledSamples:
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


def list_input_shifts(encoder: Encoder) -> list[Shift]:
    """Return the changes that a model's samples can have; empty for a table without numbers, and other samples."""
    if isinstance(encoder, ImageEncoder):
        return [Shift("pixels are inverted", partial(_invert_image, encoder=encoder))]
    if encoder.kind in ("text", "document"):
        return [Shift("all words are replaced by those of another domain", replace_words)]
    shifts = []
    for column in encoder.columns if isinstance(encoder, TableEncoder) else ():
        if isinstance(column, NumberColumn):
            # All values are outside of what training had: where the two overlap no model can know the difference.
            offset = 1.5 * (column.maximum - column.minimum) or 1.0
            move = partial(_move_zero, name=column.name, offset=offset)
            shifts.append(Shift(f"{column.name} has another zero, by {offset:g}", move))
    return shifts


def replace_words(text: bytes) -> bytes:
    """Return a text with made-up words that can be read, the same everywhere: vowels stay vowels."""
    return _WORD.sub(lambda word: word[0].translate(_LETTERS), text)


def choose_shift(servable: Servable, samples: LabelledSamples) -> Shift:
    """Return the change of a model's samples; of a table's columns that which makes the model worst.

    Args:
        servable: the model.
        samples: of its training data, labelled.
    """
    few, sign = samples.select_first(_TRIED), 1 if servable.task_type.score.higher_is_better else -1

    def compute_score(shift: Shift) -> float:
        columns = collect_paired_columns(servable, servable, shift.apply_to(few).iterate_batches())
        return np.inf if columns is None else sign * float(servable.task_type.score_samples(columns.first).mean())

    return min(list_input_shifts(servable.encoder), key=compute_score)


def _invert_image(raw: bytes | NDArray[Any], encoder: ImageEncoder) -> bytes | NDArray[Any]:
    """Return the negative of an image: of a file as another file of its own size, of an array as an array."""
    if not isinstance(raw, bytes):
        # Other dtypes have no fixed range: the largest value counts as white.
        return np.asarray((255 if raw.dtype == np.uint8 else raw.max()) - raw, raw.dtype)
    from PIL import Image

    from mlscale.data.decoding.image_decoder import decode_image

    # At its own size, not the model's: size and sharpness must not show that the tour has resized it.
    pixels = 255 - decode_image(raw, None, encoder.shape[0], max_pixels=encoder.max_pixels)
    file = io.BytesIO()
    Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(file, "PNG")
    return file.getvalue()


def _move_zero(row: Mapping[str, Any], name: str, offset: float) -> Mapping[str, Any]:
    # A missing value stays missing.
    return row if row[name] is None else {**row, name: float(row[name]) + offset}


def compare_sides(first: tuple[Servable, LabelledSamples], second: tuple[Servable, LabelledSamples]) -> OverallChange:
    """Compare two sides, each a model and the samples that it predicts, in the same order, by the paired comparison of
    the task type: two models on the same samples, or one on samples before and after a change."""
    # Each side by itself: the truth of the two differs where labels have changed.
    before, after = (
        collect_paired_columns(servable, servable, samples.iterate_batches()) for servable, samples in (first, second)
    )
    # Samples are those that the first model takes.
    assert before is not None
    assert after is not None
    columns = replace(before, second=after.first)
    return compare_overall(first[0].task_type, columns, alpha=ALPHA, tolerance=_FLIP_TOLERANCE)


def format_value(change: OverallChange, value: float) -> str:
    """Return a value of the metric, a share as a percentage."""
    return f"{value:.2%}" if change.metric.is_share else format_number(value)


def format_change(change: OverallChange) -> str:
    """Return both values of the metric, and how likely they are by chance."""
    first, second = (format_value(change, value) for value in (change.first, change.second))
    p = f" (p {change.p_better:.1g})" if change.samples >= change.needed else ""
    return f"{change.metric.display_name} {first} → {second}{p}"


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
    """

    url: str
    raw: Sequence[Any]
    load: Callable[[str], Servable]
    servable: Servable
    dropped: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    versions: Counter[str] = field(default_factory=Counter)
    _id: str = field(default_factory=lambda: secrets.token_hex(8))
    _known: dict[str, tuple[AnswerComparison, list[Any]]] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        """The number of requests."""
        return len(self.dropped) + sum(self.versions.values())

    @property
    def problem(self) -> str:
        """The first request without an answer, or the first wrong answer; '' where all is right."""
        return next(iter(self.dropped + self.wrong), "")

    def send_all(self) -> CheckedClient:
        """Send each sample once, under an id by which its label can follow; return the client."""
        for row, request in enumerate(self._build_requests()):
            self._send_sample(replace(request, headers={**request.headers, "mlscale-id": f"{self._id}-{row}"}), row)
        return self

    @contextlib.contextmanager
    def keep_sending(self) -> Iterator[None]:
        """Send one sample after the other until the block ends."""
        requests, over = itertools.cycle(enumerate(self._build_requests())), threading.Event()

        def send_until_over() -> None:
            while not over.wait(_PAUSE_SECONDS):
                row, request = next(requests)
                self._send_sample(request, row)

        thread = threading.Thread(target=send_until_over, name="mlscale-client", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            # With a limit: it may wait for an answer that does not come, and daemon threads end with the process.
            thread.join(2 * _ANSWER_SECONDS)

    def send_labels(self, labels: Sequence[Any]) -> None:
        """Send the labels of the samples that `send_all` has sent."""
        pairs = [{"id": f"{self._id}-{row}", "label": label} for row, label in enumerate(labels)]
        for start in range(0, len(pairs), _LABELS):
            body = json.dumps(pairs[start : start + _LABELS]).encode()
            self._post(LoadRequest("/labels", {"Content-Type": "application/json"}, body, 1, None))

    def _build_requests(self) -> list[LoadRequest]:
        form = _FORMS.get(self.servable.encoder.kind, "image" if isinstance(self.raw[0], bytes) else "")
        tensors = {} if form else {self.servable.input.name: np.stack(list(self.raw))}
        samples = RequestSamples("", tensors, raw=self.raw if form else (), form=form)
        return build_requests("raw" if form else "bytes", samples, request_model_metadata(self.url), 1)

    def _post(self, request: LoadRequest) -> bytes | None:
        """Return the body of the answer; None, with a reason in `dropped`, where there is none."""
        response = send_once(self.url, request, Credentials(), _ANSWER_SECONDS)
        if response is not None and 200 <= response[0] < 300:
            return response[2]
        self.dropped.append(f"status {response[0]}: {response[2][:200]!r}" if response else "no answer")
        return None

    def _send_sample(self, request: LoadRequest, row: int) -> None:
        if (body := self._post(request)) is None:
            return
        document = json.loads(body)
        version, (prediction,) = str(document["model_version"]), document["predictions"]
        self.versions[version] += 1
        if problem := self._find_problem(version, {k: v for k, v in prediction.items() if k != "id"}, row):
            self.wrong.append(f"{version}: {problem}")

    def _find_problem(self, version: str, answer: Mapping[str, Any], row: int) -> str:
        """Return how an answer differs from that of its version to the sample of this row; '' where it does not."""
        if version not in self._known:
            servable = self.load(version)
            answers: list[Any] = [answer_sample(servable, sample) for sample in self.raw]
            requests = [WarmupRequest("", sample, known) for sample, known in zip(self.raw, answers, strict=True)]
            self._known[version] = AnswerComparison(servable, WarmupRequests(tuple(requests), _TOLERANCE)), answers
        comparison, answers = self._known[version]
        return comparison.find_difference(answer, answers[row])
