"""Language modelling: prediction of the token after each token."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection
from torchmetrics.text import Perplexity

from mlscale.errors import MLScaleError
from mlscale.tasks.base import Task
from mlscale.tasks.batch import Batch, unpack_batch


class Language(Task):
    """The task of predicting the token that follows each token of a sequence.

    Validation and test metrics, over every token of every rank: ``val/loss``, the cross-entropy in nats per token;
    ``val/bits_per_byte``, the same in bits, which a compressor would need; ``val/perplexity``, by torchmetrics.
    Tokens are bytes.

    Args:
        model: int64 (n, length) to logits, (n, length, tokens).
        optimizer: see `Task`.
        scheduler: see `Task`.
    """

    kind: ClassVar[str] = "language"
    mean_names: ClassVar[tuple[str, ...]] = ("loss", "bits_per_byte")

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of each sample's tokens, nats, float (n,).

        Raises:
            MLScaleError: the model returns something else than logits for each token.
        """
        return _compute_token_nats(outputs, batch.y).mean(1)

    def means(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """Return nats and bits per token, (n,)."""
        # One token is one byte, so bits per token are bits per byte.
        losses = self.losses(outputs, batch)
        return losses, losses / math.log(2)

    def metrics(self) -> dict[str, Metric]:
        """Return the perplexity."""
        return {"perplexity": Perplexity()}

    def update(self, metrics: MetricCollection, outputs: Tensor, batch: Batch) -> None:
        """Add a batch; torchmetrics takes float32."""
        metrics.update(outputs.float(), batch.y)

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Return ``nats``, float (n,): of all tokens of a sample; ``tokens``, int64 (n,): their number."""
        given = unpack_batch(batch)
        nats = _compute_token_nats(self(given.x), given.y).sum(1)
        return {"nats": nats, "tokens": given.y.new_full((len(given.y),), given.y.shape[1])}


def _compute_token_nats(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy of each token, float (n, length)."""
    if logits.ndim != 3 or logits.shape[:2] != y.shape:
        refused = MLScaleError(
            f"the model gives {tuple(logits.shape)} for sequences of {tuple(y.shape)}",
            where="model",
            why="a language model gives logits (n, length, tokens)",
            fix="model=gpt",
        )
        refused.unbuilt = True  # found at the first batch
        raise refused
    return F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").view(y.shape)
