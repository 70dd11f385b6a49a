"""Times are told apart, and torch gets its threads back."""

import time
from collections.abc import Iterator

import pytest
import torch

from mlscale.export.latency import medians, one_thread


def test_medians_of_calls_that_differ() -> None:
    quick, slow = medians(lambda: time.sleep(0.001), lambda: time.sleep(0.004))
    assert 1 <= quick < slow
    assert slow >= 4


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_torch_has_its_threads_back_even_after_an_error(two_threads: None) -> None:
    def fails() -> None:
        assert torch.get_num_threads() == 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), one_thread():
        fails()
    assert torch.get_num_threads() == 2
