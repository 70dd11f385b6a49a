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

from mlscale.launch.local_devices import LocalDevices
from mlscale.report import format_size
from mlscale.runs.host import machine as system
from mlscale.runs.host.machine import Disk

_LEAST_FREE_BYTES = 1 << 30  # bytes; less free space than this is worth a word before the first checkpoint


@dataclass(frozen=True)
class EnvironmentCheck:
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


def check_environment(devices: LocalDevices, runs: Disk, cache: Disk) -> list[EnvironmentCheck]:
    """Return every check, in the order of the groups of a config."""
    return list(iterate_checks(devices, runs, cache))


def iterate_checks(devices: LocalDevices, runs: Disk, cache: Disk) -> Iterator[EnvironmentCheck]:
    """Yield each check when it is done."""
    yield from _check_accelerators(devices)
    # The order of a config's groups: trainer, precision, strategy, logger, data.
    yield from _check_precisions(devices)
    yield from _check_strategies(devices)
    yield from _check_loggers()
    yield from _check_data_sets()
    yield from _check_disks(runs, cache)
    yield _check_snapshot()


def _check_accelerators(devices: LocalDevices) -> Iterator[EnvironmentCheck]:
    yield EnvironmentCheck("trainer.accelerator=cpu", True, f"{system.count_usable_cores()} cores")
    if devices.cuda:
        yield EnvironmentCheck("trainer.accelerator=cuda", True, f"trainer.devices up to {devices.cuda}")
    else:
        yield EnvironmentCheck("trainer.accelerator=cuda", False, *_explain_missing_cuda())
    if devices.mps:
        yield EnvironmentCheck("trainer.accelerator=mps", True, "Apple's GPU; one device")


def _explain_missing_cuda() -> tuple[str, str]:
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


def _check_precisions(devices: LocalDevices) -> Iterator[EnvironmentCheck]:
    yield EnvironmentCheck("precision=fp32", True, "always")
    if devices.cuda:
        bf16, details = devices.cuda_bf16, "in hardware" if devices.cuda_bf16 else "this GPU has no bfloat16 units"
        for name in ("bf16", "bf16_true"):
            yield EnvironmentCheck(f"precision={name}", bf16, details, "" if bf16 else "precision=fp16")
        yield EnvironmentCheck("precision=fp16", True, "in hardware, with loss scaling")
        yield EnvironmentCheck("precision=fp16_true", True, "in hardware; training in it is fragile")
        return
    if devices.mps:
        details = "as far as Apple's GPU has the operators"
    # The names of bfloat16 instructions in /proc/cpuinfo, of x86 and of Arm.
    elif system.read_cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16", "svebf16"}:
        details = "in hardware"
    else:
        details = "works, but this CPU has no bfloat16 units: slower than fp32 here"
    for name in ("bf16", "bf16_true"):
        yield EnvironmentCheck(f"precision={name}", True, details)
    for name in ("fp16", "fp16_true"):
        if devices.mps:
            yield EnvironmentCheck(f"precision={name}", True, "as far as Apple's GPU has the operators")
        else:
            yield EnvironmentCheck(f"precision={name}", False, "a CPU has no float16 units", "precision=bf16")


def _check_strategies(devices: LocalDevices) -> Iterator[EnvironmentCheck]:
    from torch import distributed

    yield EnvironmentCheck("strategy=single", True, "one process")
    backend = "nccl" if devices.cuda else "gloo"
    # torch can be built without torch.distributed, and with it without one of the backends.
    is_available = distributed.is_available() and (
        distributed.is_nccl_available() if devices.cuda else distributed.is_gloo_available()
    )
    details = f"by {backend}" + (
        "" if devices.cuda > 1 or not is_available else "; processes share this machine's cores"
    )
    fix = "" if is_available else "trainer.devices=1, or a torch built with torch.distributed"
    for name in ("auto", "ddp", "fsdp"):
        yield EnvironmentCheck(
            f"strategy={name}", is_available, details if is_available else f"this torch is built without {backend}", fix
        )


def _check_loggers() -> Iterator[EnvironmentCheck]:
    yield EnvironmentCheck("logger=csv", True, "needs nothing")
    yield _check_module("logger=tensorboard", "tensorboard", "pip install 'mlscale[tensorboard]'")
    yield _check_module("logger=mlflow", "mlflow", "pip install 'mlscale[mlflow]'")
    if not _is_installed("wandb"):
        yield _check_module("logger=wandb", "wandb", "pip install wandb")
    # The key is not sent to W&B to validate it: no command of inspection uses the network.
    elif where := find_wandb_key():
        yield EnvironmentCheck("logger=wandb", True, f"an API key is in {where}; whether it is valid is not asked")
    else:
        yield EnvironmentCheck(
            "logger=wandb", True, "no API key: recorded offline, for `wandb sync` later; `wandb login` changes that"
        )


def find_wandb_key() -> str:
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


def _check_data_sets() -> Iterator[EnvironmentCheck]:
    from mlscale.data.builtin.image_sets import DEBIAN_FASHION_MNIST, Digits, FashionMNIST
    from mlscale.data.cache_folder import get_cache_dir

    # Written before: then the package that it is made from is not needed any more.
    written = (get_cache_dir() / Digits.set_name).is_dir()
    if written:
        yield EnvironmentCheck("data=digits", True, "in the cache")
    else:
        yield _check_module("data=digits", "sklearn", "pip install scikit-learn", "written into the cache on first use")
    if (get_cache_dir() / FashionMNIST.set_name).is_dir():
        yield EnvironmentCheck("data=fashion_mnist", True, "in the cache")
    elif DEBIAN_FASHION_MNIST.is_dir():
        yield EnvironmentCheck(
            "data=fashion_mnist", True, f"from {DEBIAN_FASHION_MNIST}; written into the cache on first use"
        )
    else:
        yield EnvironmentCheck(
            "data=fashion_mnist",
            False,
            "not on this machine; downloaded on first use where there is a network",
            "apt install dataset-fashion-mnist, or `mlscale prepare data=fashion_mnist` with a network",
        )
    yield _check_module("data=imagefolder", "PIL", "pip install pillow", "your own images in folders")
    yield _check_module("data=webdataset", "webdataset", "pip install webdataset", "your own shards, secure mode on")


def _check_disks(runs: Disk, cache: Disk) -> Iterator[EnvironmentCheck]:
    for option, disk, fix in (
        ("runs_dir", runs, "runs_dir=<a folder>"),
        ("cache", cache, "export MLSCALE_CACHE=<a folder>"),
    ):
        if not disk.writable:
            yield EnvironmentCheck(option, False, f"{disk.path} can't be written to", fix)
        elif disk.free_bytes < _LEAST_FREE_BYTES:
            yield EnvironmentCheck(
                option, False, f"{disk.path} has {format_size(disk.free_bytes)} left", f"free some space, or {fix}"
            )
        else:
            yield EnvironmentCheck(option, True, f"{disk.path}, {format_size(disk.free_bytes)} free")


def _check_snapshot() -> EnvironmentCheck:
    if shutil.which("git"):
        return EnvironmentCheck("snapshot", True, "what git does not ignore, and the uncommitted diff")
    return EnvironmentCheck("snapshot", True, "without git: Python and YAML files of this folder")


def _check_module(option: str, name: str, fix: str, details: str = "installed") -> EnvironmentCheck:
    return (
        EnvironmentCheck(option, True, details)
        if _is_installed(name)
        else EnvironmentCheck(option, False, f"{name} is not installed", fix)
    )


def _is_installed(name: str) -> bool:
    # Without importing it: some of these packages take seconds.
    return find_spec(name) is not None
