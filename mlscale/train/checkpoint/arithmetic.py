"""The facts that decide the last bits of a step besides its inputs: threads, libraries, and the kind of processor.

They are saved with each checkpoint and compared when a run is resumed: a sum that is split in another way, or computed
by other instructions, is rounded in another way.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import torch

from mlscale.runs.host.machine import read_cpu_model

Facts = dict[str, str | int]
NOT_RECORDED = "the checkpoint does not record threads, torch, oneDNN and CPU"
# Older builds of torch print oneDNN's former name.
_ONEDNN = re.compile(r"(?:oneDNN|MKL-DNN) v([\d.]+)")
# oneDNN's variable and its former name; the first that is set counts.
_ISA = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")


def collect_arithmetic_facts(device: torch.device) -> Facts:
    """Return what this process computes with: threads, torch, oneDNN and CPU; on CUDA also the device."""
    values: Facts = {
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "oneDNN": _describe_onednn(),
        # The capability belongs to it: ATEN_CPU_CAPABILITY limits torch's own kernels on the same processor.
        "CPU": f"{read_cpu_model()} ({torch.backends.cpu.get_cpu_capability()})",
    }
    if device.type == "cuda":
        values |= {"device": torch.cuda.get_device_name(device), "CUDA": str(torch.version.cuda)}
    return values


def describe_changed_facts(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> list[str]:
    """Return a phrase for each fact that has changed, such as `threads 2 before, 1 now`."""
    if not before:
        return [NOT_RECORDED]
    names = dict.fromkeys([*now, *before])
    return [
        f"{name} {before.get(name, 'unknown')} before, {now.get(name, 'unknown')} now"
        for name in names
        if before.get(name) != now.get(name)
    ]


def _describe_onednn() -> str:
    """Return oneDNN's version and the instruction sets that it is limited to; `off` where it is not used."""
    mkldnn: Any = torch.backends.mkldnn
    if not mkldnn.is_available() or not mkldnn.enabled:
        return "off"
    version = _ONEDNN.search(torch.__config__.show())
    limits = [os.environ[name] for name in _ISA if os.environ.get(name)]
    return " ".join([version[1] if version else "unknown version", *limits[:1]])
