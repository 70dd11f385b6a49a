"""What a fit took: training alone, its own steps, and memory."""

import time
from typing import Any

import pytorch_lightning as pl

from mlscale.train.callbacks.stopwatch import Stopwatch
from tests.unit.fitting import batches, classifier, fit, trainer


class SlowValidation(pl.Callback):
    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        time.sleep(0.5)


def test_validation_and_the_check_before_a_fit_are_no_training() -> None:
    watch = Stopwatch()
    run = trainer(callbacks=[watch, SlowValidation()], num_sanity_val_steps=1, accumulate_grad_batches=2)
    start = time.perf_counter()
    fit(run, classifier(), batches(4))
    assert 0 < watch.seconds < time.perf_counter() - start - 0.9
    assert watch.steps == 2
    assert watch.peak_memory_bytes > 50 << 20
