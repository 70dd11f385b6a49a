"""Mixed seeds: one number of several, without twins."""

from itertools import product

from mlscale.train.checkpoint.random_states import mix_seeds


def test_mix_is_a_seed_and_has_no_twins() -> None:
    values = [mix_seeds(*parts) for parts in product(range(4), range(4), range(40), range(4))]
    assert len(set(values)) == len(values)
    assert all(0 <= value < 2**63 for value in values)
    assert mix_seeds(0, 1) != mix_seeds(1, 0)


def test_mix_is_splitmix64() -> None:
    assert mix_seeds(0) == 0xE220A8397B1DCDAF >> 1  # the first number of the reference implementation from state 0
