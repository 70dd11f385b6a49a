"""An exact test of counts: more samples beyond a threshold, or of a kind, than a reference leads to expect."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_TERMS = 256


def compute_exceedance_p(
    exceeding: ArrayLike, samples: ArrayLike, reference_exceeding: ArrayLike, reference_samples: ArrayLike
) -> NDArray[np.float64]:
    """Return the chance of as many exceedances, or more, where both sides are from one distribution.

    Exact for a reference of any size: with K reference values beyond a threshold that is itself a value of the
    reference, j or more of n samples are beyond it as often as K + j draws out of all N + n without replacement have
    at most K from the reference (Wilks, Statistical prediction with special reference to the problem of tolerance
    limits, 1942). With K samples of a kind instead, it is Fisher's exact test. Counts may be fractions, such as those
    of an effective sample size.

    Fewer than two standard errors above the expectation count as a chance of 1: what is exact there does not matter.

    Args:
        exceeding, samples: j and n, broadcast.
        reference_exceeding, reference_samples: K and N.
    """
    j, n, k, m = (np.asarray(side, np.float64) for side in (exceeding, samples, reference_exceeding, reference_samples))
    draws, share = j + k, n / (m + n)
    excess = j - draws * share
    # Without replacement: of all draws nothing is left to chance.
    variance = draws * share * (1 - share) * (m + n - draws) / np.maximum(m + n - 1, 1)
    # The terms that are summed fall quickly from here on only, and most counts of a clean window are below.
    is_more = (excess > 0) & (excess**2 >= 4 * variance)
    p = np.ones(is_more.shape)
    if is_more.any():
        sides = np.broadcast_arrays(j, n, k, m)
        p[is_more] = _sum_tail(*(side[is_more] for side in sides))
    return p


def _sum_tail(
    j: NDArray[np.float64], n: NDArray[np.float64], k: NDArray[np.float64], m: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the hypergeometric tail from j on, of counts (c,)."""
    from scipy.special import gammaln

    def log_choose(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> NDArray[np.float64]:
        chosen: NDArray[np.float64] = gammaln(top + 1) - gammaln(bottom + 1) - gammaln(top - bottom + 1)
        return chosen

    count = j[:, None] + np.arange(_TERMS)
    rest = (j + k)[:, None] - count
    is_possible = (count <= n[:, None]) & (rest >= 0) & (rest <= m[:, None])
    count, rest = np.where(is_possible, count, 0), np.where(is_possible, rest, 0)
    log = log_choose(n[:, None], count) + log_choose(m[:, None], rest) - log_choose(n + m, j + k)[:, None]
    total: NDArray[np.float64] = np.where(is_possible, np.exp(np.minimum(log, 0)), 0).sum(-1)
    return np.minimum(total, 1)
