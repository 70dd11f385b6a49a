"""The operations that torch names where they have no deterministic kernel, and the cost of those that have."""

import warnings

import pytest
import torch

from mlscale.verify_resume.resume_verdict import (
    DeterminismCost,
    describe_determinism,
    find_nondeterministic_operations,
)


def test_the_sentence_of_this_torch_is_recognised(capsys: pytest.CaptureFixture[str]) -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.zeros(4).put_(torch.arange(2), torch.ones(2))
            torch.zeros(4) + 1
    finally:
        torch.use_deterministic_algorithms(False)
    output = "".join(warnings.formatwarning(w.message, w.category, w.filename, w.lineno) for w in caught)
    assert find_nondeterministic_operations(output * 2) == ("put_",)
    assert find_nondeterministic_operations("epoch 3  loss 0.2") == ()


def test_cublas_is_named() -> None:
    # Of torch 2.13: aten/src/ATen/Context.cpp, alertCuBLASConfigNotDeterministic.
    text = (
        "UserWarning: Deterministic behavior was enabled with either `torch.use_deterministic_algorithms(True)` or "
        "`at::Context::setDeterministicAlgorithms(true)`, but this operation is not deterministic because it uses "
        "CuBLAS and you have CUDA >= 10.2. To enable deterministic behavior in this case, you must set an environment "
        "variable before running your PyTorch application: CUBLAS_WORKSPACE_CONFIG=:4096:8"
    )
    assert find_nondeterministic_operations(text) == ("cuBLAS",)


@pytest.mark.parametrize(
    ("slowdowns", "line"),
    [
        ((1.05, 1.08), "a sample takes longer (+5 to +8 %, 2 pairs of runs)"),
        ((0.91, 0.95), "a sample takes less (-9 to -5 %, 2 pairs of runs)"),
        ((0.9, 1.2), "no more than the noise (-10 to +20 %, 2 pairs of runs)"),
    ],
)
def test_pairs_that_contradict_each_other_show_no_cost(slowdowns: tuple[float, ...], line: str) -> None:
    shown = describe_determinism(DeterminismCost((), slowdowns))
    assert shown[0] == "kernels   each operation of this run has a deterministic one"
    assert shown[1].endswith(line)


def test_a_run_too_short_to_measure_has_no_cost() -> None:
    (line,) = describe_determinism(DeterminismCost(("a", "b")))
    assert line.startswith("kernels   without a deterministic one: a, b; ")
