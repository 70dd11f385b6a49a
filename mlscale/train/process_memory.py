"""Peak memory of a process, and the error with remedies for out of memory."""

import contextlib
import ctypes
import gc
import re
import resource
import sys
from pathlib import Path

import torch

from mlscale.errors import Exit, MLScaleError

# The message of the CPU allocator, which raises a RuntimeError; the CUDA one raises a class of its own.
_CPU_ALLOCATION = re.compile(r"(?:not enough memory: )?you tried to allocate (\d+) bytes", re.IGNORECASE)
_CUDA_ALLOCATION = re.compile(r"Tried to allocate ([\d.]+) ([KMG]iB)")
_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB", re.MULTILINE)  # Linux: the peak of the resident size
_RESET_PEAK = "5"  # of proc_pid_clear_refs(5)
_UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def reset_peak_memory(device: torch.device) -> None:
    """Restart the peak of `measure_peak_bytes`: an earlier run of this process may have used more.

    Memory that the allocator keeps from that run stays resident where the system can't take it back; outside Linux the
    peak of the resident size is that of the process's life.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    # Freed objects first, then the pages that the allocator keeps: both count as resident until then.
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # only glibc has malloc_trim
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)


def measure_peak_bytes(device: torch.device) -> int:
    """Return the most memory this process has used since `reset_peak_memory`, bytes: allocated by torch on a CUDA
    device, resident otherwise."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError):
        if match := _PEAK.search(Path("/proc/self/status").read_text()):
            return int(match[1]) * 1024
    # Outside Linux: this peak can't be reset.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kibibytes everywhere but on macOS


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means 'out of memory'."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or bool(_CPU_ALLOCATION.search(str(error)))


def explain_out_of_memory(
    error: BaseException, *, per_device_batch: int, accumulate: int, precision: str
) -> MLScaleError | None:
    """Return the error with remedies for one that means 'out of memory'; None for any other error.

    Args:
        error: raised by the training.
        per_device_batch: samples in one forward pass of one device.
        accumulate: forward passes per optimizer step.
        precision: Lightning's precision, e.g. "32-true".
    """
    if not is_out_of_memory(error):
        return None
    on_cuda = isinstance(error, torch.OutOfMemoryError)
    peak = measure_peak_bytes(torch.device("cuda" if on_cuda and torch.cuda.is_available() else "cpu"))
    wanted = _parse_requested_bytes(str(error))
    needed = f", and {_format_gib(wanted)} more were asked for" if wanted else ""
    fixes = []
    if per_device_batch > 1:
        fixes.append(
            f"trainer.accumulate_grad_batches={accumulate * 2}  "
            f"# {_format_half(per_device_batch)} samples at a time; the optimizer still sees the same global batch"
        )
    if precision == "32-true":
        fixes.append("precision=bf16  # roughly 12 to 35 % less")
    if per_device_batch > 1:
        fixes.append("data.batch_size=…  # smaller; it is global, so the optimizer sees fewer samples per step")
    else:
        fixes.append("a smaller model or input: the batch is one sample already")
    return MLScaleError(
        f"out of memory on the {'accelerator' if on_cuda else 'host'}: the peak was {_format_gib(peak)}{needed}",
        where="data.batch_size, trainer.accumulate_grad_batches",
        why=f"each device holds {per_device_batch} sample{'s' * (per_device_batch != 1)} at a time "
        f"(accumulation {accumulate}, precision {precision})",
        fix="\n".join(fixes),
        exit=Exit.ENVIRONMENT,
    )


def _format_half(batch: int) -> str:
    return str(batch // 2) if batch % 2 == 0 else f"about {batch / 2:.0f}"


def _parse_requested_bytes(message: str) -> int:
    if match := _CPU_ALLOCATION.search(message):
        return int(match[1])
    if match := _CUDA_ALLOCATION.search(message):
        return int(float(match[1]) * _UNITS[match[2]])
    return 0


def _format_gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
