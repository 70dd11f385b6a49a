"""Runtimes of servables on one thread: OpenVINO in float32 and bf16, and half precision, against ONNX Runtime.

    python -m scripts.bench_runtimes [SERVABLE …] [--size 224] [--seconds 10]

Of a ResNet-18 with random weights, and of each servable's folder. All take turns with ONNX Runtime on the CPU, one
sample and a batch of 32; the ratios are of CPU time, with their 95 % intervals: 2 is twice as fast as ONNX Runtime.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import torchvision

from mlscale.data.decoding.fast_decoder import DECODE_VERSION
from mlscale.data.decoding.pil import MAX_PIXELS
from mlscale.data.encoders.encoder import Encoder
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.export.engines.engine import Engine
from mlscale.export.engines.onnx_engine import OnnxEngine
from mlscale.export.engines.runtime import OPENVINO, Runtime, open_runtime
from mlscale.export.half_precision import convert_to_half
from mlscale.export.onnx_export import export_onnx
from mlscale.export.servable import MODEL, load
from mlscale.export.servable_trial import build_trial_batch
from mlscale.export.served_module import build_served_module
from mlscale.stats.timing import compare_times
from mlscale.task_types.tensor_type import TensorType

Tensors = Mapping[str, Any]


def open_engines(model: bytes, encoder: Encoder, half: bytes | None) -> dict[str, Engine]:
    """Return the engines by name, ONNX Runtime first."""
    first = OnnxEngine(model)
    engines: dict[str, Engine] = {"ONNX Runtime": first}
    for precision in ("f32", "bf16"):
        runtime = Runtime(OPENVINO, precision=precision)
        engines[f"OpenVINO {precision}"] = open_runtime(runtime, model, encoder, first.inputs, first.outputs, MODEL)
    if half is not None:
        engines["ONNX Runtime, fp16=true"] = OnnxEngine(half)
    return engines


def list_models(servables: list[Path], size: int) -> Iterator[tuple[str, dict[str, Engine], Mapping[int, Tensors]]]:
    """Yield the name of each model, its engines, and batches by their size."""
    torch.manual_seed(0)
    shape = (3, size, size)
    encoder = ImageEncoder(shape, "uint8", True, MAX_PIXELS, (124.0, 116.0, 104.0), (58.0, 57.0, 57.0), DECODE_VERSION)
    model = export_onnx(build_served_module(torchvision.models.resnet18(), TensorType(), encoder))
    random = np.random.default_rng(0)
    batches = {rows: {"input": random.integers(0, 256, (rows, *shape), dtype=np.uint8)} for rows in (1, 32)}
    yield f"ResNet-18, {size}²", open_engines(model, encoder, convert_to_half(model, encoder)), batches
    for folder in servables:
        servable = load(folder)
        content = (folder / MODEL).read_bytes()
        given = {rows: build_trial_batch(servable, rows, is_typical=True) for rows in (1, 32)}
        yield folder.name, open_engines(content, servable.encoder, None), given


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servables", nargs="*", type=Path)
    parser.add_argument("--size", type=int, default=224, help="pixels of the square image")
    parser.add_argument("--seconds", type=float, default=10, help="at most, of each comparison")
    arguments = parser.parse_args()
    print(
        "| model | batch | runtime | ms of CPU time | ratio to ONNX Runtime | largest difference |",
        "|---|---|---|---|---|---|",
        sep="\n",
    )
    for name, engines, batches in list_models(arguments.servables, arguments.size):
        first, *others = engines.items()
        for rows, tensors in batches.items():
            expected = next(iter(first[1].compute(tensors).values()))
            for other, engine in others:
                computed = next(iter(engine.compute(tensors).values()))
                error = np.abs(computed - expected).max() / np.abs(expected).max()
                times = compare_times(
                    partial(first[1].compute, tensors), partial(engine.compute, tensors), budget_s=arguments.seconds
                )
                ratio = times.ratio
                spent = f"{times.second.cpu_ms:.3g} (ONNX Runtime {times.first.cpu_ms:.3g})"
                shown = f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
                print(f"| {name} | {rows} | {other} | {spent} | {shown} | {error:.1e} |", flush=True)


if __name__ == "__main__":
    main()
