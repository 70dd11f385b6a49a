"""Batches: who is alone runs at once, what arrives meanwhile runs together, a version's samples among themselves."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mlscale.data.encoders.encoder import EncodedSamples
from mlscale.errors import MLScaleError
from mlscale.serve.batcher import Batcher, InferenceJob
from mlscale.serve.http.request_error import Refused
from mlscale.serve.prometheus import Histogram
from mlscale.serve.served_model import Outputs, ServedModel, load_model
from tests.serving import STORED, pixels

MODEL = load_model(STORED, name="digits", version="digits:v1", threads=1, max_batch=4)
INLINE = replace(MODEL, one_s=0.0, batch_s=0.0)
THREADED = replace(MODEL, one_s=1.0, batch_s=1.0)


class Run:
    """A batcher, and what it did."""

    def __init__(self, max_queue: int = 100) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[str] = set()
        self.batcher = Batcher(asyncio.get_running_loop(), max_queue, self._computed)
        self.answers: list[asyncio.Future[Outputs | Exception]] = []

    def _computed(
        self,
        model: ServedModel,
        jobs: Sequence[InferenceJob],
        samples: EncodedSamples,
        printed: Outputs,
        seconds: float,
    ) -> None:
        self.batches.append([job.samples.size for job in jobs])
        assert len(printed.labels) == samples.size == sum(self.batches[-1])

    def ask(self, raw: NDArray[Any], model: ServedModel = INLINE) -> None:
        """Submit a job."""
        answer: asyncio.Future[Outputs | Exception] = asyncio.get_running_loop().create_future()
        self.batcher.submit_job(
            InferenceJob(
                model,
                EncodedSamples({"input": raw}, {}),
                ["x"] * len(raw),
                0.0,
                lambda printed, *_: answer.set_result(printed),
            )
        )
        self.answers.append(answer)


@pytest.mark.parametrize("model", [INLINE, THREADED])
def test_rows_are_counted_not_requests(model: ServedModel) -> None:
    sizes = [1, 2, 1, 3, 2, 4, 9, 1, 1]

    async def main() -> Run:
        run = Run()
        for n, size in enumerate(sizes):
            run.ask(pixels(size, n), model)
        answers = await asyncio.gather(*run.answers)
        for n, (size, answer) in enumerate(zip(sizes, answers, strict=True)):
            assert isinstance(answer, Outputs)
            np.testing.assert_allclose(answer.tensors["logits"], MODEL.servable.logits(pixels(size, n)), atol=1e-5)
        await asyncio.sleep(0)
        assert run.batcher.rows == 0
        return run

    assert asyncio.run(main()).batches == [[1, 2, 1], [3], [2], [4], [9], [1, 1]]


def test_versions_are_not_mixed() -> None:
    other = replace(INLINE, version="digits:v2")

    async def main() -> Run:
        run = Run()
        for model in (INLINE, INLINE, other, other, INLINE):
            run.ask(pixels(1), model)
        await asyncio.gather(*run.answers)
        return run

    assert asyncio.run(main()).batches == [[1, 1], [1, 1], [1]]


def test_what_arrives_while_a_batch_is_computed_is_the_next_batch() -> None:
    held = threading.Event()

    class Slow(ServedModel):
        def compute(self, samples: EncodedSamples) -> Outputs:
            held.wait(10)
            return super().compute(samples)

    slow = Slow(MODEL.servable, "digits", "digits:v1", 1.0, 1.0, 4)

    async def main() -> Run:
        run = Run()
        run.ask(pixels(1), slow)
        await asyncio.sleep(0.01)
        for _ in range(3):
            run.ask(pixels(1), slow)
        held.set()
        await asyncio.gather(*run.answers)
        return run

    assert asyncio.run(main()).batches == [[1], [1, 1, 1]]


def test_too_much_is_refused_with_a_time_to_come_back() -> None:
    async def main() -> None:
        run = Run(max_queue=5)
        run.ask(pixels(3))
        run.ask(pixels(2))
        with pytest.raises(Refused, match="5 rows wait already") as raised:
            run.ask(pixels(1))
        assert (raised.value.status, raised.value.headers) == (503, b"Retry-After: 1\r\n")
        with pytest.raises(Refused, match="batch-size must be <= 5") as never:
            run.ask(pixels(6))
        assert never.value.status == 400
        await asyncio.gather(*run.answers)
        run.ask(pixels(5))
        await asyncio.gather(*run.answers)

    asyncio.run(main())


@pytest.mark.parametrize("one_s", [0.0, 1.0])
def test_none_fails_for_another(one_s: float) -> None:
    """And computing each by itself stops nobody: it is not done in the event loop."""
    threads: list[tuple[str, int]] = []

    class Picky(ServedModel):
        def compute(self, samples: EncodedSamples) -> Outputs:
            threads.append((threading.current_thread().name, samples.rows))
            if (samples.tensors["input"][:, 0, 0, 0] == 0).any():
                raise MLScaleError("this one it does not like")
            return super().compute(samples)

    picky = Picky(MODEL.servable, "digits", "digits:v1", one_s, one_s, 4)
    raw = np.maximum(pixels(4), 1)
    raw[2] = 0

    async def main() -> None:
        run = Run()
        for each in raw:
            run.ask(each[None], picky)
        answers = await asyncio.gather(*run.answers)
        assert [isinstance(answer, Outputs) for answer in answers] == [True, True, False, True]
        assert isinstance(answers[2], MLScaleError)

    asyncio.run(main())
    alone = [name for name, rows in threads if rows == 1]
    # a model in a thread computes the first one at once, before the others have come
    assert len(alone) >= 3
    assert threading.current_thread().name not in alone


def test_small_models_run_where_requests_are_read() -> None:
    assert MODEL.one_s > 0
    assert MODEL.batch_s >= MODEL.one_s / 4
    assert INLINE.inline
    assert not THREADED.inline
    assert not replace(INLINE, batch_s=0.006).inline


def test_a_histogram() -> None:
    histogram = Histogram((1, 2, 4))
    for value in (0.5, 1, 1.5, 3, 9):
        histogram.add_value(value)
    assert histogram.counts == [2, 1, 1, 1]
    assert (histogram.compute_quantile(0.4), histogram.compute_quantile(0.8), histogram.compute_quantile(1)) == (
        1,
        4,
        float("inf"),
    )
    samples = [(*sample.labels.values(), sample.value) for sample in histogram.build_family("x", "").samples]
    assert samples == [("1", 2), ("2", 3), ("4", 4), ("+Inf", 5), (5,), (15,)]
