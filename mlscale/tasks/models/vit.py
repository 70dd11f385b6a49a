"""A small vision transformer for small images (Dosovitskiy et al. 2021, 'An Image is Worth 16x16 Words', ICLR)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mlscale.errors import MLScaleError


class ViT(nn.Module):
    """Patches as tokens, learned positions, pre-norm transformer blocks, and a linear layer on a class token.

    The paper's ViT at another size: tokens are few where images are small, so that it trains on a CPU. Small data want
    augmentation and a long run; the paper pretrains on millions of images.

    Args:
        in_channels: channels of the image.
        num_classes: logits per sample.
        height: pixels; a multiple of `patch`.
        width: pixels; a multiple of `patch`.
        patch: pixels of a side of a patch.
        dim: numbers of a token; a multiple of `heads`.
        depth: transformer blocks.
        heads: heads of attention.
        mlp_ratio: width of a block's hidden layer, in units of `dim`.
        dropout: after the embedding, attention and each layer of a block; 0 to 1.

    Raises:
        MLScaleError: a size does not divide by `patch`, or `dim` by `heads`.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        height: int,
        width: int,
        patch: int = 2,
        dim: int = 64,
        depth: int = 4,
        heads: int = 4,
        mlp_ratio: float = 2.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check_sizes(height, width, patch, dim, heads)
        tokens = (height // patch) * (width // patch)
        # A convolution whose stride is its size: one linear map for every patch.
        self.embed = nn.Conv2d(in_channels, dim, kernel_size=patch, stride=patch)
        self.token = nn.Parameter(torch.zeros(1, 1, dim))
        self.places = nn.Parameter(torch.zeros(1, tokens + 1, dim))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(ViTBlock(dim, heads, int(dim * mlp_ratio), dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, num_classes)
        # 0.02 as in BERT, which the usual implementations of ViT take over.
        nn.init.trunc_normal_(self.token, std=0.02)
        nn.init.trunc_normal_(self.places, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, float (n, num_classes), for images x, float (n, in_channels, height, width)."""
        patches = self.embed(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), patches], dim=1) + self.places
        tokens = self.norm(self.blocks(self.dropout(tokens)))
        logits: Tensor = self.head(tokens[:, 0])
        return logits


class ViTBlock(nn.Module):
    """Attention over all tokens, then two layers on each, both on normalised input and added: (n, tokens, dim)."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.drop = heads, dropout
        self.norm_attention, self.norm_layers = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.layers = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, of the same shape as x."""
        x = x + self.dropout(self._apply_attention(self.norm_attention(x)))
        out: Tensor = x + self.dropout(self.layers(self.norm_layers(x)))
        return out

    def _apply_attention(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # The function does not know of train and eval mode: dropout is passed for training alone.
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=self.drop if self.training else 0.0)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


def _check_sizes(height: int, width: int, patch: int, dim: int, heads: int) -> None:
    if height % patch or width % patch:
        sizes = [size for size in range(1, min(height, width) + 1) if height % size == 0 and width % size == 0]
        raise MLScaleError(
            f"patches of {patch} pixels do not divide an image of {width}×{height}",
            where="model.patch",
            fix=f"model.patch={min(sizes, key=lambda size: abs(size - patch))}",
        )
    if dim % heads:
        raise MLScaleError(
            f"{heads} heads do not divide tokens of {dim} numbers",
            where="model.heads, model.dim",
            fix=f"model.dim={max(1, round(dim / heads)) * heads}",
        )
