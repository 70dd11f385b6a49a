"""Find the tensor of an int8 graph whose scale is not that which its values need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlscale.export.layer_bisect.cut_graph import CutGraph, GraphPart

if TYPE_CHECKING:
    import onnx

_QUANTIZED, _TRANSPOSED = "_quantized", "_Transposed"
"""ONNX Runtime's suffixes of an integer constant and of a matrix that it has transposed first."""
_WORSE, _HARM = 3.0, 0.005
"""A scale is wrong if it rounds and clips to an error so many times that of the values' own range, and to this share of
the values at least. Ranges of other samples, as in a calibration, give up to twice the error."""
_FEW = 64
"""Numbers whose range says too little of that of others."""
_HALF_STEP = 0.51
"""Of a scale: the largest error of a rounded constant, with the rounding of float32."""
_SCALE_ERROR = 0.01
"""The relative difference from which two scales that must be equal are not."""


@dataclass(frozen=True)
class WrongScale:
    """A tensor whose quantisation is not right.

    Attributes:
        node: the node that has the scale.
        tensor: its name in the fp32 graph.
        sentence: what is wrong, in words.
        is_scale: true if it is the scale or the zero point; false if the integers are those of another tensor.
    """

    node: onnx.NodeProto
    tensor: str
    sentence: str
    is_scale: bool = True


class ScaleCheck:
    """The scales of a graph, compared with what is quantised by them.

    Args:
        graph: an int8 graph.
        constants: of the fp32 graph, by name.
    """

    def __init__(self, graph: CutGraph, constants: Mapping[str, NDArray[Any]]) -> None:
        self._graph, self._constants = graph, constants
        self._seen: set[str] = set()
        self._biases = self._compute_scales_of_biases()

    def find_wrong_scale(self, part: GraphPart, values: Mapping[str, NDArray[Any]]) -> WrongScale | None:
        """Return the constant of a part, or the activation, whose scale is wrong.

        Args:
            part: of the graph.
            values: the trained model's of the target and the feeds, and what the part computes on the way.
        """
        for index in part.nodes:
            node = self._graph.nodes[index]
            if (wrong := self._check_constants(node)) is not None:
                return wrong
            # Several tensors share a scale where an operator only moves values: it is that of the first.
            if node.op_type == "QuantizeLinear" and node.input[1] not in self._seen:
                self._seen.add(node.input[1])
                back = self._get_maker(part.target)
                is_target = back is not None and back.input[0] == node.output[0]
                if (
                    wrong := self._check_activation(node, values[part.target if is_target else node.input[0]])
                ) is not None:
                    return wrong
        return None

    def _get_maker(self, name: str) -> onnx.NodeProto | None:
        index = self._graph.makers.get(name)
        return None if index is None else self._graph.nodes[index]

    def _check_constants(self, node: onnx.NodeProto) -> WrongScale | None:
        for name in node.input:
            base = name.removesuffix(_QUANTIZED)
            if base == name or name not in self._graph.constants:
                continue
            scale_name = node.input[1] if node.op_type == "DequantizeLinear" else f"{base}_scale"
            expected = self._get_fp32_constant(base)
            if expected is None or scale_name not in self._graph.constants:
                continue
            wrong = self._compare_constant(node, base, name, scale_name, expected)
            if wrong is not None:
                return wrong
        return None

    def _compare_constant(
        self, node: onnx.NodeProto, tensor: str, name: str, scale_name: str, expected: NDArray[Any]
    ) -> WrongScale | None:
        integers, scale = self._read_constant(name), self._read_constant(scale_name)
        zero_name = scale_name.removesuffix("scale") + "zero_point"
        # The format lets a symmetric quantisation leave its zero point out.
        zero = self._read_constant(zero_name) if zero_name in self._graph.constants else np.zeros_like(scale)
        if integers.shape != expected.shape:
            return None
        # A matrix product has a scale for each column; without scales per channel, there is one channel.
        axis = expected.ndim - 1
        if node.op_type == "DequantizeLinear":
            axis = next((item.i for item in node.attribute if item.name == "axis"), 1)
        channels = [
            np.moveaxis(array, axis, 0).reshape(scale.size, -1) if scale.size > 1 else array.reshape(1, -1)
            for array in (integers.astype(np.float64), expected.astype(np.float64))
        ]
        steps, zeros = (array.astype(np.float64).reshape(-1, 1) for array in (scale, zero))
        stored, wanted = (channels[0] - zeros) * steps, channels[1]
        error = np.abs(stored - wanted).max(1)
        if (error <= _HALF_STEP * steps[:, 0]).all():
            return None
        worst = int(np.argmax(error))
        step, name = float(steps[worst, 0]), f"{tensor}, channel {worst}," if scale.size > 1 else tensor
        # Of a scale alone, all values of a channel are off by one factor.
        factor = float(stored[worst] @ wanted[worst] / max(wanted[worst] @ wanted[worst], 1e-30))
        rest = np.abs(stored[worst] - factor * wanted[worst]).max()
        if abs(factor - 1) > _SCALE_ERROR and rest <= 2 * _HALF_STEP * step:
            return WrongScale(node, tensor, f"the scale of {name} is {step:.3g}, {factor:.3g} times what it needs")
        return WrongScale(node, tensor, f"{name} is not that of the trained model", is_scale=False)

    def _check_activation(self, quantize: onnx.NodeProto, expected: NDArray[Any]) -> WrongScale | None:
        tensor, scale_name = quantize.input[0], quantize.input[1]
        if scale_name not in self._graph.constants:
            return None
        scale = float(self._read_constant(scale_name).reshape(-1)[0])
        zero_array = self._read_constant(quantize.input[2]) if len(quantize.input) > 2 else np.zeros(1, np.uint8)
        zero, limits = float(zero_array.reshape(-1)[0]), np.iinfo(zero_array.dtype)
        values = expected.astype(np.float64)
        if zero == limits.min:
            # A quantiser lets the zero point clip in place of a ReLU.
            values = values.clip(0)
        # The range has to include 0, which padding needs to be exact.
        low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
        maker = self._get_maker(tensor)
        if maker is not None and maker.op_type == "Softmax":
            # Its scale is that of all that it could give, whatever the calibration has seen.
            high = 1.0
        needed = (high - low) / (limits.max - limits.min)
        # All values are 0: any scale is right.
        if not needed:
            return None
        error = _compute_error(values, scale, zero, limits)
        least = _compute_error(values, needed, round(limits.min - low / needed), limits)
        implied = self._biases.get(scale_name, scale)
        if abs(scale / implied - 1) > _SCALE_ERROR:
            sentence = f"the scale of {tensor} is {scale:.3g}, and the bias after it was quantised for {implied:.3g}"
            return WrongScale(quantize, tensor, sentence)
        size = float(np.sqrt(np.mean(values * values)))
        # Calibration may cut off rare values on purpose: only what is much worse, and does harm, is a fault.
        if values.size < _FEW or error <= _WORSE * least or error <= _HARM * size:
            return None
        sentence = f"the scale of {tensor} is {scale:.3g}, {scale / needed:.3g} times what its values need"
        if abs(scale / needed - 1) <= _SCALE_ERROR * 50:
            sentence = f"the zero point of {tensor} is {zero:.0f}, which clips its values"
        return WrongScale(quantize, tensor, sentence)

    def _compute_scales_of_biases(self) -> dict[str, float]:
        """Return for names of activations' scales what they were when the biases after them were quantised.

        A bias has the scale of the activation multiplied by that of the weights. Where both its own constant and the
        weights are right, their quotient is the activation's.
        """
        implied: dict[str, float] = {}
        for node in self._graph.nodes:
            makers = [self._get_maker(name) for name in node.input[:3]]
            if node.op_type not in ("Conv", "Gemm") or len(makers) < 3:
                continue
            dequantizers = [maker for maker in makers if maker is not None and maker.op_type == "DequantizeLinear"]
            if len(dequantizers) < 3 or any(maker.input[1] not in self._graph.constants for maker in dequantizers):
                continue
            activation, *constants = dequantizers
            if not any(self._check_constants(maker) for maker in constants):
                weight_scale, bias_scale = (self._read_constant(maker.input[1]) for maker in constants)
                # The median, since float32 rounds the quotient of each channel in another way.
                implied[activation.input[1]] = float(np.median(bias_scale / weight_scale))
        return implied

    def _get_fp32_constant(self, name: str) -> NDArray[Any] | None:
        if name in self._constants:
            return self._constants[name]
        matrix = self._constants.get(name.removesuffix(_TRANSPOSED))
        return matrix.T if matrix is not None else None

    def _read_constant(self, name: str) -> NDArray[Any]:
        from onnx import numpy_helper

        array: NDArray[Any] = numpy_helper.to_array(self._graph.constants[name])
        return array


def _compute_error(values: NDArray[np.float64], scale: float, zero: float, limits: np.iinfo[Any]) -> float:
    """Return the root of the mean square of what quantisation adds to values."""
    integers = np.clip(np.rint(values / scale) + zero, limits.min, limits.max)
    return float(np.sqrt(np.mean(((integers - zero) * scale - values) ** 2)))
