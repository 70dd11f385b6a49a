"""What this machine has: accelerators, cores, and which precisions they compute."""

from __future__ import annotations

from dataclasses import dataclass

from mlscale.runs.machine import usable_cores


@dataclass(frozen=True)
class Machine:
    """The devices of this machine.

    Attributes:
        cuda: number of CUDA or ROCm devices.
        mps: whether Apple's GPU is there.
        cores: CPU cores this process may use (affinity and quota, not the sockets' total).
        cuda_bf16: whether every CUDA device computes bfloat16.
    """

    cuda: int
    mps: bool
    cores: int
    cuda_bf16: bool

    def count(self, accelerator: str) -> int | None:
        """Devices of an accelerator; None for a CPU, which holds any number of processes."""
        return {"cuda": self.cuda, "mps": int(self.mps)}.get(accelerator)


def this_machine() -> Machine:
    """Ask torch and the operating system."""
    import torch

    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return Machine(
        cuda=cuda,
        mps=torch.backends.mps.is_available(),
        cores=max(1, int(usable_cores())),
        cuda_bf16=cuda > 0 and torch.cuda.is_bf16_supported(including_emulation=False),
    )
