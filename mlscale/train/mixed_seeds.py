"""Seeds mixed from several numbers."""

_MASK = (1 << 64) - 1


def mix_seeds(*values: int) -> int:
    """Return a 63-bit number in which every bit depends on all of `values`: the finalizer of SplitMix64 (Steele et al.
    2014) over each in turn."""
    state = 0
    for value in values:
        # The increment, factors and shifts are SplitMix64's; the mask is its arithmetic modulo 2^64.
        state = (state + value + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1
