"""Mixup and cutmix: a sample is mixed with a partner of its block, and so is its label.

Partners come from fixed blocks of neighbours in the global batch, which are never split between ranks or forward
passes, and every amount is a function of (seed, epoch, position). So batches are the same on any number of ranks and
after a resume.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlscale.data.order.batch_plan import Batch, BatchLayout
from mlscale.data.order.keyed_permutation import derive_sample_seeds, draw_uniform
from mlscale.errors import MLScaleError

Array = NDArray[np.float32]


class Mixing:
    """Mixup (Zhang et al., 2018) and cutmix (Yun et al., 2019); with both, every sample takes one or the other.

    The share λ of a sample in its mixture comes from Beta(α, α). Labels become shares of the classes: `y` float32
    (n, classes), which cross-entropy takes as it takes class numbers.

    Args:
        mixup: α of mixup, 0 for none.
        cutmix: α of cutmix, 0 for none.
        block: neighbours in the global batch that partners are chosen among.

    Raises:
        MLScaleError: a number out of range.
    """

    def __init__(self, mixup: float, cutmix: float, block: int) -> None:
        for name, alpha in (("mixup", mixup), ("cutmix", cutmix)):
            if not 0 <= alpha <= 20:
                raise MLScaleError(
                    f"augment.{name} is {alpha}",
                    where=f"augment.{name}",
                    why="it is the α of a Beta(α, α) distribution, between 0 (none) and 20",
                    fix=f"augment.{name}=0.2",
                )
        if block < 2:
            raise MLScaleError(
                f"augment.block is {block}",
                where="augment.block",
                why="a sample and its partner are two",
                fix="augment.block=8",
            )
        self.mixup, self.cutmix, self.block = mixup, cutmix, block

    def check_blocks(self, layout: BatchLayout) -> None:
        """Raise if blocks do not divide the samples of a device.

        Raises:
            MLScaleError: they do not, with the numbers.
        """
        if layout.per_device % self.block:
            blocks = [n for n in range(2, layout.per_device + 1) if layout.per_device % n == 0]
            whole = self.block * layout.world_size * layout.accumulate
            near = max(1, round(layout.batch_size / whole)) * whole
            fixes = [f"augment.block={min(blocks, key=lambda n: abs(n - self.block))}"] if blocks else []
            raise MLScaleError(
                f"blocks of {self.block} samples do not fit into {layout.per_device} samples per device",
                where="augment.block",
                why=f"a sample's partner is on its own device: {layout.batch_size} samples over "
                f"{layout.world_size} processes and {layout.accumulate} forward passes are {layout.per_device} each",
                fix="\n".join([*fixes, f"data.batch_size={near}"]),
            )

    def __call__(
        self,
        batch: Batch,
        epoch: int,
        positions: NDArray[np.int64],
        *,
        seed: int,
        classes: int,
        on_device: bool = False,
    ) -> Batch:
        """Mix a batch, in place where it is in the loader's memory.

        Args:
            batch: `x` float32 (n, …), normalised; `y` int64 (n,), or float32 (n, classes). n is a multiple of
                the block.
            epoch: passes over the data before this one.
            positions: places in the epoch, int64 (n,); the first begins a block.
            seed: the run's.
            classes: how many there are.
            on_device: by torch, on the device of the samples, as it is done anyhow where that is not the CPU; the same
                values.

        Raises:
            MLScaleError: cutmix, and the samples are not images.
        """
        if on_device or batch["x"].device.type != "cpu":
            return self._mix_tensors(batch, epoch, positions, seed, classes)
        draws = draw_uniform(derive_sample_seeds(positions, seed=seed, epoch=epoch, stream="mixup"), 4)
        partner = self._choose_partners(positions, seed, epoch)
        cut = draws[:, 0] < self._cut_share
        own_shares = self._draw_shares(draws[:, 1], cut)
        x: Array = batch["x"].numpy()
        # Block by block: what is copied stays in the processor's cache, and no array of a batch's size is made.
        before, spare = np.empty_like(x[: self.block]), np.empty_like(x[0])
        for first in range(0, len(x), self.block):
            np.copyto(before, x[first : first + self.block])
            for row in range(first, first + self.block):
                other = before[partner[row] - first]
                if cut[row]:
                    # The box is cut at the borders, so the label's share is that of the pixels that are left.
                    box = _choose_box(x[row].shape, float(own_shares[row]), draws[row, 2:])
                    x[row][:, box.rows, box.columns] = other[:, box.rows, box.columns]
                    own_shares[row] = box.share_outside
                else:
                    x[row] *= own_shares[row]
                    x[row] += np.multiply(other, 1 - own_shares[row], out=spare)
        y = batch["y"].numpy()
        one_hot = np.eye(classes, dtype=np.float32)[y] if y.ndim == 1 else y
        mixed = one_hot * own_shares[:, None] + one_hot[partner] * (1 - own_shares[:, None])
        return {**batch, "x": torch.from_numpy(x), "y": torch.from_numpy(mixed)}

    def _mix_tensors(self, batch: Batch, epoch: int, positions: NDArray[np.int64], seed: int, classes: int) -> Batch:
        """Return the batch mixed, by the same products and sums in the same order."""
        x: Tensor = batch["x"]
        draws = draw_uniform(derive_sample_seeds(positions, seed=seed, epoch=epoch, stream="mixup"), 4)
        cut = draws[:, 0] < self._cut_share
        own_shares = self._draw_shares(draws[:, 1], cut)
        # Cut samples are multiplied by 1, which changes nothing, and get their box afterwards.
        weights = _move_numbers(np.where(cut, np.float32(1), own_shares), x, x.ndim)
        partner = torch.from_numpy(self._choose_partners(positions, seed, epoch)).to(x.device)
        # A copy, so that samples are mixed with what their partners were.
        others = x[partner]
        mixed = x * weights + others * (1 - weights)
        if cut.any():
            inside = np.zeros((len(x), 1, *x.shape[2:]), np.bool_)
            for row in np.flatnonzero(cut).tolist():
                box = _choose_box(x.shape[1:], float(own_shares[row]), draws[row, 2:])
                inside[row, :, box.rows, box.columns] = True
                own_shares[row] = box.share_outside
            mixed = torch.where(torch.from_numpy(inside).to(x.device), others, mixed)
        y: Tensor = batch["y"]
        # Labels that are shares already, as those of several classes, are mixed as they are.
        one_hot = torch.eye(classes, device=y.device)[y] if y.ndim == 1 else y
        shares = _move_numbers(own_shares, y, 2)
        return {**batch, "x": mixed, "y": one_hot * shares + one_hot[partner.to(y.device)] * (1 - shares)}

    @property
    def _cut_share(self) -> float:
        return 0.0 if not self.cutmix else 1.0 if not self.mixup else 0.5

    def _choose_partners(self, positions: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
        """Return the row of each sample's partner; a block is rotated by its own amount, so all are partners once."""
        first = positions[:: self.block]
        draws = draw_uniform(derive_sample_seeds(first, seed=seed, epoch=epoch, stream="mixup block"), 1)[:, 0]
        # From 1 to block - 1: no sample is its own partner.
        rotations = 1 + (draws * (self.block - 1)).astype(np.int64)
        row = np.arange(self.block)
        inside = (row[None, :] + rotations[:, None]) % self.block
        return (inside + np.arange(len(first))[:, None] * self.block).reshape(-1)

    def _draw_shares(self, draws: Array, cut: NDArray[np.bool_]) -> Array:
        """Return λ, rounded to 16 bits, so that it is the same on every processor."""
        shares = np.empty(len(draws))
        for rows, alpha in ((~cut, self.mixup), (cut, self.cutmix)):
            if rows.any():
                shares[rows] = compute_beta_quantiles(draws[rows].astype(np.float64), alpha)
        rounded: Array = (np.round(shares * 65536) / 65536).astype(np.float32)
        return rounded


def compute_beta_quantiles(probabilities: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    """Return quantiles of Beta(α, α), float64 (n,)."""
    cumulated, grid, power = _compute_lower_half(alpha)
    lower = np.interp(np.minimum(probabilities, 1 - probabilities), cumulated, grid) ** power
    return np.where(probabilities < 0.5, lower, 1 - lower)


@lru_cache(maxsize=8)
def _compute_lower_half(alpha: float) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return the distribution function of Beta(α, α) up to 1/2, on a grid of x^(1/power).

    Below α = 1 the density has a pole at 0. In terms of s = x^α it is (1 - x)^(α-1), which has none.
    """
    power = 1 / min(alpha, 1.0)
    grid = np.linspace(0, 0.5 ** (1 / power), 4097)
    x = grid**power
    density = (1 - x) ** (alpha - 1) * x ** max(alpha - 1, 0.0)
    cumulated = np.concatenate(([0.0], np.cumsum(density[1:] + density[:-1])))
    # By symmetry half of the distribution is below 1/2.
    return cumulated / (2 * cumulated[-1]), grid, power


class _Box(NamedTuple):
    """Rows and columns of an image that come from its partner, and the share of the pixels that stay."""

    rows: slice
    columns: slice
    share_outside: float


def _move_numbers(numbers: Array, like: Tensor, dimensions: int) -> Tensor:
    """Return numbers (n,) on a tensor's device, with further dimensions of one."""
    return torch.from_numpy(numbers).to(like.device).reshape(-1, *(1,) * (dimensions - 1))


def _choose_box(shape: Sequence[int], share: float, at: Array) -> _Box:
    """Return the box of an image of this shape that its partner takes, so that about `share` is left."""
    if len(shape) != 3:
        raise MLScaleError(
            f"cutmix needs images, and a sample has {len(shape)} dimensions",
            where="augment.cutmix",
            fix="augment.cutmix=0 augment.mixup=0.2",
        )
    height, width = shape[1:]
    # A box of the area 1 - λ, with the proportions of the image, as in the paper.
    side = float(np.sqrt(1 - share))
    top, bottom = _clip_range(height, side, float(at[0]))
    left, right = _clip_range(width, side, float(at[1]))
    outside = 1.0 - (bottom - top) * (right - left) / float(height * width)
    return _Box(slice(top, bottom), slice(left, right), outside)


def _clip_range(length: int, side: float, at: float) -> tuple[int, int]:
    """Return a range of the share `side` of the length, centred at `at` in [0, 1), cut at the ends."""
    half, middle = int(length * side) // 2, int(length * at)
    return max(0, middle - half), min(length, middle + half)
