"""int8 of ResNet-18 on one thread: mlscale's against fp32 in ONNX Runtime, and against its quantiser's own defaults.

    python -m scripts.bench_compress [--size 224] [--seconds 30]

The weights are random, the samples uniform noise: speed does not depend on them, and accuracy is not looked at. All
models take turns with fp32, one sample and a batch of 32; the ratios are of CPU time, with their 95 % intervals.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import onnx
import torch
import torchvision
from numpy.typing import NDArray

from mlscale.compress.quantize import quantize_model
from mlscale.data.decoding.fast_decoder import DECODE_VERSION
from mlscale.data.decoding.pil import MAX_PIXELS
from mlscale.data.encoders.encoder import INPUT
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.export.engines.onnx_engine import OnnxEngine, import_onnx_runtime
from mlscale.export.onnx_export import export_onnx
from mlscale.export.served_module import build_served_module
from mlscale.stats.timing import compare_times
from mlscale.task_types.tensor_type import TensorType


def defaults(model: bytes, samples: NDArray[Any], *, per_channel: bool = False) -> bytes:
    """As `onnxruntime.quantization.quantize_static` does it unasked: S8 activations and weights."""
    import_onnx_runtime()
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # it has no types
        def __init__(self) -> None:
            self.batches = iter(np.split(samples, range(16, len(samples), 16)))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"input": batch}

    with tempfile.TemporaryDirectory() as folder:
        done = Path(folder, "int8.onnx")
        quantize_static(onnx.load_from_string(model), done, Reader(), per_channel=per_channel)
        return done.read_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224, help="pixels of the square image")
    parser.add_argument("--seconds", type=float, default=30, help="at most, of each comparison")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    shape = (3, arguments.size, arguments.size)
    encoder = ImageEncoder(shape, "uint8", True, MAX_PIXELS, (124.0, 116.0, 104.0), (58.0, 57.0, 57.0), DECODE_VERSION)
    fp32 = export_onnx(build_served_module(torchvision.models.resnet18(), TensorType(), encoder))
    samples = np.random.default_rng(0).integers(0, 256, (32, *shape), dtype=np.uint8)
    models = {
        "fp32, ONNX Runtime": fp32,
        "int8, quantize_static as it is": defaults(fp32, samples),
        "int8, mlscale": quantize_model(fp32, "static", {INPUT: samples}),
    }
    engines = {name: OnnxEngine(model) for name, model in models.items()}
    for count in (1, 32):
        calls = [partial(engine.run, samples[:count]) for engine in engines.values()]
        for name, call in zip(engines, calls, strict=True):
            times = compare_times(calls[0], call, budget_s=arguments.seconds)
            print(
                f"batch {count:2}  {name:32} {times.second.cpu_ms:8.2f} ms CPU  {times.ratio.value:5.2f}× fp32 "
                f"({times.ratio.low:.2f} to {times.ratio.high:.2f})  {len(models[name]) / 2**20:5.1f} MiB",
                flush=True,
            )


if __name__ == "__main__":
    main()
