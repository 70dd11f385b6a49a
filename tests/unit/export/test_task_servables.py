"""A servable of each task type gives what torch does, on awkward raw samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mlscale.export.servable import Servable
from tests.task_servables import EXAMPLES, build_examples, build_torch_model, get_task_servable

__all__ = ["get_task_servable"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_outputs_are_those_of_torch(name: str, get_task_servable: Callable[[str], Servable]) -> None:
    servable, example = get_task_servable(name), build_examples()[name]
    trained = build_torch_model(example)
    raw = example.draw(np.random.default_rng(0), 23)
    packed = servable.pack_samples(raw)
    assert not packed.bad
    outputs, expected = servable.compute_samples(packed), trained.compute_samples(trained.pack_samples(raw))
    assert set(outputs) == set(expected)
    for output, values in expected.items():
        np.testing.assert_allclose(outputs[output], values, rtol=1e-5, atol=1e-5)
