"""Checks of the features that work on this machine, with a fix for the others. No network is used."""

from __future__ import annotations

import netrc
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from mlscale.launch.local_devices import Machine
from mlscale.report import size
from mlscale.runs import machine as system
from mlscale.runs.disk_space import Disk

_ROOM = 1 << 30  # bytes; less free space than this is worth a word before the first checkpoint


@dataclass(frozen=True)
class Check:
    """One feature that works here or doesn't.

    Attributes:
        option: as it is typed (`precision=bf16`), or its subject (`runs_dir`).
        ok: True if it works.
        says: the details, or the reason why not.
        fix: what to do if it doesn't.
    """

    option: str
    ok: bool
    says: str
    fix: str = ""


def checks(devices: Machine, runs: Disk, cache: Disk) -> list[Check]:
    """Return every check, in the order of the groups of a config."""
    return [
        *_accelerators(devices),
        # The order of a config's groups: trainer, precision, strategy, logger, data.
        *_precisions(devices),
        *_strategies(devices),
        *_loggers(),
        *_data(),
        *_disks(runs, cache),
        _snapshot(),
    ]


def _accelerators(devices: Machine) -> Iterator[Check]:
    yield Check("trainer.accelerator=cpu", True, f"{system.usable_cores()} cores")
    if devices.cuda:
        yield Check("trainer.accelerator=cuda", True, f"trainer.devices up to {devices.cuda}")
    else:
        yield Check("trainer.accelerator=cuda", False, *_why_no_cuda())
    if devices.mps:
        yield Check("trainer.accelerator=mps", True, "Apple's GPU; one device")


def _why_no_cuda() -> tuple[str, str]:
    import torch

    # Checked without torch, which finds no device if it was built without CUDA or the driver is too old.
    if Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi"):
        if torch.version.cuda is None:
            return "there is an NVIDIA driver, but this torch is built without CUDA", "install torch's CUDA build"
        return f"the driver is too old for CUDA {torch.version.cuda}, or hides its devices", "nvidia-smi"
    # /dev/kfd is the device of AMD's kernel driver.
    if Path("/dev/kfd").exists() and torch.version.hip is None:
        return "there is an AMD GPU, but this torch is built without ROCm", "install torch's ROCm build"
    return "no NVIDIA or AMD GPU was found", "trainer.accelerator=cpu"


def _precisions(devices: Machine) -> Iterator[Check]:
    yield Check("precision=fp32", True, "always")
    if devices.cuda:
        bf16, says = devices.cuda_bf16, "in hardware" if devices.cuda_bf16 else "this GPU has no bfloat16 units"
        for name in ("bf16", "bf16_true"):
            yield Check(f"precision={name}", bf16, says, "" if bf16 else "precision=fp16")
        yield Check("precision=fp16", True, "in hardware, with loss scaling")
        yield Check("precision=fp16_true", True, "in hardware; training in it is fragile")
        return
    if devices.mps:
        says = "as far as Apple's GPU has the operators"
    # The names of bfloat16 instructions in /proc/cpuinfo, of x86 and of Arm.
    elif system.cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16", "svebf16"}:
        says = "in hardware"
    else:
        says = "works, but this CPU has no bfloat16 units: slower than fp32 here"
    for name in ("bf16", "bf16_true"):
        yield Check(f"precision={name}", True, says)
    for name in ("fp16", "fp16_true"):
        if devices.mps:
            yield Check(f"precision={name}", True, "as far as Apple's GPU has the operators")
        else:
            yield Check(f"precision={name}", False, "a CPU has no float16 units", "precision=bf16")


def _strategies(devices: Machine) -> Iterator[Check]:
    from torch import distributed

    yield Check("strategy=single", True, "one process")
    backend = "nccl" if devices.cuda else "gloo"
    # torch can be built without torch.distributed, and with it without one of the backends.
    there = distributed.is_available() and (
        distributed.is_nccl_available() if devices.cuda else distributed.is_gloo_available()
    )
    says = f"by {backend}" + ("" if devices.cuda > 1 or not there else "; processes share this machine's cores")
    fix = "" if there else "trainer.devices=1, or a torch built with torch.distributed"
    for name in ("auto", "ddp"):
        yield Check(f"strategy={name}", there, says if there else f"this torch is built without {backend}", fix)


def _loggers() -> Iterator[Check]:
    yield Check("logger=csv", True, "needs nothing")
    yield _module("logger=tensorboard", "tensorboard", "pip install 'mlscale[tensorboard]'")
    yield _module("logger=mlflow", "mlflow", "pip install 'mlscale[mlflow]'")
    if not _has("wandb"):
        yield _module("logger=wandb", "wandb", "pip install wandb")
    # The key is not sent to W&B to validate it: no command of inspection uses the network.
    elif where := wandb_key():
        yield Check("logger=wandb", True, f"an API key is in {where}; whether it is valid is not asked")
    else:
        yield Check(
            "logger=wandb", True, "no API key: recorded offline, for `wandb sync` later; `wandb login` changes that"
        )


def wandb_key() -> str:
    """Return the source of W&B's API key: 'WANDB_API_KEY', or the path of a netrc; '' for none. The key is not kept."""
    if os.environ.get("WANDB_API_KEY"):
        return "WANDB_API_KEY"
    # netrc keys are stored by host: a self-hosted W&B has another one.
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    named = os.environ.get("NETRC")
    for path in [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        try:
            if netrc.netrc(path).authenticators(host):
                return str(path)
        except (OSError, netrc.NetrcParseError):
            continue
    return ""


def _data() -> Iterator[Check]:
    from mlscale.data.builtin.image_sets import DEBIAN_FASHION_MNIST, Digits, FashionMNIST
    from mlscale.data.cache_folder import cache_dir

    # Written before: then the package that it is made from is not needed any more.
    written = (cache_dir() / Digits.set_name).is_dir()
    if written:
        yield Check("data=digits", True, "in the cache")
    else:
        yield _module("data=digits", "sklearn", "pip install scikit-learn", "written into the cache on first use")
    if (cache_dir() / FashionMNIST.set_name).is_dir():
        yield Check("data=fashion_mnist", True, "in the cache")
    elif DEBIAN_FASHION_MNIST.is_dir():
        yield Check("data=fashion_mnist", True, f"from {DEBIAN_FASHION_MNIST}; written into the cache on first use")
    else:
        yield Check(
            "data=fashion_mnist",
            False,
            "not on this machine; downloaded on first use where there is a network",
            "apt install dataset-fashion-mnist, or `mlscale prepare data=fashion_mnist` with a network",
        )
    yield _module("data=imagefolder", "PIL", "pip install pillow", "your own images in folders")
    yield _module("data=webdataset", "webdataset", "pip install webdataset", "your own shards, secure mode on")


def _disks(runs: Disk, cache: Disk) -> Iterator[Check]:
    for option, disk, fix in (
        ("runs_dir", runs, "runs_dir=<a folder>"),
        ("cache", cache, "export MLSCALE_CACHE=<a folder>"),
    ):
        if not disk.writable:
            yield Check(option, False, f"{disk.path} can't be written to", fix)
        elif disk.free_bytes < _ROOM:
            yield Check(option, False, f"{disk.path} has {size(disk.free_bytes)} left", f"make room, or {fix}")
        else:
            yield Check(option, True, f"{disk.path}, {size(disk.free_bytes)} free")


def _snapshot() -> Check:
    if shutil.which("git"):
        return Check("snapshot", True, "what git does not ignore, and the uncommitted diff")
    return Check("snapshot", True, "without git: Python and YAML files of this folder")


def _module(option: str, name: str, fix: str, says: str = "installed") -> Check:
    return Check(option, True, says) if _has(name) else Check(option, False, f"{name} is not installed", fix)


def _has(name: str) -> bool:
    # Without importing it: some of these packages take seconds.
    return find_spec(name) is not None
