"""The comparison finds what it is there to find."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlscale.export.parity import Parity, compare_logits
from mlscale.export.validation_samples import ValidationBatch

WEIGHTS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
BOUNDS = {"tolerance": 1e-4, "min_agreement": 0.999}


def trained(x: Tensor) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = x.numpy() @ WEIGHTS
    return logits


def exported(raw: NDArray[Any]) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = raw.astype(np.float32) @ WEIGHTS
    return logits


def batches(*sizes: int) -> list[ValidationBatch]:
    generator = np.random.default_rng(1)
    made = []
    for size in sizes:
        raw = generator.integers(0, 256, (size, 4), dtype=np.uint8)
        made.append(ValidationBatch(raw, torch.from_numpy(raw).float(), generator.integers(0, 3, size)))
    return made


def test_equal_models_pass_and_are_counted() -> None:
    given, seen = batches(20, 20, 5), []
    parity = compare_logits(trained, exported, given, lambda samples, logits: seen.append((samples, logits)))
    assert parity.find_problems(**BOUNDS) == []
    assert (parity.samples, parity.max_abs_error, parity.agreement) == (45, 0.0, 1.0)
    assert parity.batches == {1: 0.0, 3: 0.0, 32: 0.0}
    right = sum(int((exported(each.raw).argmax(1) == each.y).sum()) for each in given)
    assert parity.onnx_accuracy == parity.torch_accuracy == right / 45
    assert parity.largest_logit == max(np.abs(exported(each.raw)).max() for each in given)
    assert [samples for samples, _ in seen] == given


def test_a_difference_is_told_with_its_size() -> None:
    parity = compare_logits(trained, lambda raw: exported(raw) + np.array([0.5, 0, 0], np.float32), batches(40))
    assert parity.max_abs_error == pytest.approx(0.5, abs=1e-4)
    (problem,) = parity.find_problems(tolerance=1e-4, min_agreement=0)
    assert problem == f"the logits differ by {parity.relative_error:.1e} of the largest, more than 0.0001"


def test_other_classes_are_told_with_their_share() -> None:
    parity = compare_logits(trained, lambda raw: -exported(raw), batches(40))
    assert parity.agreement < 0.5
    assert f"{parity.agreement:.2%} of the classes agree, fewer than 99.90%" in parity.find_problems(**BOUNDS)
    assert parity.torch_accuracy != parity.onnx_accuracy


@pytest.mark.parametrize("size", [1, 3, 32])
def test_a_batch_size_that_is_wrong_by_itself_is_found(size: int) -> None:
    parity = compare_logits(trained, lambda raw: exported(raw) + (len(raw) == size), batches(40))
    assert parity.max_abs_error == 0
    assert [each for each, error in parity.batches.items() if error > 0.9] == [size]
    assert len(parity.find_problems(**BOUNDS)) == 1


@pytest.mark.parametrize("which", ["trained", "exported", "both"])
def test_a_nan_is_never_near_enough(which: str) -> None:
    nan = np.float32("nan")
    parity = compare_logits(
        lambda x: trained(x) + (nan if which != "exported" else 0),
        lambda raw: exported(raw) + (nan if which != "trained" else 0),
        [*batches(40)],
    )
    assert parity.find_problems(tolerance=1e9, min_agreement=0)


def test_few_samples_fill_a_large_batch() -> None:
    assert compare_logits(trained, exported, batches(2)).batches == {1: 0.0, 3: 0.0, 32: 0.0}


def test_the_document_is_plain() -> None:
    said = Parity(samples=3, batches={1: 0.5}).as_dict()
    assert said["max_abs_error_by_batch"] == {"1": 0.5}
    assert said["relative_error"] == 0.5
