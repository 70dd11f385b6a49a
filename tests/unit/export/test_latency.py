"""Torch gets its threads back."""

from collections.abc import Iterator

import pytest
import torch

from mlscale.export.trained_comparison import limit_torch_threads


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

    with pytest.raises(ZeroDivisionError), limit_torch_threads():
        fails()
    assert torch.get_num_threads() == 2
