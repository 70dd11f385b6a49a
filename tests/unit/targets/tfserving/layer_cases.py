"""Cases of layers: convolutions, pools, normalisations, recurrent layers, resizing, labels, losses and int8."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.unit.targets.tfserving.operator_cases import Case, constant, floats, wholes


def _list_convolutions() -> list[Case]:
    options: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
        ((2, 3, 7, 8), (4, 3, 3, 3), {}),
        ((2, 3, 7, 8), (4, 3, 3, 2), {"pads": [1, 0, 2, 1], "strides": [2, 1], "dilations": [1, 2]}),
        ((2, 4, 7, 7), (8, 2, 3, 3), {"group": 2, "pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ((2, 4, 7, 7), (4, 1, 3, 3), {"group": 4, "pads": [1, 1, 1, 1]}),
        ((2, 4, 7, 7), (8, 1, 3, 3), {"group": 4, "dilations": [2, 2]}),
        ((2, 4, 7, 9), (4, 1, 3, 3), {"group": 4, "strides": [1, 2]}),
        ((2, 4, 7, 9), (4, 1, 3, 3), {"group": 4, "strides": [2, 2], "dilations": [2, 1]}),
        ((2, 3, 9), (4, 3, 3), {"pads": [2, 1], "strides": [2], "dilations": [2]}),
        ((2, 4, 9), (4, 1, 3), {"group": 4, "pads": [1, 1]}),
        ((2, 3, 5, 6, 7), (4, 3, 2, 3, 2), {"pads": [1, 0, 1, 0, 1, 0], "strides": [1, 2, 1]}),
        ((2, 4, 5, 6, 7), (4, 2, 2, 2, 2), {"group": 2}),
    ]
    cases = []
    for number, (shape, kernel, attributes) in enumerate(options):
        given = (floats(*shape), floats(*kernel), floats(kernel[0]) if number % 2 else None)
        cases += [Case("Conv", given, (1, 2), attributes)]
    # A kernel that is computed.
    cases += [Case("Conv", (floats(2, 3, 7, 8), floats(4, 3, 3, 3), floats(4)))]
    transposed: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
        ((2, 3, 4, 5), (3, 4, 3, 3), {"strides": [2, 2]}),
        ((2, 3, 4, 5), (3, 4, 3, 2), {"strides": [2, 3], "pads": [1, 0, 0, 1], "output_padding": [1, 2]}),
        ((2, 4, 4, 5), (4, 2, 3, 3), {"group": 2, "strides": [2, 1], "pads": [1, 1, 1, 1]}),
        ((2, 3, 4, 5), (3, 4, 3, 3), {"dilations": [2, 1], "pads": [1, 1, 1, 1]}),
        ((2, 3, 6), (3, 4, 4), {"strides": [2], "pads": [1, 1]}),
        ((2, 3, 3, 4, 5), (3, 2, 2, 3, 2), {"strides": [2, 1, 2], "pads": [0, 1, 0, 1, 0, 1]}),
    ]
    for shape, kernel, attributes in transposed:
        outputs = kernel[1] * attributes.get("group", 1)
        cases += [Case("ConvTranspose", (floats(*shape), floats(*kernel), floats(outputs)), (1, 2), attributes)]
    return cases


def _list_pools() -> list[Case]:
    options: list[tuple[tuple[int, ...], dict[str, Any]]] = [
        ((2, 3, 7, 8), {"kernel_shape": [2, 3], "strides": [2, 2]}),
        ((2, 3, 7, 8), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ((2, 3, 7, 8), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
        ((2, 3, 6, 8), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 3], "ceil_mode": 1}),
        ((2, 3, 9), {"kernel_shape": [3], "strides": [2]}),
        ((2, 3, 5, 6, 7), {"kernel_shape": [2, 2, 3], "strides": [2, 1, 2]}),
        ((2, 3, 7, 8), {"kernel_shape": [2, 2], "dilations": [2, 3], "strides": [1, 2]}),
    ]
    cases = [
        Case(name, (floats(*shape),), attributes=given)
        for shape, given in options
        for name in ("MaxPool", "AveragePool")
    ]
    cases += [
        Case("AveragePool", (floats(*shape),), attributes={**given, "count_include_pad": 1}) for shape, given in options
    ]
    cases += [
        Case("MaxPool", (wholes(2, 3, 6, 6, dtype=np.int8),), attributes={"kernel_shape": [2, 2], "pads": [1, 0, 0, 1]})
    ]
    cases += [
        Case(name, (floats(2, 3, *sizes),))
        for name in ("GlobalAveragePool", "GlobalMaxPool")
        for sizes in ((5,), (4, 5))
    ]
    return cases


def _list_normalisations() -> list[Case]:
    cases = []
    for sizes in ((5,), (4, 5), (2, 3, 4)):
        x, (scale, bias, mean) = floats(3, 4, *sizes), (floats(4) for _ in range(3))
        cases += [
            Case("BatchNormalization", (x, scale, bias, mean, floats(4, low=0.2)), (1, 2, 3, 4), {"epsilon": 1e-3})
        ]
        cases += [Case("InstanceNormalization", (x, scale, bias), (1, 2), tolerance=1e-5)]
        cases += [Case("GroupNormalization", (x, floats(2), floats(2)), (1, 2), {"num_groups": 2}, tolerance=1e-5)]
    cases += [Case("LayerNormalization", (floats(3, 4, 5), floats(5), floats(5)), (1, 2), tolerance=1e-5)]
    cases += [
        Case("LayerNormalization", (floats(3, 4, 5), floats(4, 5)), (1,), {"axis": 1, "epsilon": 1e-3}, tolerance=1e-5)
    ]
    return cases


def _list_resizing() -> list[Case]:
    x, cases = floats(2, 3, 5, 6), []
    factors = [constant(1, 1, *pair, dtype=np.float32) for pair in ((2, 2), (0.6, 1.7), (3, 0.5))]
    modes = [
        ("half_pixel", "linear"),
        ("pytorch_half_pixel", "linear"),
        ("align_corners", "linear"),
        ("asymmetric", "linear"),
        ("half_pixel", "cubic"),
        ("align_corners", "cubic"),
    ]
    for coordinates, mode in modes:
        options = {"coordinate_transformation_mode": coordinates, "mode": mode}
        cases += [Case("Resize", (x, None, scales), (1, 2), options, tolerance=1e-5) for scales in factors]
        cases += [Case("Resize", (x, None, None, constant(2, 3, *size)), (3,), options, tolerance=1e-5, fixed=True)
                  for size in ((8, 9), (3, 3), (1, 1))]  # fmt: skip
    for nearest in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
        for coordinates in ("half_pixel", "asymmetric"):
            options = {"coordinate_transformation_mode": coordinates, "mode": "nearest", "nearest_mode": nearest}
            cases += [Case("Resize", (x, None, scales), (1, 2), options) for scales in factors]
    for mode in ("linear", "cubic"):
        excluding: dict[str, Any] = {"mode": mode, "antialias": 1, "exclude_outside": 1}
        cases += [Case("Resize", (x, None, scales), (1, 2), excluding, tolerance=1e-5) for scales in factors]
    cases += [Case("Resize", (x, None, factors[1]), (1, 2), {"mode": "cubic", "exclude_outside": 1}, tolerance=1e-5)]
    for mode in ("linear", "cubic"):
        cases += [
            Case("Resize", (x, None, scales), (1, 2), {"mode": mode, "antialias": 1}, tolerance=1e-5)
            for scales in factors
        ]
    return cases


def _list_recurrent() -> list[Case]:
    cases = []
    for operator, gates in {"GRU": 3, "LSTM": 4}.items():
        for direction, count in {"forward": 1, "reverse": 1, "bidirectional": 2}.items():
            weights = (floats(count, 5 * gates, 4, low=-1, high=1), floats(count, 5 * gates, 5, low=-1, high=1))
            biases, first = floats(count, 10 * gates, low=-1, high=1), floats(count, 3, 5, low=-1, high=1)
            states = (first, floats(count, 3, 5, low=-1, high=1)) if operator == "LSTM" else (first,)
            options = {"hidden_size": 5, "direction": direction}
            outputs = 3 if operator == "LSTM" else 2
            given = (floats(6, 3, 4), *weights)
            cases += [Case(operator, (*given, biases, None, *states), (1, 2, 3), options, outputs, 1e-5)]
            cases += [Case(operator, given, (1, 2), options, outputs, 1e-5)]
            if operator == "GRU":
                options = {**options, "linear_before_reset": 1}
                cases += [Case(operator, (*given, biases), (1, 2, 3), options, outputs, 1e-5)]
    return cases


def _list_others() -> list[Case]:
    texts = np.array([["a", "é"], ["", "z"], ["é", "a\0"]], object)
    keys = {"keys_strings": ["a", "é", "b c", ""], "domain": "ai.onnx.ml"}
    cases = [Case("LabelEncoder", (texts,), attributes={**keys, "values_int64s": [3, 1, 7, 5], "default_int64": -1})]
    cases += [Case("LabelEncoder", (texts,), attributes={**keys, "values_floats": [0.5, 1.5, 2.5, 9.0]})]
    cases += [Case("LabelEncoder", (wholes(5, 2, low=0, high=4),), attributes={
        "keys_int64s": [0, 2, 3], "values_strings": ["x", "é", "z"], "domain": "ai.onnx.ml"})]  # fmt: skip
    scores, labels = floats(4, 5, 3), wholes(4, 3, low=0, high=5)
    for reduction in ("none", "mean", "sum"):
        options = {"reduction": reduction}
        cases += [Case("SoftmaxCrossEntropyLoss", (scores, labels), attributes=options, outputs=2)]
        cases += [
            Case(
                "NegativeLogLikelihoodLoss", (scores, labels, floats(5, low=0.1)), (2,), {**options, "ignore_index": 2}
            )
        ]
    some = np.where(labels == 1, -100, labels)
    cases += [Case("SoftmaxCrossEntropyLoss", (scores, some), attributes={"ignore_index": -100, "reduction": "none"})]
    scale, zero = constant(0.03, dtype=np.float32).reshape(()), constant(11, dtype=np.uint8).reshape(())
    cases += [
        Case("QuantizeLinear", (floats(3, 9, low=-9, high=9), scale, zero), (1, 2)),
        Case("QuantizeLinear", (floats(3, 9), scale), (1,)),
    ]
    scales, zeros = floats(4, low=0.01, high=0.1), wholes(4, dtype=np.int8)
    cases += [Case("QuantizeLinear", (floats(3, 4, 5), scales, zeros), (1, 2), {"axis": 1})]
    cases += [Case("DequantizeLinear", (wholes(3, 4, 5, dtype=np.int8), scales, zeros), (1, 2), {"axis": -2})]
    cases += [Case("DequantizeLinear", (wholes(3, 4, low=0, dtype=np.uint8), scale), (1,))]
    return cases


def list_layer_cases() -> list[Case]:
    """Return all of them."""
    families = (_list_convolutions, _list_pools, _list_normalisations, _list_resizing, _list_recurrent, _list_others)
    return [case for family in families for case in family()]
