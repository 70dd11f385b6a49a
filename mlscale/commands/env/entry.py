"""A description of this machine, and of the features that work on it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlscale.commands.env import COMMAND
from mlscale.commands.options import read_options
from mlscale.contracts.output_document import print_document
from mlscale.errors import Exit
from mlscale.launch.external.external_launcher import find_external_rank
from mlscale.report import format_size
from mlscale.report.terminal import paint, wrap_text
from mlscale.runs.host import machine as system
from mlscale.runs.host.machine import Disk, measure_disk

if TYPE_CHECKING:
    from mlscale.commands.env.environment_checks import EnvironmentCheck

_NAME_WIDTH, _OPTION_WIDTH = 17, 24  # of the longest name of a row and of a check
_DISK_SECONDS = 0.4
_MARKS = {True: "[ok]", False: "[no]"}
# By distribution name, as pip has it, which is not always the name to import.
_PACKAGES = (
    "mlscale",
    "torch",
    "pytorch-lightning",
    "torchvision",
    "torchmetrics",
    "hydra-core",
    "omegaconf",
    "webdataset",
    "wandb",
    "scikit-learn",
)
_ONNX = ("onnx", "onnxruntime", "onnxscript")
_MONITOR = ("prometheus-client", "pyarrow")
# The packages of each extra in pyproject.toml, with which an extra counts as installed.
_EXTRAS = {
    "bitsandbytes": ("bitsandbytes",), "datasets": ("datasets", "pyarrow"),
    "compress": _ONNX, "dali": ("nvidia-dali-cuda120",), "evaluate": ("pyarrow",),
    "export": _ONNX, "loadtest": ("locust", "pyarrow"), "mlflow": ("mlflow-skinny",),
    "monitor": _MONITOR, "notify": ("apprise",), "predict": ("onnxruntime", "pyarrow"),
    "remote": ("fsspec",), "s3": ("fsspec", "s3fs"),
    "gs": ("fsspec", "gcsfs"), "az": ("fsspec", "adlfs"),
    "retrain": (*_ONNX, *_MONITOR), "serve": ("onnxruntime", "httptools", "orjson", *_MONITOR, "uvloop"),
    "table": ("pyarrow",), "tensorboard": ("tensorboard",),
    "tfserving": (*_ONNX, "tensorflow-cpu"), "tfrecord": ("google-crc32c", "protobuf"), "timm": ("timm",),
    "tokenizers": ("tokenizers",),
}  # fmt: skip
# Flags of /proc/cpuinfo, of x86 and Arm, that matter for training and inference.
_INSTRUCTIONS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "VNNI",
    "avx_vnni": "AVX-VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "amx_bf16": "AMX BF16",
    "amx_int8": "AMX INT8",
    "asimd": "NEON",
    "sve": "SVE",
    "bf16": "BF16",
}


def main(argv: Sequence[str]) -> int:
    """Run `mlscale env`; return the exit code. Of a launcher's processes one of each machine reports.

    Raises:
        MLScaleError: a key that it does not have.
    """
    options = read_options("env", COMMAND.actions, argv)
    external = find_external_rank()
    if external is not None and external.local_rank:
        return int(Exit.DONE)
    if options.output == "json":
        print_document("env", describe_machine(options.runs_dir))
        return int(Exit.DONE)
    # Each line as soon as it is known: importing torch and measuring two disks take seconds.
    for line in _report_machine(options.runs_dir):
        print(_paint_mark(wrap_text(line)), flush=True)
    return int(Exit.DONE)


def _list_versions() -> dict[str, str | None]:
    return {"python": sys.version.split()[0], "executable": sys.executable, **_read_package_versions(_PACKAGES)}


def _list_extras() -> dict[str, bool]:
    """Return each extra, and whether its packages are installed."""
    # By the installed metadata: importing each package would take seconds.
    return {extra: all(_read_package_versions(names).values()) for extra, names in _EXTRAS.items()}


def describe_machine(root: str) -> dict[str, Any]:
    """Return the report of `mlscale env`, as JSON has it: versions, extras, devices, cpu, memory, disks, checks."""
    # Imported late: a wrong key is reported without waiting for torch.
    from mlscale.commands.env.environment_checks import check_environment
    from mlscale.data.cache_folder import get_cache_dir
    from mlscale.launch.local_devices import detect_local_devices

    devices = detect_local_devices()
    runs, cache = _measure_disks(Path(root), get_cache_dir())
    return {
        "versions": _list_versions(),
        "extras": _list_extras(),
        "devices": _describe_devices(),
        "cpu": _describe_cpu(),
        "memory": {"usable_bytes": system.get_memory_bytes(), "free_bytes": system.get_free_memory()},
        "disks": {"runs": asdict(runs), "cache": asdict(cache)},
        "checks": [asdict(check) for check in check_environment(devices, runs, cache)],
    }


def _read_package_versions(names: Sequence[str]) -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            # Reported as "not installed", not left out: users look for the package that is missing.
            versions[name] = None
    return versions


def _describe_devices() -> dict[str, Any]:
    import torch

    cards = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        card = torch.cuda.get_device_properties(index)
        cards.append({"name": card.name, "memory_bytes": card.total_memory, "capability": f"{card.major}.{card.minor}"})
    return {
        "cuda": torch.version.cuda,
        "rocm": torch.version.hip,
        "gpus": cards,
        "mps": torch.backends.mps.is_available(),
    }


def _describe_cpu() -> dict[str, Any]:
    flags = system.read_cpu_flags()
    return {
        "model": system.read_cpu_model(),
        "cores": system.count_usable_cores(),
        # Both numbers: a container or an affinity mask may allow fewer cores than the machine has.
        "cores_of_machine": os.cpu_count(),
        "instructions": [name for flag, name in _INSTRUCTIONS.items() if flag in flags],
    }


def _measure_disks(runs: Path, cache: Path) -> tuple[Disk, Disk]:
    """Return the measured disks of both folders; takes less than two seconds for both."""
    return measure_disk(runs, _DISK_SECONDS), measure_disk(cache, _DISK_SECONDS)


def _report_machine(root: str) -> Iterator[str]:
    """Yield the lines of the report, what takes long last within its section."""
    yield "versions"
    for name, version in _list_versions().items():
        yield _format_row(name, version or "not installed")
    yield "\nmachine"
    cpu = _describe_cpu()
    yield _format_row("cpu", cpu["model"])
    yield _format_row("cores", f"{cpu['cores']} usable of {cpu['cores_of_machine']}")
    yield _format_row("instructions", ", ".join(cpu["instructions"]) or None)
    yield _format_row(
        "memory", f"{format_size(system.get_memory_bytes())}, {format_size(system.get_free_memory())} free"
    )
    extras = _list_extras()
    missing = [name for name, is_installed in extras.items() if not is_installed]
    yield _format_row("extras", ", ".join(name for name in extras if name not in missing) or "none")
    if missing:
        yield _format_row("not installed", f"pip install 'mlscale[{','.join(missing)}]', or some of them")
    yield from _report_devices(root)


def _report_devices(root: str) -> Iterator[str]:
    """Yield the lines about GPUs and disks, and what works with them."""
    from mlscale.commands.env.environment_checks import iterate_checks
    from mlscale.data.cache_folder import get_cache_dir
    from mlscale.launch.local_devices import detect_local_devices

    for name, text in _format_gpus(_describe_devices()):
        yield _format_row(name, text)
    disks = []
    for name, folder in (("runs disk", Path(root)), ("cache disk", get_cache_dir())):
        disks.append(measure_disk(folder, _DISK_SECONDS))
        yield _format_row(name, _format_disk_speed(disks[-1]))
    yield "\nwhat works here"
    for check in iterate_checks(detect_local_devices(), *disks):
        yield from _format_check(check)


def _format_row(name: str, value: str | None) -> str:
    return f"  {name:<{_NAME_WIDTH}}  {value or '-'}"


def _format_gpus(devices: dict[str, Any]) -> list[tuple[str, str]]:
    kind = f"ROCm {devices['rocm']}" if devices["rocm"] else f"CUDA {devices['cuda']}"
    cards = [
        (
            f"gpu {index}",
            f"{card['name']}, {format_size(card['memory_bytes'])}, {kind}, capability {card['capability']}",
        )
        for index, card in enumerate(devices["gpus"])
    ]
    return cards or [("gpu", "Apple's (MPS)" if devices["mps"] else "none")]


def _format_disk_speed(disk: Disk) -> str:
    if disk.write_bytes_per_s is None or disk.read_bytes_per_s is None:
        return f"{disk.path} can't be written to"
    write, read = format_size(disk.write_bytes_per_s), format_size(disk.read_bytes_per_s)
    return f"writes {write}/s, reads {read}/s, {format_size(disk.free_bytes)} free ({disk.path})"


def _format_check(check: EnvironmentCheck) -> Iterator[str]:
    yield f"  {_MARKS[check.ok]} {check.option:<{_OPTION_WIDTH}}  {check.says}"
    if check.fix:
        yield f"       {'':<{_OPTION_WIDTH}}  fix: {check.fix}"


def _paint_mark(line: str) -> str:
    """Return a line that fits the terminal with its mark in colour: escape sequences would count as characters."""
    for is_ok, mark in _MARKS.items():
        if line.startswith(f"  {mark}"):
            return line.replace(mark, paint(mark, "green" if is_ok else "red"), 1)
    return line
