"""Out of memory: recognised, and answered with what helps."""

import sys

import pytest
import torch

from mlscale.errors import Exit
from mlscale.train.process_memory import explain_out_of_memory, measure_peak_bytes, reset_peak_memory


def explained(error: BaseException, per_device_batch: int = 32, precision: str = "32-true") -> str:
    answer = explain_out_of_memory(error, per_device_batch=per_device_batch, accumulate=1, precision=precision)
    assert answer is not None
    assert answer.exit is Exit.ENVIRONMENT
    return str(answer)


def test_the_real_error_of_the_cpu_allocator() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.uint8)
    text = explained(caught.value)
    assert "1048576.00 GiB more were asked for" in text
    for part in (
        "the peak was",
        "accumulate_grad_batches=2",
        "16 samples at a time",
        "precision=bf16",
        "data.batch_size",
    ):
        assert part in text


def test_cuda_and_python_errors() -> None:
    cuda = torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 15 GiB"
    )
    assert "0.02 GiB more" in explained(cuda)
    assert "out of memory on the host" in explained(MemoryError())


def test_only_what_helps_is_advised() -> None:
    text = explained(MemoryError(), per_device_batch=1, precision="bf16-mixed")
    assert "accumulate_grad_batches=" not in text
    assert "precision=bf16 " not in text
    assert "one sample already" in text


def test_other_errors_are_left_alone() -> None:
    assert explain_out_of_memory(RuntimeError("shapes"), per_device_batch=1, accumulate=1, precision="32-true") is None


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak is that of the process's life")
def test_an_earlier_run_does_not_count() -> None:
    device = torch.device("cpu")
    large = torch.ones(60 << 20, dtype=torch.uint8)
    before = measure_peak_bytes(device)
    del large
    reset_peak_memory(device)
    assert measure_peak_bytes(device) < before - (40 << 20)
    small = torch.ones(30 << 20, dtype=torch.uint8)
    assert before > measure_peak_bytes(device) > 30 << 20
    del small


def test_the_peak_is_in_bytes() -> None:
    assert 50 * 2**20 < measure_peak_bytes(torch.device("cpu")) < 2**40
