"""What CUDA needs besides tensors."""

from mlscale.commands.estimate.entry import compute_cuda_overhead
from mlscale.estimate.step_memory import StepMemory

MEMORY = StepMemory(
    peak=1000, parameters=100, gradients=90, optimizer_state=0, activations=810, scratch=0, error=0.03, how=""
)


def test_one_device_talks_to_nobody() -> None:
    terms = compute_cuda_overhead(MEMORY, 1)
    assert set(terms) == {"context", "workspace", "fragmentation"}
    assert terms["fragmentation"] == 200


def test_several_devices_have_channels_between_them() -> None:
    assert compute_cuda_overhead(MEMORY, 2)["nccl"] > 0
