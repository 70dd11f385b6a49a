"""A convolutional network for texts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TextCNN(nn.Module):
    """Convolutions of several widths over embedded tokens, the largest value of each, and a linear layer on these.

    Kim, 'Convolutional neural networks for sentence classification', 2014; on bytes in place of words.

    Args:
        vocab_size: tokens, with 0 for padding.
        num_classes: logits per text.
        width: of an embedding.
        filters: of each kernel.
        kernels: tokens that the kernels see.
        dropout: of the filters' values, in training.
    """

    def __init__(
        self,
        vocab_size: int,
        num_classes: int,
        width: int = 32,
        filters: int = 128,
        kernels: Sequence[int] = (3, 5, 7),
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, width, padding_idx=0)
        self.convolutions = nn.ModuleList(nn.Conv1d(width, filters, kernel, padding="same") for kernel in kernels)
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(filters * len(kernels), num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, float (n, num_classes), for tokens x, int64 (n, length), where 0 is padding at the end."""
        embedded = self.tokens(x).transpose(1, 2)
        mask = (x > 0).unsqueeze(1)
        # After ReLU nothing is below 0: a padded position, set to 0, is never above the others.
        largest = [(F.relu(convolve(embedded)) * mask).amax(2) for convolve in self.convolutions]
        logits: Tensor = self.head(self.dropout(torch.cat(largest, dim=1)))
        return logits
