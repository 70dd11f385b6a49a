"""The comparison finds what it is there to find."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mlscale.data.encoders.encoder import INPUT
from mlscale.data.encoders.tensor_encoder import TensorEncoder
from mlscale.export.parity import Outputs, Parity, compare_outputs
from mlscale.export.validation_samples import SampleBatch
from mlscale.task_types.registry import get_task_type

WEIGHTS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
BOUNDS = {"tolerance": 1e-4, "min_agreement": 0.999}


def trained(tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    return {"logits": tensors[INPUT].astype(np.float32) @ WEIGHTS}


def change_logits(change: Callable[[NDArray[np.float32]], Any]) -> Callable[[Mapping[str, NDArray[Any]]], Outputs]:
    """Return the model with other logits."""
    return lambda tensors: {"logits": np.asarray(change(trained(tensors)["logits"]), np.float32)}


def compare(first: Any, second: Any, given: list[SampleBatch], **more: Any) -> Parity:
    encoder = TensorEncoder.from_shape((4,), "uint8")
    return compare_outputs(first, second, given, task_type=get_task_type("classification"), encoder=encoder, **more)


def batches(*sizes: int) -> list[SampleBatch]:
    generator = np.random.default_rng(1)
    made = []
    for size in sizes:
        raw = generator.integers(0, 256, (size, 4), dtype=np.uint8)
        made.append(SampleBatch(list(raw), {INPUT: raw}, torch.from_numpy(raw).float(), generator.integers(0, 3, size)))
    return made


def test_equal_models_pass_and_are_counted() -> None:
    given, seen = batches(20, 20, 5), []
    parity = compare(trained, trained, given, on_batch=lambda samples, outputs: seen.append(samples))
    assert parity.find_problems(**BOUNDS) == []
    assert (parity.samples, parity.max_abs_error, parity.agreement) == (45, 0.0, 1.0)
    assert parity.batches == pytest.approx({1: 0, 3: 0, 32: 0}, abs=1e-4)
    right = sum(int((trained(each.tensors)["logits"].argmax(1) == each.y).sum()) for each in given)
    assert (parity.metric, parity.onnx_metric, parity.torch_metric) == ("accuracy", right / 45, right / 45)
    assert parity.largest_output == max(np.abs(trained(each.tensors)["logits"]).max() for each in given)
    assert seen == given


def test_a_difference_is_reported_with_its_size() -> None:
    parity = compare(trained, change_logits(lambda logits: logits + np.array([0.5, 0, 0])), batches(40))
    assert parity.max_abs_error == pytest.approx(0.5, abs=1e-4)
    (problem,) = parity.find_problems(tolerance=1e-4, min_agreement=0)
    assert problem == f"the outputs differ by {parity.relative_error:.1e} of the largest, more than 0.0001"


def test_other_classes_are_reported_with_their_share() -> None:
    parity = compare(trained, change_logits(lambda logits: -logits), batches(40))
    assert parity.agreement is not None
    assert parity.agreement < 0.5
    assert f"{parity.agreement:.2%} of the predictions agree, fewer than 99.90%" in parity.find_problems(**BOUNDS)
    assert parity.torch_metric != parity.onnx_metric


@pytest.mark.parametrize("size", [1, 3, 32])
def test_a_batch_size_that_is_wrong_by_itself_is_found(size: int) -> None:
    parity = compare(trained, change_logits(lambda logits: logits + (len(logits) == size)), batches(40))
    assert parity.max_abs_error == 0
    assert [each for each, error in parity.batches.items() if error > 0.9] == [size]
    assert len(parity.find_problems(**BOUNDS)) == 1


@pytest.mark.parametrize("which", ["trained", "exported", "both"])
def test_a_nan_is_never_near_enough(which: str) -> None:
    nan = np.float32("nan")
    parity = compare(
        change_logits(lambda logits: logits + (nan if which != "exported" else 0)),
        change_logits(lambda logits: logits + (nan if which != "trained" else 0)),
        [*batches(40)],
    )
    assert parity.find_problems(tolerance=1e9, min_agreement=0)


def test_few_samples_fill_a_large_batch() -> None:
    assert compare(trained, trained, batches(2)).batches == pytest.approx({1: 0, 3: 0, 32: 0}, abs=1e-4)


def test_a_sample_that_the_encoder_refuses_is_a_problem_with_its_name() -> None:
    (given,) = batches(3)
    spoiled = given._replace(samples=[given.samples[0], [1, 2], given.samples[2]], keys=["a", "b", "c"])
    parity = compare(trained, trained, [spoiled])
    assert parity.samples == 2
    (problem,) = parity.find_problems(**BOUNDS)
    assert problem == (
        "1 of the validation samples can't be encoded, such as b: it has the shape (2,), and the model takes (4,)"
    )


def test_equal_infinities_differ_by_nothing() -> None:
    exclude = change_logits(lambda logits: np.where([True, False, False], -np.inf, logits))
    assert compare(exclude, exclude, batches(9)).find_problems(**BOUNDS) == []
    assert compare(trained, exclude, batches(9)).find_problems(**BOUNDS) != []


def test_the_document_is_plain() -> None:
    printed = Parity(samples=3, batches={1: 0.5}).as_dict()
    assert printed["max_abs_error_by_batch"] == {"1": 0.5}
    assert printed["relative_error"] == 0.5
