"""A small GPT: a decoder-only transformer that continues a text."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mlscale.errors import MLScaleError
from mlscale.tasks.models.ngrams import hash_ngrams

# RoFormer's base, and the original transformer's.
_WAVELENGTH = 10_000.0


class GPT(nn.Module):
    """A decoder-only transformer: tokens to the logits of the token that follows each of them.

    GPT-2's blocks, normalised before and not after; causal attention by torch's fused kernel; one matrix for reading
    tokens and for writing them; GPT-2's initialisation, N(0, 0.02), where what a block adds to its input is divided by
    √(2·layers) (Radford et al., 'Language models are unsupervised multitask learners', 2019). Positions are rotary (Su
    et al., 'RoFormer', 2021).

    With `ngrams` the last n bytes are looked up, too, hashed into a table, and added to a byte's own embedding (Pagnoni
    et al., 'Byte latent transformer', 2024, section 3.2). That costs memory in place of time: a small model need not
    learn the common words by attention.

    Args:
        vocab_size: tokens; 256 for bytes.
        length: the longest context, tokens.
        width: of the residual stream.
        layers: blocks.
        heads: of attention; the width of one is even.
        ngrams: each n; empty for a plain GPT.
        buckets: rows of the table of n-grams.
        dropout: of what a block adds, and of the embedded tokens, in training.
        document_end: the token that ends a document and stands before one: nothing of a document is read in those
            after it, so that several in a sequence are as each alone. None: the context crosses documents.

    Raises:
        MLScaleError: the heads do not divide the width into even parts.
    """

    def __init__(
        self,
        vocab_size: int,
        length: int,
        width: int = 128,
        layers: int = 4,
        heads: int = 4,
        ngrams: Sequence[int] = (),
        buckets: int = 32_768,
        dropout: float = 0.0,
        document_end: int | None = None,
    ) -> None:
        super().__init__()
        if width % (2 * heads):
            raise MLScaleError(
                f"{heads} heads do not divide a width of {width} into even parts",
                where="model.heads, model.width",
                fix=f"model.width={max(1, width // (2 * heads)) * 2 * heads}",
            )
        self.vocab_size, self.length, self.document_end = vocab_size, length, document_end
        self.ngrams, self.buckets = tuple(sorted(ngrams)), buckets
        self.tokens = nn.Embedding(vocab_size, width)
        self.table = nn.Embedding(buckets, width) if self.ngrams else None
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(GPTBlock(width, heads, length, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        # After the layers are made: it replaces torch's own initialisation.
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                adds = name.endswith((".out", ".narrow"))
                nn.init.normal_(module.weight, std=0.02 / (math.sqrt(2 * layers) if adds else 1.0))
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, float (n, length, vocab_size), for tokens x, int64 (n, length or less).

        Raises:
            MLScaleError: x is longer than the model's context.
        """
        if x.shape[1] > self.length:
            refused = MLScaleError(
                f"sequences of {x.shape[1]} are longer than the model's context of {self.length}",
                where="model.length, data.length",
                fix=f"model.length={x.shape[1]}, or data.length={self.length}",
            )
            refused.unbuilt = True  # found at the first batch
            raise refused
        h = self.tokens(x)
        documents = None if self.document_end is None else (x == self.document_end).cumsum(1)
        if self.table is not None:
            for rows in hash_ngrams(x, self.ngrams, self.buckets, documents):
                h = h + self.table(rows)
        h = self.dropout(h)
        # Positions are rotary, so relative: a document in the middle of a sequence needs none of its own.
        mask = None if documents is None else _mask_documents(documents)
        for block in self.blocks:
            h = block(h, mask)
        # The matrix that reads tokens writes them, too.
        return F.linear(self.norm(h), self.tokens.weight)

    @torch.no_grad()
    def generate(
        self, prompt: str | bytes, count: int, *, temperature: float = 0.8, top_k: int = 40, seed: int = 0
    ) -> str:
        """Continue a text, byte by byte.

        Args:
            prompt: the beginning of the text: at least a byte; the last `length` bytes count.
            count: bytes to add; fewer where the model ends the text, by a zero byte.
            temperature: divides the logits; 0 takes the likeliest byte each time.
            top_k: the number of likeliest bytes among which one is drawn.
            seed: of the draws.

        Returns:
            The prompt and its continuation; bytes that are not UTF-8 become �.

        Raises:
            MLScaleError: an empty prompt, a temperature or `top_k` below its least, or a model that is not on bytes.
        """
        given = prompt.encode() if isinstance(prompt, str) else bytes(prompt)
        if not given or temperature < 0 or top_k < 1 or self.vocab_size != 256:
            raise MLScaleError(
                "generate() takes a prompt of at least a byte, a temperature from 0, top_k from 1, a model of bytes",
                where="GPT.generate",
                why=f"given: {len(given)} bytes, temperature {temperature}, top_k {top_k}, {self.vocab_size} tokens",
                fix='generate("The ", 100, temperature=0.8, top_k=40)',
            )
        # A generator of its own, on the CPU: a text does not depend on the device or on earlier draws.
        draws, training, text = torch.Generator().manual_seed(seed), self.training, list(given)
        self.eval()
        for _ in range(count):
            context = torch.tensor([text[-self.length :]], device=self.tokens.weight.device)
            # Without a key-value cache: the whole context is computed again for each byte.
            best = self(context)[0, -1].float().cpu().topk(min(top_k, 256) if temperature else 1)
            shares = (best.values / (temperature or 1.0)).softmax(-1)
            chosen = int(best.indices[torch.multinomial(shares, 1, generator=draws)])
            if chosen == 0:
                break
            text.append(chosen)
        self.train(training)
        return bytes(text).decode("utf-8", "replace")


def _mask_documents(documents: Tensor) -> Tensor:
    """Return where each token may look, bool (n, 1, length, length): itself and those before it in its document.

    Args:
        documents: the number of the document of each token, (n, length).
    """
    # Not a buffer: it differs from batch to batch, and the causal part costs little next to attention.
    length = documents.shape[1]
    positions = torch.arange(length, device=documents.device)
    is_causal = positions[:, None] >= positions[None]
    return ((documents[:, :, None] == documents[:, None]) & is_causal)[:, None]


class GPTBlock(nn.Module):
    """Attention, then a perceptron of two layers, each added to its input: (n, length, width) to the same."""

    def __init__(self, width: int, heads: int, length: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(width), CausalAttention(width, heads, length)
        self.norm, self.wide, self.narrow = (
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.Linear(4 * width, width),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        h = h + self.dropout(self.attention(self.attention_norm(h), mask))
        added: Tensor = h + self.dropout(self.narrow(F.gelu(self.wide(self.norm(h)), approximate="tanh")))
        return added


class CausalAttention(nn.Module):
    """Causal self-attention of several heads, with rotary positions: (n, length, width) to the same."""

    cosines: Tensor
    sines: Tensor

    def __init__(self, width: int, heads: int, length: int) -> None:
        super().__init__()
        self.heads, half = heads, width // heads // 2
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        angles = torch.arange(length)[:, None] * _WAVELENGTH ** (-torch.arange(half) / half)
        # Not in checkpoints: they follow from the arguments.
        self.register_buffer("cosines", angles.cos(), persistent=False)
        self.register_buffer("sines", angles.sin(), persistent=False)

    def forward(self, h: Tensor, mask: Tensor | None = None) -> Tensor:
        n, length, width = h.shape
        split = self.qkv(h).view(n, length, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        q, k = self._rotate_positions(q), self._rotate_positions(k)
        # Without a mask of its own the kernel skips what is after each token; torch takes one of the two.
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        attended: Tensor = self.out(mixed.transpose(1, 2).reshape(n, length, width))
        return attended

    def _rotate_positions(self, x: Tensor) -> Tensor:
        """Return x, (n, heads, length, even), with each pair turned by an angle that grows with its position."""
        cosines, sines = (table[: x.shape[2]].to(x.dtype) for table in (self.cosines, self.sines))
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * cosines - second * sines, first * sines + second * cosines), dim=-1)
