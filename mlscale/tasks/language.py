"""Language modelling: prediction of the token after each token."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection
from torchmetrics.text import Perplexity

from mlscale.errors import MLScaleError
from mlscale.tasks.base import Task, check_tensor
from mlscale.tasks.batch import Batch, unpack_batch
from mlscale.tasks.optimizers import Partial

IGNORED = -100
"""The target of a place that is padding: torch's default."""


class Language(Task):
    """The task of predicting the token that follows each token of a sequence.

    Validation and test metrics, over every token of every rank: ``val/loss``, the cross-entropy in nats per token;
    ``val/bits_per_byte``, the bits that a compressor would need for each byte of text; ``val/perplexity``, by
    torchmetrics. A place whose target is -100 is padding, and counts for nothing.

    Args:
        model: int64 (n, length) to logits, (n, length, tokens).
        bytes_per_token: bytes of text that a token stands for, on average over the validation samples; 1 where tokens
            are bytes. Models of different tokenizers are compared by bits per byte.
        optimizer: see `Task`.
        scheduler: see `Task`.
    """

    kind: ClassVar[str] = "language"
    reads_logits: ClassVar[bool] = True
    mean_names: ClassVar[tuple[str, ...]] = ("loss", "bits_per_byte")

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: Partial | None = None,
        scheduler: Partial | Mapping[str, Any] | None = None,
        bytes_per_token: float | None = 1.0,
    ) -> None:
        super().__init__(model=model, optimizer=optimizer, scheduler=scheduler)
        # A user's own data module may not report it.
        self.bytes_per_token = 1.0 if bytes_per_token is None else bytes_per_token

    def setup(self, stage: str) -> None:
        """Print a line where sequences hold whole documents, and the model reads across them all the same."""
        super().setup(stage)
        data: Any = getattr(self.trainer, "datamodule", None)
        end = data.facts().document_end if hasattr(data, "facts") else None
        known = getattr(self.model, "document_end", None)
        # Attention is the model's own: the data alone can't keep documents apart.
        if stage == "fit" and self.trainer.is_global_zero and end not in (None, known):
            print(
                f"model     {type(self.model).__name__} has no document_end={end}: it reads across the documents of a "
                "sequence; the loss counts as packed",
                file=sys.stderr,
                flush=True,
            )

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of each sample's tokens, nats, float (n,).

        Raises:
            MLScaleError: the model returns something else than logits for each token.
        """
        # A sequence that is padding alone, which fills up a batch, has weight 0.
        counts = (batch.y != IGNORED).sum(1).clamp(min=1)
        return _compute_token_nats(outputs, batch.y).sum(1) / counts

    def means(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """Return nats per token and bits per byte, (n,)."""
        losses = self.losses(outputs, batch)
        return losses, losses / (math.log(2) * self.bytes_per_token)

    def metrics(self) -> dict[str, Metric]:
        """Return the perplexity."""
        return {"perplexity": Perplexity(ignore_index=IGNORED)}

    def update(self, metrics: MetricCollection, outputs: Tensor, batch: Batch) -> None:
        """Add a batch; torchmetrics takes float32."""
        metrics.update(outputs.float(), batch.y)

    def predict_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """Return ``nats``, float (n,): of all tokens of a sample; ``tokens``, int64 (n,): their number; and ``bytes``,
        float (n,): of text, by the average of a token, where tokens are not bytes."""
        given = unpack_batch(batch)
        nats = _compute_token_nats(self(given.x), given.y).sum(1)
        tokens = (given.y != IGNORED).sum(1)
        counted = {} if self.bytes_per_token == 1.0 else {"bytes": tokens.float() * self.bytes_per_token}
        return {"nats": nats, "tokens": tokens, **counted}


def _compute_token_nats(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy of each token, float (n, length); 0 where it is padding."""
    check_tensor(logits, Language.kind)
    if logits.ndim != 3 or logits.shape[:2] != y.shape:
        refused = MLScaleError(
            f"the model gives {tuple(logits.shape)} for sequences of {tuple(y.shape)}",
            where="model",
            why="a language model gives logits (n, length, tokens)",
            fix="model=gpt",
        )
        refused.unbuilt = True  # found at the first batch
        raise refused
    return F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none", ignore_index=IGNORED).view(y.shape)
