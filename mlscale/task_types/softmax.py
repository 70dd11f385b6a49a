"""The softmax of a served model and of batch scoring: one function, so that both give the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def compute_softmax(logits: NDArray[Any]) -> NDArray[Any]:
    """Return the probabilities of logits, of the same dtype; the classes are the last dimension."""
    # Less the maximum, which cancels out: the exponential of a large logit would overflow. A difference beyond float32
    # is minus infinity, whose share is 0 as well.
    with np.errstate(over="ignore"):
        shifted: NDArray[Any] = np.exp(logits - logits.max(-1, keepdims=True))
    shares: NDArray[Any] = shifted / shifted.sum(-1, keepdims=True)
    return shares
