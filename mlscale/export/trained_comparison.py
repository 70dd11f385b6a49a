"""Compare an engine with the trained model on validation samples: what it gives, and how long it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from pytorch_lightning import LightningDataModule

from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.encoder import EncodedSamples, Encoder
from mlscale.export.engines.engine import Engine
from mlscale.export.parity import Outputs, Parity, compare_outputs
from mlscale.export.served_module import ServedModule, compute_torch_outputs
from mlscale.export.validation_samples import SampleBatch, iterate_validation_batches
from mlscale.stats.timing import TimesCompared, compare_times
from mlscale.task_types.task_type import TaskType

_BUDGET_S = 0.8  # short, as no decision depends on it: the ratio is reported with its interval


@dataclass(frozen=True)
class TrainedComparison:
    """The trained model and its validation samples, with which engines are compared.

    Attributes:
        trained: the model in eager mode, normalisation included.
        data: set up for validation.
        task_type: says what the outputs mean.
        encoder: of the exported model.
        samples: number of validation samples; None for all.
    """

    trained: ServedModule
    data: LightningDataModule
    task_type: TaskType
    encoder: Encoder
    samples: int | None

    def compare_engine(
        self,
        engine: Engine,
        *,
        on_encoded: Callable[[SampleBatch, EncodedSamples], None] = lambda batch, packed: None,
        on_batch: Callable[[SampleBatch, Outputs], None] = lambda batch, outputs: None,
    ) -> Parity:
        """Return the comparison of an engine's outputs with the trained model's; see `compare_outputs`."""
        return compare_outputs(
            self._compute_trained,
            engine.compute,
            iterate_validation_batches(self.data, limit=self.samples),
            task_type=self.task_type,
            encoder=self.encoder,
            on_encoded=on_encoded,
            on_batch=on_batch,
        )

    def compare_times(self, engine: Engine) -> TimesCompared:
        """Return the times of one sample on one thread: of the trained model, then of the engine."""
        first = next(iterate_validation_batches(self.data, limit=1))
        packed = first.pack(self.encoder).tensors
        # Torch is limited to the one thread that engines have; else the two times would not be comparable.
        with limit_torch_threads():
            return compare_times(
                lambda: self._compute_trained(first.tensors), lambda: engine.compute(packed), budget_s=_BUDGET_S
            )

    def read_raw_samples(self, most: int) -> list[Any]:
        """Return validation samples as a client sends them; none of documents: blocks of training text are not sent."""
        if isinstance(self.encoder, DocumentEncoder) or not most:
            return []
        return [sample for batch in iterate_validation_batches(self.data, limit=most) for sample in batch.samples]

    def _compute_trained(self, tensors: Mapping[str, NDArray[Any]]) -> Outputs:
        return compute_torch_outputs(self.trained, tensors)


@contextmanager
def limit_torch_threads() -> Iterator[None]:
    """Make torch compute on one thread in this block, as each of several workers of a server does."""
    import torch  # here, as importing it takes seconds

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        # The number of threads is a setting of the whole process.
        torch.set_num_threads(before)
