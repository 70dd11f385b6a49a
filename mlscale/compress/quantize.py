"""Quantise an ONNX model to int8 by ONNX Runtime: convolutions statically (calibrated), attention dynamically.

The graph decides. Measured on transformers, quantising every operator by calibration breaks the model (a ViT's logits
had an error of one half); and convolutions with dynamic scales are not faster than fp32.

Read real samples for calibration: of the training split, so that the metric is measured on others.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning.utilities.seed import isolate_rng

from mlscale.data.array_data import MemoryData
from mlscale.data.encoders.encoder import INPUT
from mlscale.data.images.image_modules import ImageData
from mlscale.data.order.bad_samples import BadSample
from mlscale.errors import MLScaleError
from mlscale.export.engines.onnx_engine import import_onnx_runtime
from mlscale.export.validation_samples import encode_as_trained, iterate_loader_batches
from mlscale.file_locks import make_scratch_folder
from mlscale.train.checkpoint import random_states as generators

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule

Method = Literal["static", "dynamic"]
Tensors = Mapping[str, NDArray[Any]]
METHODS = {
    "static": "static QDQ, U8 activations, S8 weights per channel",
    "dynamic": "dynamic, S8 weights per channel",
}
"""Description of each method."""
_DYNAMIC_OPERATORS = ["MatMul", "Gemm", "Gather"]
"""Products with weights, and tables of embeddings: these are no faster in 8 bits, but most of a small token model."""
_BATCH = 16
"""Samples of one calibration batch: all of its intermediate values are in memory at once."""
_CPUINFO = Path("/proc/cpuinfo")


def choose_method(model: bytes) -> Method:
    """Return the best method for a graph: static for convolutions; dynamic with attention (activations multiplied by
    each other), or with products of matrices alone.

    Raises:
        MLScaleError: it has neither.
    """
    import onnx

    graph = onnx.load_from_string(model).graph
    constants = {item.name for item in graph.initializer}
    products = [node for node in graph.node if node.op_type in ("MatMul", "Gemm")]
    # A product of two activations has no initializer (a weight) among its factors; the third input of Gemm is a bias.
    attention = any(not constants & set(node.input[:2]) for node in products)
    if any(node.op_type == "Conv" for node in graph.node) and not attention:
        return "static"
    if not any(constants & set(node.input[:2]) for node in products):
        raise MLScaleError(
            "there is nothing to quantise",
            where="model",
            why="int8 is for convolutions and products with weights, and the graph has none",
            fix="compress=none",
        )
    return "dynamic"


def quantize_model(model: bytes, method: Method, samples: Tensors | None = None) -> bytes:
    """Return the model in int8; equal models and samples give equal bytes.

    Args:
        model: serialised, fp32.
        method: static or dynamic; see `METHODS`.
        samples: the model's inputs by name, (n, …) each, for the ranges of activations; static needs them.

    Raises:
        MLScaleError: ONNX Runtime can't.
    """
    import_onnx_runtime()
    from onnxruntime import quantization

    weights = {
        # A scale for each output channel: one for the whole tensor would be that of its largest channel.
        "per_channel": True,
        "reduce_range": can_int8_overflow(),
        "weight_type": quantization.QuantType.QInt8,
    }
    try:
        # The quantiser writes its result to a file, not to memory.
        with make_scratch_folder("int8") as folder, _suppress_logging():
            ready, done = folder / "ready.onnx", folder / "int8.onnx"
            _prepare_model(model, ready)
            if method == "dynamic":
                quantization.quantize_dynamic(ready, done, op_types_to_quantize=_DYNAMIC_OPERATORS, **weights)
            else:
                assert samples is not None
                quantization.quantize_static(
                    ready,
                    done,
                    _build_calibration_reader(samples),
                    quant_format=quantization.QuantFormat.QDQ,
                    activation_type=quantization.QuantType.QUInt8,
                    **weights,
                )
            return done.read_bytes()
    except Exception as error:  # onnxruntime's errors share no base
        raise MLScaleError(
            "ONNX Runtime can't quantise the model",
            where="compress.int8",
            why=(" ".join(str(error).split()) or type(error).__name__)[:300],
            fix="compress=none",
        ) from error


def can_int8_overflow() -> bool:
    """Return whether int8 products may overflow 16 bits on this machine: x86 without VNNI. Weights get 7 bits there."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    # Without /proc/cpuinfo (macOS, Windows) the answer is the safe one: 7 bits.
    return "vnni" not in (_CPUINFO.read_text() if _CPUINFO.is_file() else "")


def _prepare_model(model: bytes, path: Path) -> None:
    """Fold batch normalisation into convolutions, and add the shapes that the quantiser needs."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    try:
        quant_pre_process(onnx.load_from_string(model), path)
    except Exception:  # symbolic shapes help, but can't be inferred for some graphs
        quant_pre_process(onnx.load_from_string(model), path, skip_symbolic_shape=True)


def _build_calibration_reader(samples: Tensors) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # it has no types
        """The calibration batches, one after the other, then None."""

        def __init__(self) -> None:
            self._starts = iter(range(0, len(next(iter(samples.values()))), _BATCH))

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            start = next(self._starts, None)
            if start is None:
                return None
            # In small batches: the calibrator keeps the activations of a batch in memory, all layers at once.
            return {name: rows[start : start + _BATCH] for name, rows in samples.items()}

    return Reader()


@contextmanager
def _suppress_logging() -> Iterator[None]:
    """Silence the root logger, to which the quantiser logs steps and warnings; its result is measured here instead."""
    # The quantiser calls the root logger itself, so that no logger of its own could be silenced.
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


SPLIT = "train"


def read_calibration_samples(data: LightningDataModule, count: int) -> Tensors:
    """Return encoded training samples, at most `count`, as a model takes them, (n, …) by name; always the same ones.

    Images, rows and texts are spread evenly over the split, as they are stored: neither augmented nor normalised. A
    user's data module gives the first batches of its training loader, its shuffling seeded.

    Raises:
        MLScaleError: there is none that can be read.
    """
    if isinstance(data, ImageData):
        tensors = _read_image_samples(data, count)
    elif isinstance(data, MemoryData):
        tensors = _read_memory_samples(data, count)
    else:
        tensors = _read_loader_samples(data, count)
    if not tensors:
        raise MLScaleError(
            "no training samples found",
            where="data.train",
            why="int8 is calibrated on them",
            fix="data.train=<samples that can be read>",
        )
    return tensors


def _read_image_samples(data: ImageData, count: int) -> Tensors:
    decoded, raw = data.get_decoded_split(SPLIT), []
    for row in _spread_rows(len(decoded), count).tolist():
        try:
            raw.append(decoded.get_sample(row))
        except BadSample:
            if not data.policy.skip:
                raise
    return {INPUT: np.stack(raw)} if raw else {}


def _read_memory_samples(data: MemoryData, count: int) -> Tensors:
    split = data.get_rows(SPLIT)
    rows = np.setdiff1d(_spread_rows(len(split), count), list(split.bad))
    if not len(rows):
        return {}
    x, y = split.take_samples(rows)
    return encode_as_trained(data, SPLIT, rows, torch.from_numpy(x), y)


def _read_loader_samples(data: LightningDataModule, count: int) -> Tensors:
    batches: list[Tensors] = []
    total = 0
    # The loader's shuffling draws from the global generators, which a run still needs for its own.
    with isolate_rng(include_cuda=False):
        generators.seed_global_generators(0)
        for samples in iterate_loader_batches(data.train_dataloader(), SPLIT):
            batches.append(samples.take_first(count - total).tensors)
            total += len(samples.y)
            if total >= count:
                break
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]} if total else {}


def _spread_rows(size: int, count: int) -> NDArray[np.int64]:
    """Return numbers of samples, evenly over the split, since stored samples may be sorted by class."""
    # `unique`, where there are fewer than `count`.
    return np.unique(np.linspace(0, size - 1, count).astype(np.int64)) if size else np.zeros(0, np.int64)
