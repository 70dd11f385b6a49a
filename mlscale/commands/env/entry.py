"""A description of this machine, and of the features that work on it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from mlscale.commands.env import COMMAND
from mlscale.commands.options import read_options
from mlscale.errors import Exit
from mlscale.launch.external.external_launcher import find_external_rank
from mlscale.report import format_key_values, format_size
from mlscale.report.document import print_document
from mlscale.runs.host import machine as system
from mlscale.runs.host.disk_space import Disk, measure_disk

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
# The packages of each extra in pyproject.toml, with which an extra counts as installed.
_EXTRAS = {
    "bitsandbytes": ("bitsandbytes",),
    "compress": _ONNX, "dali": ("nvidia-dali-cuda120",), "debug": ("debugpy",), "evaluate": ("pyarrow",),
    "export": _ONNX, "loadtest": ("locust",), "mlflow": ("mlflow-skinny",), "monitor": ("pyarrow",),
    "notify": ("apprise",), "predict": ("onnxruntime", "pyarrow"), "remote": ("fsspec",), "s3": ("fsspec", "s3fs"),
    "gs": ("fsspec", "gcsfs"), "az": ("fsspec", "adlfs"),
    "retrain": (*_ONNX, "pyarrow"), "serve": ("onnxruntime", "httptools", "pyarrow", "uvloop"), "table": ("pyarrow",),
    "openvino": ("openvino",), "tensorboard": ("tensorboard",), "tfserving": (*_ONNX, "tensorflow-cpu"),
    "tfrecord": ("google-crc32c", "protobuf"), "timm": ("timm",),
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
    """Run `mlscale env`; return the exit code. One of several processes of a launcher compares them with each other.

    Raises:
        MLScaleError: a key that it does not have.
    """
    options = read_options("env", COMMAND.actions, argv)
    external = find_external_rank()
    if external is not None and external.world_size > 1:
        from mlscale.commands.env.allocation import check_allocation

        return check_allocation(external, options.runs_dir, options.timeout_s, options.output)
    report = describe_machine(options.runs_dir)
    if options.output == "json":
        print_document("env", report)
    else:
        print(_format_report(report))
    return int(Exit.DONE)


def describe_machine(root: str) -> dict[str, Any]:
    """Return the report of `mlscale env`, as JSON has it: versions, extras, devices, cpu, memory, disks, checks."""
    # Imported late: a wrong key is reported without waiting for torch.
    from mlscale.commands.env.environment_checks import check_environment
    from mlscale.data.cache_folder import get_cache_dir
    from mlscale.launch.local_devices import detect_local_devices

    devices = detect_local_devices()
    runs, cache = _measure_disks(Path(root), get_cache_dir())
    return {
        "versions": {
            "python": sys.version.split()[0],
            "executable": sys.executable,
            **_read_package_versions(_PACKAGES),
        },
        # By the installed metadata: importing each package would take seconds.
        "extras": {extra: all(_read_package_versions(names).values()) for extra, names in _EXTRAS.items()},
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
    return measure_disk(runs, 0.4), measure_disk(cache, 0.4)


def _format_report(report: dict[str, Any]) -> str:
    versions, cpu, memory, devices = report["versions"], report["cpu"], report["memory"], report["devices"]
    missing = [name for name, is_installed in report["extras"].items() if not is_installed]
    extras = ", ".join(name for name in report["extras"] if name not in missing) or "none"
    blocks = [
        ("versions", format_key_values([(name, version or "not installed") for name, version in versions.items()])),
        (
            "machine",
            format_key_values(
                [
                    ("cpu", cpu["model"]),
                    ("cores", f"{cpu['cores']} usable of {cpu['cores_of_machine']}"),
                    ("instructions", ", ".join(cpu["instructions"]) or None),
                    ("memory", f"{format_size(memory['usable_bytes'])}, {format_size(memory['free_bytes'])} free"),
                    *_format_gpus(devices),
                    ("runs disk", _format_disk_speed(report["disks"]["runs"])),
                    ("cache disk", _format_disk_speed(report["disks"]["cache"])),
                    ("extras", extras),
                    *(
                        [("not installed", f"{', '.join(missing)}; pip install 'mlscale[{missing[0]}]'")]
                        if missing
                        else []
                    ),
                ]
            ),
        ),
        ("what works here", _format_checks(report["checks"])),
    ]
    return "\n\n".join(f"{title}\n" + "\n".join("  " + line for line in text.splitlines()) for title, text in blocks)


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


def _format_disk_speed(disk: dict[str, Any]) -> str:
    if not disk["writable"]:
        return f"{disk['path']} can't be written to"
    write, read = (format_size(disk[key]) for key in ("write_bytes_per_s", "read_bytes_per_s"))
    return f"writes {write}/s, reads {read}/s, {format_size(disk['free_bytes'])} free   ({disk['path']})"


def _format_checks(checks: list[dict[str, Any]]) -> str:
    width = max(len(check["option"]) for check in checks)
    lines = []
    for check in checks:
        mark = "[ok]" if check["ok"] else "[no]"
        lines.append(f"{mark} {check['option']:<{width}}  {check['says']}")
        if check["fix"]:
            lines.append(f"     {'':<{width}}  fix: {check['fix']}")
    return "\n".join(lines)
