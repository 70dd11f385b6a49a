"""Live checks of servers: the targets' own ones, and execution providers of `mlscale serve`."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from mlscale.contracts.servable_yaml import read_document
from mlscale.errors import Exit, MLScaleError
from mlscale.export.engines.runtime import Runtime
from mlscale.export.servable import load
from mlscale.export.warmup import WARMUP, read_warmup
from scripts.live_check.finding import Finding
from scripts.live_check.run_mlscale import CheckError, run_mlscale
from scripts.target_data import TYPES, write_data

_TARGETS = ("onnx", "triton", "tfserving")
_RUNTIMES = {"onnx": "onnxruntime", "triton": "onnxruntime", "tfserving": "tensorflow-cpu"}
_PROVIDERS = ("cuda", "tensorrt")


def check_targets(folder: Path, samples: int) -> Iterator[Finding]:
    """Export each type to each target, and let its own server answer raw samples."""
    for kind in TYPES:
        run = _train(folder, kind, samples)
        for target in _TARGETS:
            yield _read_back(folder, kind, run, target)
            yield _check_target(folder, kind, run, target, samples)


def _read_back(folder: Path, kind: str, run: str, target: str) -> Finding:
    """Export without the server: what is written is read back by the target's runtime, and compared with torch."""
    what = f"target={target}, {kind}: read back"
    try:
        words = (f"target={target}", f"to={folder}/{kind}-{target}-files")
        metrics = run_mlscale(folder, "export", run, *words)["metrics"]
    except CheckError as error:
        return Finding(what, "not here" if error.is_environment else "failed", str(error))
    difference, package = metrics[f"target_{target}_relative_error"], _RUNTIMES[target]
    seen = f"{metrics['samples']} raw samples, largest difference from torch {difference:.1e}"
    return Finding(what, "proven", f"{package} {version(package)}", seen)


def _check_target(folder: Path, kind: str, run: str, target: str, samples: int) -> Finding:
    what, to = f"target={target}, {kind}: its own server", folder / f"{kind}-{target}"
    words = (f"target={target}", "check=server", f"check_samples={samples}", f"to={to}", "slo.p99_ms=10000")
    try:
        metrics = run_mlscale(folder, "export", run, *words)["metrics"]
    except CheckError as error:
        return Finding(what, "not here" if error.is_environment else "failed", str(error))
    entry = read_document(to)["export_targets"][target]
    difference = metrics[f"target_{target}_server_relative_error"]
    p99 = metrics[f"target_{target}_server_p99_ms"]
    seen = f"{entry['approved_samples']} raw samples, largest difference {difference:.1e}, p99 {p99:.1f} ms"
    return Finding(what, "proven", entry["approved_by"], seen)


def check_providers(folder: Path, samples: int) -> Iterator[Finding]:
    """Compute the recorded requests of each type on each provider."""
    for kind in TYPES:
        to = folder / f"{kind}-servable"
        run_mlscale(folder, "export", _train(folder, kind, samples), f"to={to}")
        for provider in _PROVIDERS:
            yield _check_provider(kind, to, provider)


def _check_provider(kind: str, folder: Path, provider: str) -> Finding:
    what = f"provider={provider}, {kind}"
    warmup = read_warmup(folder / WARMUP)
    raw = [request.sample for request in warmup.requests if request.answer is not None] if warmup else []
    try:
        on_cpu, on_provider = load(folder), load(folder, runtime=Runtime(provider))
        expected = on_cpu.compute_samples(on_cpu.pack_samples(raw))
        given = on_provider.compute_samples(on_provider.pack_samples(raw))
    except MLScaleError as error:
        return Finding(what, "not here" if error.exit == Exit.ENVIRONMENT else "failed", f"{error.what}: {error.why}")
    largest = max(float(np.abs(values).max()) for values in expected.values())
    difference = max(float(np.abs(values - given[name]).max()) for name, values in expected.items())
    share = difference / max(1.0, largest)
    return Finding(what, "proven" if share <= 1e-3 else "failed", _name_runtime(provider), f"difference {share:.1e}")


def _name_runtime(provider: str) -> str:
    for package in ("onnxruntime-gpu", "onnxruntime"):
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            continue
    return provider


def _train(folder: Path, kind: str, samples: int) -> str:
    words = write_data(kind, folder / kind, 16, val=max(samples, 64))
    options = ("trainer.max_epochs=2", f"runs_dir={folder}/{kind}-runs", "snapshot=false", "logger=none")
    run: str = run_mlscale(folder, *words, *options, "trainer.accelerator=cpu")["artifacts"]["run"]
    return run
