"""What counts as a batch."""

import pytest
import torch

from mlscale.errors import MLScaleError
from mlscale.tasks.batch import get_batch_size, unpack_batch

X, Y = torch.zeros(3, 2), torch.tensor([0, 1, 1])


def test_a_dict_and_a_pair_are_batches() -> None:
    assert unpack_batch({"x": X, "y": Y, "key": ["a"]}).weight is None
    assert unpack_batch({"x": X, "y": Y, "weight": torch.ones(3)}).weight is not None
    for pair in ((X, Y), [X, Y]):
        assert unpack_batch(pair).y is Y


@pytest.mark.parametrize("batch", [X, {"image": X}, (X,), None])
def test_anything_else_is_an_error_that_says_so(batch: object) -> None:
    with pytest.raises(MLScaleError, match="reads"):
        unpack_batch(batch)


def test_a_flat_batch_of_several_inputs_is_answered_by_the_form_that_is_taken() -> None:
    with pytest.raises(MLScaleError, match="the batch is list") as caught:
        unpack_batch([X, X, Y])
    assert 'let the dataset return ({"a": a, "b": b}, y)' in caught.value.fix
    assert unpack_batch(({"a": X, "b": X}, Y)).y is Y


@pytest.mark.parametrize(
    ("batch", "size"),
    [
        ({"x": X, "y": Y}, 3),
        ((X, Y), 3),
        (X, 3),
        ({"key": ["a", "b"]}, 2),
        ({"inputs": {"ids": X}}, 3),
        (None, 0),
        ("text", 0),
        ([], 0),
    ],
)
def test_the_size_of_any_batch(batch: object, size: int) -> None:
    assert get_batch_size(batch) == size
