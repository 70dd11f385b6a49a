"""Run a servable's graph by OpenVINO: float32 unless asked otherwise, the encoder of a table outside it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.metadata import version
from io import BytesIO
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.encoder import INPUT, Encoder
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.errors import MLScaleError
from mlscale.export.engines.computed_rows import compute_rows
from mlscale.export.engines.engine import Port
from mlscale.export.graphs.table_graph import FEATURES
from mlscale.export.required_extras import require_extra

CPU_FIX = "provider=cpu, which is ONNX Runtime"
_DTYPES = {
    "u8": "uint8", "i32": "int32", "i64": "int64", "f32": "float32", "f64": "float64", "boolean": "bool",
}  # fmt: skip


def import_openvino() -> Any:
    """Return the package openvino, with telemetry switched off.

    Raises:
        MLScaleError: it is not installed (exit code 5).
    """
    require_extra("openvino", "openvino")
    # It would write an id into the home folder, and send it. Without this package openvino takes a stub of its own.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def convert_onnx(model: bytes, encoder: Encoder, *, where: str = "model.onnx", fix: str = CPU_FIX) -> Any:
    """Return an ONNX model as OpenVINO's; of a table from the features on, as its texts can't be expressed.

    Args:
        model: the bytes of its file.
        encoder: of the servable.
        where, fix: the location and the remedy that errors name.

    Raises:
        MLScaleError: OpenVINO has no counterpart of an operator, which the message names.
    """
    import_openvino()
    from openvino.frontend import FrontEndManager

    reader = FrontEndManager().load_by_framework("onnx")
    try:
        graph = reader.load(BytesIO(model))
        if isinstance(encoder, TableEncoder):
            # OpenVINO has no LabelEncoder, and no operation on strings; numpy computes the same bits before it.
            graph.extract_subgraph([graph.get_place_by_tensor_name(FEATURES)], graph.get_outputs())
        return reader.convert(graph)
    except Exception as error:  # the errors of its C++ share no base
        raise _build_engine_error(where, str(error), fix) from error


class OpenVinoEngine:
    """A model that OpenVINO has compiled for the CPU, as an `Engine` with the servable's own inputs and outputs.

    Args:
        model: of `convert_onnx`, or read back from its files.
        encoder: of the servable.
        inputs, outputs: of the servable.
        threads: number of threads that compute one batch.
        precision: that values are computed in; OpenVINO's own default is bf16 where the CPU has it, without a word.
        is_scaled_by_batch: compute row by row, as a scale of the graph is that of a whole batch.
        where, fix: the location and the remedy that errors name.

    Raises:
        MLScaleError: openvino is not installed (exit code 5), or the model has other inputs or outputs.
    """

    def __init__(
        self,
        model: Any,
        encoder: Encoder,
        inputs: tuple[Port, ...],
        outputs: tuple[Port, ...],
        *,
        threads: int = 1,
        precision: str = "f32",
        is_scaled_by_batch: bool = False,
        where: str = "model.onnx",
        fix: str = CPU_FIX,
    ) -> None:
        core = import_openvino().Core()
        settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        self.inputs, self.outputs, self._where, self._fix = inputs, outputs, where, fix
        self._is_scaled_by_batch = is_scaled_by_batch
        self._unpack = encoder.unpack_samples if isinstance(encoder, TableEncoder) else None
        # The name of the tensor where the graph was cut, in place of the model's own input.
        self._renamed = {INPUT: FEATURES} if self._unpack else {}
        try:
            compiled = core.compile_model(model, "CPU", settings)
        except Exception as error:
            raise self._fail(str(error)) from error
        self._check_ports(compiled, encoder)
        self._request, self._one = compiled.create_infer_request(), Lock()
        self.description = f"OpenVINO {version('openvino')} ({precision})"

    def compute(self, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the outputs for a batch, (n, …) each; of no rows for an empty batch.

        Raises:
            MLScaleError: the graph fails for this batch, or an output has another number of rows.
        """
        return compute_rows(self._run, tensors, self.outputs, one_by_one=self._is_scaled_by_batch, fail=self._fail)

    def _run(self, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        given = self._unpack(tensors) if self._unpack else tensors
        contiguous = {self._renamed.get(name, name): np.ascontiguousarray(x) for name, x in given.items()}
        try:
            # A request is for one thread at a time, where a session of ONNX Runtime is for any number.
            with self._one:
                computed = self._request.infer(contiguous, share_inputs=True)
        except Exception as error:
            raise self._fail(str(error)) from error
        # Copied by `infer`: the request's own memory is that of the next batch.
        return {port.name: computed[port.name] for port in self.outputs}

    def _fail(self, why: str) -> MLScaleError:
        return _build_engine_error(self._where, why, self._fix)

    def _check_ports(self, compiled: Any, encoder: Encoder) -> None:
        specs = encoder.inputs if self._unpack else self.inputs
        expected = {(self._renamed.get(spec.name, spec.name), spec.dtype) for spec in specs}
        expected_outputs = {(port.name, port.dtype) for port in self.outputs}
        for wanted, nodes in ((expected, compiled.inputs), (expected_outputs, compiled.outputs)):
            # A tensor may have several names; one that nothing reads has none that the document knows.
            given = {
                (name, _DTYPES.get(node.get_element_type().get_type_name(), ""))
                for node in nodes
                for name in node.get_names()
            }
            if missing := wanted - given:
                raise self._fail(f"it lacks {sorted(missing)}, and has {sorted(given)}")


def _build_engine_error(where: str, text: str, fix: str) -> MLScaleError:
    # Of its C++ report only the lines with the fact; the first ones name its own source files.
    lines = [line.strip() for line in text.splitlines()]
    facts = [line.removeprefix("-- ") for line in lines if line.startswith("-- ")] or [
        line for line in lines if line and not line.startswith(("Exception from", "Check "))
    ]
    return MLScaleError(
        "OpenVINO can't compute the model",
        where=where,
        why="; ".join(facts)[:300],
        fix=fix,
    )
