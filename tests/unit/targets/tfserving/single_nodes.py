"""ONNX models of a node or a few, computed by ONNX Runtime and by the function that is made for TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mlscale.export.engines.engine import Port
from mlscale.targets.tfserving.saved_model import import_tensorflow, trace_function

Arrays = Mapping[str, NDArray[Any]]
OPSET = 20


def build_model(
    nodes: Sequence[Any], given: Arrays, constants: Arrays, outputs: Sequence[str], *, fixed: bool = False
) -> bytes:
    """Return a model whose inputs have the dtypes of `given` and any batch size; with `fixed` its sizes."""
    inputs = []
    for name, values in given.items():
        kind = helper.np_dtype_to_tensor_dtype(values.dtype) if values.dtype != object else TensorProto.STRING
        sizes = list(values.shape) if fixed or not values.ndim else ["batch", *values.shape[1:]]
        inputs.append(helper.make_tensor_value_info(name, kind, sizes))
    graph = helper.make_graph(
        list(nodes),
        "graph",
        inputs,
        # Their types are inferred.
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", 4)]
    content: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    return content


def compute_by_both(model: bytes, given: Arrays) -> tuple[Arrays, Arrays]:
    """Return the outputs by name of ONNX Runtime, and of TensorFlow."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_outputs()]
    expected = dict(zip(names, session.run(names, dict(given)), strict=True))
    tf = import_tensorflow()
    sizes = {port.name: port.shape for port in session.get_inputs()}
    inputs = [
        Port(name, _name_dtype(values), tuple(size if isinstance(size, int) else -1 for size in sizes[name]))
        for name, values in given.items()
    ]
    outputs = [Port(name, _name_dtype(values), (-1,) * values.ndim) for name, values in expected.items()]
    function = trace_function(model, inputs, outputs)
    computed = function(**{name: tf.constant(values) for name, values in given.items()})
    return expected, {name: computed[name].numpy() for name in names}


def _name_dtype(values: NDArray[Any]) -> str:
    return "string" if values.dtype == object else values.dtype.name


def assert_same(expected: Arrays, computed: Arrays, tolerance: float = 2e-6) -> None:
    """Raise unless all outputs are of the same dtype and shape, and nearly equal."""
    for name, values in expected.items():
        assert computed[name].shape == values.shape
        if values.dtype == object:
            assert [text.decode() for text in computed[name].ravel()] == values.ravel().tolist()
            continue
        assert computed[name].dtype == values.dtype
        scale = max(1.0, float(np.abs(np.where(np.isfinite(values), values, 0)).max(initial=0)))
        np.testing.assert_allclose(computed[name], values, rtol=0, atol=tolerance * scale)
