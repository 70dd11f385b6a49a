"""Hashed n-grams of tokens: a token with those before it, as a row of a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mlscale.errors import MLScaleError

_PRIME = (1 << 31) - 1  # so that a product of two residues fits into 64 bits
# Below the prime. The second factor spreads the hashes of all orders over the rows of the table.
_FACTOR, _SCATTER = 1_103_515_245, 1_566_083_941


def hash_ngrams(x: Tensor, orders: Sequence[int], buckets: int, documents: Tensor | None = None) -> Iterator[Tensor]:
    """Yield for each n of `orders` the row of the n tokens that end at each position, int64 (batch, length), 0 to
    buckets - 1.

    A polynomial hash modulo 2³¹ - 1, in arithmetic that is the same on every device and in ONNX. Positions before the
    first token count as 0, as do those of another document.

    Args:
        x: tokens, int64 (batch, length), not negative.
        orders: each n, ascending.
        buckets: rows of the table.
        documents: the number of the document of each token, from 0, (batch, length); None where all are of one.
    """
    length = x.shape[1]
    hashed = torch.zeros_like(x)
    for n in range(1, max(orders, default=0) + 1):
        earlier = F.pad(x, (n - 1, 0))[:, :length]
        if documents is not None:
            # -1 before the first token: no document has that number.
            is_same = F.pad(documents, (n - 1, 0), value=-1)[:, :length] == documents
            earlier = torch.where(is_same, earlier, torch.zeros_like(earlier))
        # + 1: without it, zeros at the start of an n-gram would not change its hash.
        hashed = (hashed * _FACTOR + earlier + 1) % _PRIME
        if n in orders:
            yield ((hashed + n) * _SCATTER) % _PRIME % buckets


class NGrams(nn.Module):
    """Embeddings of the different n-grams of a text, added up, and a linear layer: fastText on bytes.

    Joulin et al., 'Bag of tricks for efficient text classification', 2017, with n-grams of bytes in place of words, as
    in Bojanowski et al., 'Enriching word vectors with subword information', 2017. The sum is divided by the root of
    their number, so that long texts don't shout. Its size is that of the table.

    Args:
        num_classes: logits per text.
        orders: each n.
        buckets: rows of the table that n-grams are hashed into.
        width: of an embedding.
        dropout: share of a text's n-grams that training leaves out, others each time.

    Raises:
        MLScaleError: no orders.
    """

    def __init__(
        self,
        num_classes: int,
        orders: Sequence[int] = (1, 2, 3, 4, 5, 6),
        buckets: int = 131_072,
        width: int = 32,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if not orders or min(orders) < 1:
            raise MLScaleError("n-grams have an order from 1", where="model.orders", fix="model.orders=[1,2,3,4,5,6]")
        self.orders, self.buckets, self.dropout = tuple(sorted(orders)), buckets, dropout
        # The last row belongs to no n-gram: those that do not count are looked up there, and it stays zero.
        self.table = nn.Embedding(buckets + 1, width, padding_idx=buckets)
        self.head = nn.Linear(width, num_classes)
        nn.init.uniform_(self.table.weight, -1 / width, 1 / width)
        nn.init.zeros_(self.table.weight[buckets])

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, float (n, num_classes), for tokens x, int64 (n, length), where 0 is padding at the end."""
        padding_row = torch.full((), self.buckets, dtype=x.dtype, device=x.device)
        # An n-gram that ends in padding does not count.
        rows = torch.cat(
            [torch.where(x > 0, row, padding_row) for row in hash_ngrams(x, self.orders, self.buckets)], dim=1
        )
        # Sorted, equal rows are neighbours: each different n-gram counts once, without a loop.
        rows = rows.sort(dim=1).values
        again = F.pad(rows[:, 1:] == rows[:, :-1], (1, 0))
        if self.training and self.dropout:
            again = again | (torch.rand(rows.shape, device=x.device) < self.dropout)
        rows = torch.where(again, padding_row, rows)
        count = (rows < self.buckets).sum(1, keepdim=True).clamp_min(1)
        logits: Tensor = self.head(self.table(rows).sum(1) / count.to(self.table.weight.dtype).sqrt())
        return logits
