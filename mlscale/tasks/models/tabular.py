"""A residual network for rows of a table."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class TabularNet(nn.Module):
    """A linear model of the features, to which residual blocks are added.

    The blocks are those of the ResNet of Gorishniy et al., 'Revisiting deep learning models for tabular data', 2021,
    normalised by layer in place of by batch, so that samples don't depend on each other, nor on how a batch is spread
    over devices. The linear part next to them is that of Cheng et al., 'Wide & deep learning', 2016. The last layer of
    the deep part starts at zero: training begins from a linear model.

    Args:
        features: values of a row.
        outputs: numbers per row: classes, or targets.
        width: of the residual stream.
        blocks: how many; 0 gives a linear model.
        dropout: of what a block computes, in training.
    """

    def __init__(self, features: int, outputs: int, width: int = 64, blocks: int = 2, dropout: float = 0.5) -> None:
        super().__init__()
        self.linear = nn.Linear(features, outputs)
        self.enter = nn.Linear(features, width) if blocks else None
        self.blocks = nn.ModuleList(TabularBlock(width, dropout) for _ in range(blocks))
        self.leave = nn.Linear(width, outputs, bias=False) if blocks else None
        # Layers of zeros learn: their gradients depend on their inputs, which are not 0.
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        if self.leave is not None:
            nn.init.zeros_(self.leave.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return float (n, outputs), for rows x, float (n, features)."""
        out: Tensor = self.linear(x)
        if self.enter is None or self.leave is None:
            return out
        h = self.enter(x)
        for block in self.blocks:
            h = block(h)
        deep: Tensor = self.leave(F.relu(h))
        return out + deep


class TabularBlock(nn.Module):
    """Two linear layers behind a normalisation, added to their input: (n, width) to the same."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.first, self.second = (
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.Linear(2 * width, width),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor) -> Tensor:
        added: Tensor = h + self.dropout(self.second(self.dropout(F.relu(self.first(self.norm(h))))))
        return added
