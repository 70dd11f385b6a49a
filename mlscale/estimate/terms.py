"""Memory of a CUDA process in addition to its tensors, from published measurements; not verified on a GPU here."""

from __future__ import annotations

from mlscale.estimate.memory_parts import StepMemory

_GIB = 2**30
# The upper end of the reported values, as the question is whether a run fits.
CONTEXT = int(0.6 * _GIB)  # 0.3 to 0.6 GiB: the driver's context and the kernels that were loaded
WORKSPACE = 32 * 2**20  # cuBLAS's default on Hopper, 8 MiB before
NCCL = int(0.5 * _GIB)  # 0.2 to 0.5 GiB: channels between the ranks
FRAGMENTATION = 0.2  # of the peak: what the caching allocator reserves and can't use


def compute_cuda_overhead(memory: StepMemory, world_size: int) -> dict[str, int]:
    """Return the bytes to add to the peak of a process on a CUDA device, by purpose.

    Args:
        world_size: number of ranks; several of them communicate by NCCL.
    """
    terms = {"context": CONTEXT, "workspace": WORKSPACE, "fragmentation": int(FRAGMENTATION * memory.peak)}
    if world_size > 1:
        terms["nccl"] = NCCL
    return terms
