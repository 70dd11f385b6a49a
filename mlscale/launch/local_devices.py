"""The devices of this machine: accelerators, cores, and the precisions that they compute."""

from __future__ import annotations

from dataclasses import dataclass

from mlscale.runs.host.machine import count_usable_cores


@dataclass(frozen=True)
class LocalDevices:
    """The devices of this machine.

    Attributes:
        cuda: number of CUDA or ROCm devices.
        mps: True if Apple's GPU is available.
        cores: CPU cores this process may use (affinity and quota, not the sockets' total).
        cuda_bf16: True if the CUDA devices compute bfloat16 natively.
    """

    cuda: int
    mps: bool
    cores: int
    cuda_bf16: bool

    def count_devices(self, accelerator: str) -> int | None:
        """Return the number of devices of an accelerator; None for a CPU, which holds any number of processes."""
        return {"cuda": self.cuda, "mps": int(self.mps)}.get(accelerator)


def detect_local_devices() -> LocalDevices:
    """Return the devices that torch and the operating system report."""
    import torch

    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return LocalDevices(
        cuda=cuda,
        mps=torch.backends.mps.is_available(),
        cores=max(1, int(count_usable_cores())),
        # Emulated bfloat16 does not count: torch offers it on older GPUs, which do not compute it in hardware.
        cuda_bf16=cuda > 0 and torch.cuda.is_bf16_supported(including_emulation=False),
    )
