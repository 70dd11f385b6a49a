"""What a CUDA process needs beyond its tensors, by others' measurements. Not verified by ours."""

from __future__ import annotations

from mlscale.estimate.step_memory import Memory

_GIB = 2**30
# The upper end of what is reported, since the question is whether a run fits.
CONTEXT = int(0.6 * _GIB)  # 0.3 to 0.6 GiB: the driver's context and the kernels that were loaded
WORKSPACE = 32 * 2**20  # cuBLAS's default on Hopper, 8 MiB before
NCCL = int(0.5 * _GIB)  # 0.2 to 0.5 GiB: channels between the ranks
FRAGMENTATION = 0.2  # of the peak: what the caching allocator reserves and can't use


def cuda_terms(memory: Memory, world_size: int, *, bucket_view: bool) -> dict[str, int]:
    """Bytes to add to the peak of a process on a CUDA device, by what they are for.

    Args:
        world_size: ranks; more than one of them talk by NCCL.
        bucket_view: DDP's gradients live in its buckets; otherwise the buckets are a copy of them.
    """
    terms = {"context": CONTEXT, "workspace": WORKSPACE, "fragmentation": int(FRAGMENTATION * memory.peak)}
    if world_size > 1:
        terms["nccl"] = NCCL
        terms["ddp_buckets"] = 0 if bucket_view else memory.gradients
    return terms
