"""What CUDA needs besides tensors."""

from mlscale.estimate.step_memory import StepMemory
from mlscale.estimate.terms import compute_cuda_overhead

MEMORY = StepMemory(
    peak=1000, parameters=100, gradients=90, optimizer_state=0, activations=810, scratch=0, error=0.03, how=""
)


def test_one_device_talks_to_nobody() -> None:
    terms = compute_cuda_overhead(MEMORY, 1, bucket_view=False)
    assert set(terms) == {"context", "workspace", "fragmentation"}
    assert terms["fragmentation"] == 200


def test_buckets_are_a_copy_of_the_gradients_unless_these_live_in_them() -> None:
    assert compute_cuda_overhead(MEMORY, 2, bucket_view=False)["ddp_buckets"] == 90
    assert compute_cuda_overhead(MEMORY, 2, bucket_view=True)["ddp_buckets"] == 0
    assert compute_cuda_overhead(MEMORY, 2, bucket_view=True)["nccl"] > 0
