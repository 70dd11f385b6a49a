"""Write a SavedModel of an ONNX model, and compute with one by TensorFlow."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import MLScaleError
from mlscale.export.engines.engine import Port
from mlscale.export.required_extras import require_extra
from mlscale.targets.tfserving.onnx_graph import read_onnx_graph
from mlscale.targets.tfserving.operator_table import Tensor

SIGNATURE = "serving_default"
"""The signature that TensorFlow Serving answers by default."""
_KEPT_NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)


@cache
def import_tensorflow() -> Any:
    """Return TensorFlow, on the CPU and on one thread where it was not in use before.

    Raises:
        MLScaleError: it is not installed (exit code 5).
    """
    require_extra("tfserving", "tensorflow")
    # Read at import: without it, each process prints which instructions its processor has.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with drop_information():
        import tensorflow as tf

    # Once TensorFlow has computed, these are fixed, and as its user has set them.
    with suppress(RuntimeError):
        # By default it takes all memory of all GPUs.
        tf.config.set_visible_devices([], "GPU")
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    return tf


def write_saved_model(model: bytes, inputs: Sequence[Port], outputs: Sequence[Port], folder: Path) -> None:
    """Write a SavedModel that computes a serialised ONNX model, with the names and shapes of its inputs and outputs.

    Raises:
        MLScaleError: TensorFlow has no counterpart of some nodes; nothing is written.
    """
    function = trace_function(model, inputs, outputs)
    tf = import_tensorflow()
    # The module is empty: all weights are constants of the function.
    tf.saved_model.save(tf.Module(), str(folder), signatures={SIGNATURE: function})


def trace_function(model: bytes, inputs: Sequence[Port], outputs: Sequence[Port]) -> Any:
    """Return TensorFlow's function of a serialised ONNX model, which takes and gives tensors by name.

    Raises:
        MLScaleError: TensorFlow has no counterpart of some nodes, or can't keep the name of an input.
    """
    tf, graph = import_tensorflow(), read_onnx_graph(model)
    if refused := [port.name for port in inputs if not _KEPT_NAME.fullmatch(port.name)]:
        raise MLScaleError(
            f"TensorFlow can't keep the name of the input {refused[0]!r}",
            where="target=tfserving",
            why="its signatures have names of letters, digits and underscores, which begin with a letter",
            fix="target=onnx\nelse rename it in the model's forward, such as x_1 for x.1",
        )
    from mlscale.targets.tfserving.graph_conversion import compute_graph

    def serve(**given: Tensor) -> dict[str, Any]:
        computed = compute_graph(graph, given)
        # A server reports these shapes, and an output of another one would be an error of the conversion.
        return {port.name: tf.ensure_shape(computed[port.name], _get_sizes(port)) for port in outputs}

    # Without autograph, which would rewrite the code of the operators to find loops in it.
    specs = {port.name: tf.TensorSpec(_get_sizes(port), port.dtype, port.name) for port in inputs}
    return tf.function(serve, autograph=False).get_concrete_function(**specs)


def _get_sizes(port: Port) -> list[int | None]:
    return [None if size < 0 else size for size in port.shape]


class SavedModelEngine:
    """TensorFlow with a SavedModel.

    Args:
        folder: with saved_model.pb.

    Raises:
        MLScaleError: it can't be loaded, or TensorFlow is not installed (exit code 5).
    """

    def __init__(self, folder: Path) -> None:
        self._tf, self._where = import_tensorflow(), str(folder)
        try:
            # Kept: without it, what the signature needs is freed.
            self._loaded = self._tf.saved_model.load(str(folder))
            self._signature = self._loaded.signatures[SIGNATURE]
        except Exception as error:  # TensorFlow's errors share no base
            raise self._build_error(error) from error
        self.inputs = tuple(map(_read_port, self._signature.structured_input_signature[1].items()))
        self.outputs = tuple(map(_read_port, self._signature.structured_outputs.items()))
        self.description = f"TensorFlow {self._tf.__version__} on CPU"

    def compute(self, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the outputs by name, (n, …) each, for the inputs by name, (n, …) each.

        Raises:
            MLScaleError: the graph fails for this batch, or an output has another number of rows.
        """
        rows = len(next(iter(tensors.values())))
        # As `OnnxEngine`: a graph need not accept a batch of size 0.
        if not rows:
            return {
                port.name: np.zeros((0, *(max(size, 0) for size in port.shape[1:])), port.dtype)
                for port in self.outputs
            }
        try:
            # By name: a signature has no order.
            computed = self._signature(**{port.name: self._tf.constant(tensors[port.name]) for port in self.inputs})
        except Exception as error:
            raise self._build_error(error) from error
        outputs = {port.name: computed[port.name].numpy() for port in self.outputs}
        # A batch size that is built into a reshape changes the number of rows without an error.
        for name, values in outputs.items():
            if len(values) != rows:
                raise self._build_error(ValueError(f"{name} has {len(values)} rows for {rows} samples"))
        return outputs

    def check_ports(self, inputs: Sequence[Port], outputs: Sequence[Port]) -> None:
        """Raise an error if the signature's inputs or outputs are not these.

        Raises:
            MLScaleError: they differ.
        """
        # A signature has no order.
        if {*self.inputs} != {*inputs} or {*self.outputs} != {*outputs}:
            ports = [*self.inputs, *self.outputs]
            raise self._build_error(ValueError(f"its signature does not match the servable: {ports}"))

    def _build_error(self, error: Exception) -> MLScaleError:
        return MLScaleError(
            "the SavedModel can't be used",
            where=self._where,
            why=f"{type(error).__name__}: {' '.join(str(error).split())}"[:300],
            fix="mlscale export <its run> target=tfserving, which makes it again\n"
            "pip install -U tensorflow-cpu, if that is too old",
        )


def _read_port(entry: tuple[str, Any]) -> Port:
    name, spec = entry
    return Port(name, spec.dtype.name, tuple(-1 if size is None else size for size in spec.shape))


_INFORMATION = r"^(I[0-9]{4} |WARNING: All log messages before absl::InitializeLog)"
_STDERR = 2


@contextmanager
def drop_information() -> Iterator[None]:
    """Drop the lines of information that C++ code writes to stderr in this block; warnings and errors pass.

    They come before TensorFlow's log is set up, so that no setting of it silences them. A process of its own filters:
    where the import aborts this one, what it has printed still passes.
    """
    if (grep := shutil.which("grep")) is None:
        yield
        return
    saved = os.dup(_STDERR)
    try:
        with subprocess.Popen([grep, "--line-buffered", "-v", "-E", _INFORMATION], stdin=-1, stdout=saved) as process:
            assert process.stdin is not None
            os.dup2(process.stdin.fileno(), _STDERR)
            try:
                yield
            finally:
                # Its input ends with the last copy of the descriptor.
                os.dup2(saved, _STDERR)
    finally:
        os.close(saved)
