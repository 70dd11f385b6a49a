"""Cases of single operators: inputs that are given, inputs that are constants, and attributes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_rng = np.random.default_rng(20261129)


@dataclass(frozen=True)
class Case:
    """An operator with some inputs.

    Attributes:
        operator: its type.
        inputs: in order; None for one that is left out.
        constants: positions of inputs that are constants of the graph.
        attributes: of the node.
        outputs: how many are compared.
        tolerance: relative.
        fixed: the first size is known, too.
    """

    operator: str
    inputs: tuple[Array | None, ...]
    constants: tuple[int, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    tolerance: float = 2e-6
    fixed: bool = False

    @property
    def label(self) -> str:
        """Its name in a test's id."""
        shapes = "x".join("_".join(map(str, x.shape)) for x in self.inputs if x is not None)
        details = "-".join(f"{name}={value}" for name, value in self.attributes.items() if np.size(value) < 9)
        return f"{self.operator}-{shapes}-{details}"[:120]


def floats(*shape: int, low: float = -3, high: float = 3) -> Array:
    return _rng.uniform(low, high, shape).astype(np.float32)


def wholes(*shape: int, low: int = -9, high: int = 10, dtype: Any = np.int64) -> Array:
    return _rng.integers(low, high, shape).astype(dtype)


def flags(*shape: int) -> Array:
    return _rng.random(shape) < 0.5


def odd_floats(*shape: int) -> Array:
    x = floats(*shape)
    x.flat[:4] = (np.nan, np.inf, -np.inf, 0)
    return x


def constant(*values: Any, dtype: Any = np.int64) -> Array:
    return np.array(values, dtype)


def _list_elementwise() -> list[Case]:
    unbounded = [
        "Abs", "Asinh", "Atan", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor", "Identity", "Mish", "Neg",
        "Relu", "Round", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Tan", "Tanh",
        "HardSwish", "HardSigmoid", "Elu", "Celu", "Selu", "LeakyRelu", "Gelu",
    ]  # fmt: skip
    cases = [Case(name, (floats(3, 5),), tolerance=4e-6) for name in unbounded]
    cases += [Case(name, (floats(3, 5, low=-1, high=1),), tolerance=4e-6) for name in ("Acos", "Asin", "Atanh")]
    cases += [Case(name, (floats(3, 5, low=1, high=4),)) for name in ("Acosh", "Log", "Sqrt", "Reciprocal")]
    cases += [Case(name, (odd_floats(3, 5),)) for name in ("IsNaN", "IsInf", "Abs", "Neg", "Relu", "Sign")]
    cases += [
        Case("IsInf", (odd_floats(3, 5),), attributes={name: 0}) for name in ("detect_positive", "detect_negative")
    ]
    cases += [Case("Gelu", (floats(3, 5),), attributes={"approximate": "tanh"})]
    cases += [Case("Round", (constant(0.5, 1.5, 2.5, -0.5, -1.5, 2.4, dtype=np.float32),))]
    for name, options in {"Elu": {"alpha": 0.3}, "Celu": {"alpha": 0.7}, "LeakyRelu": {"alpha": 0.2}}.items():
        cases.append(Case(name, (floats(4, 3),), attributes=options))
    cases += [Case("HardSigmoid", (floats(4, 3),), attributes={"alpha": 0.4, "beta": 0.1})]
    cases += [Case("PRelu", (floats(2, 3, 4), floats(3, 1)), (1,))]
    cases += [Case("Not", (flags(3, 4),)), Case("BitwiseNot", (wholes(3, 4),)), Case("Dropout", (floats(3, 4),))]
    for name in ("Add", "Sub", "Mul", "Div", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal"):
        cases += [Case(name, (floats(3, 1, 5), floats(4, 1))), Case(name, (wholes(3, 5), wholes(5, low=1)), (1,))]
    cases += [Case("Div", (wholes(30, dtype=np.int32), wholes(30, low=1, high=5, dtype=np.int32)))]
    cases += [Case("Equal", (np.array([["a"], ["é"], [""]], object), np.array(["é", "a"], object)))]
    for name in ("And", "Or", "Xor"):
        cases.append(Case(name, (flags(3, 5), flags(5))))
    for name in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
        cases.append(Case(name, (wholes(3, 5), wholes(5))))
    for direction in ("LEFT", "RIGHT"):
        shift = (wholes(6, low=0, high=99, dtype=np.uint8), wholes(6, low=0, high=7, dtype=np.uint8))
        cases.append(Case("BitShift", shift, attributes={"direction": direction}))
    cases += [Case("Mod", (wholes(40), wholes(40, low=1)))]
    cases += [Case("Mod", (wholes(40), -wholes(40, low=1)))]
    cases += [Case("Mod", (wholes(40, low=-(2**62), high=2**62), constant(2**31 - 1)), (1,))]
    cases += [Case("Mod", (wholes(40), wholes(40, low=1)), attributes={"fmod": 1})]
    cases += [Case("Mod", (floats(40), floats(40, low=1)), attributes={"fmod": 1})]
    cases += [Case("Pow", (floats(9, low=0), constant(1.5, dtype=np.float32)), (1,))]
    cases += [
        Case("Pow", (floats(9), constant(2)), (1,)),
        Case("Pow", (wholes(9, high=9), constant(2.0, dtype=np.float32)), (1,)),
    ]
    for name in ("Max", "Min", "Sum"):
        cases += [Case(name, (floats(3, 5), floats(5), floats(3, 1))), Case(name, (floats(3, 5),))]
    cases += [Case("Max", (odd_floats(4, 4), floats(4, 4))), Case("Min", (odd_floats(4, 4), floats(4, 4)))]
    cases += [
        Case("Where", (flags(3, 1), floats(1, 4), floats(3, 4))),
        Case("Where", (flags(3, 4), wholes(4), wholes(1)), (2,)),
    ]
    low, high = (constant(value, dtype=np.float32).reshape(()) for value in (-1, 1))
    cases += [Case("Clip", (floats(5, 4), *bounds), (1, 2)) for bounds in ((low, high), (low,), (None, high), ())]
    cases += [Case("Clip", (odd_floats(5, 4), low, high), (1, 2))]
    cases += [Case("Clip", (wholes(5, 4), constant(-2).reshape(()), constant(3).reshape(())), (1, 2))]
    for to in (1, 2, 3, 5, 6, 7, 9, 10, 11):
        cases += [Case("Cast", (floats(4, 4, low=0, high=100),), attributes={"to": to}, tolerance=1e-3)]
        cases += [Case("Cast", (flags(4, 4),), attributes={"to": to})]
    cases += [Case("CastLike", (floats(4, 4), wholes(1)), (1,))]
    return cases


def _list_shapes() -> list[Case]:
    x = floats(2, 3, 4, 5)
    cases = [Case("Shape", (x,), attributes=part) for part in ({}, {"start": 1}, {"start": -2, "end": -1}, {"end": 2})]
    cases += [Case("Size", (x,)), Case("Flatten", (x,), attributes={"axis": 0})]
    cases += [Case("Flatten", (x,), attributes={"axis": axis}) for axis in (1, 2, -1, 4)]
    for shape in ((0, -1), (-1, 20), (2, 3, -1), (0, 0, 20), (0, 12, 5)):
        cases.append(Case("Reshape", (x, constant(*shape)), (1,)))
    cases += [Case("Reshape", (x, constant(6, 20)))]
    cases += [Case("Squeeze", (floats(2, 1, 3, 1), axes), (1,)) for axes in (constant(1), constant(-1, 1))]
    cases += [Case("Squeeze", (floats(2, 1, 3, 1),), fixed=True)]
    cases += [Case("Unsqueeze", (floats(2, 3), axes), (1,)) for axes in (constant(0), constant(3, 1), constant(-1, 0))]
    cases += [Case("Transpose", (x,)), Case("Transpose", (x,), attributes={"perm": [2, 0, 3, 1]})]
    cases += [Case("Concat", (x, floats(2, 3, 1, 5)), attributes={"axis": axis}) for axis in (2, -2)]
    cases += [Case("Concat", (x, floats(4, 3, 4, 5)), (1,), attributes={"axis": 0})]
    cases += [
        Case("Concat", (np.array([["a"], ["b"]], object), np.array([["c"], ["d"]], object)), attributes={"axis": 1})
    ]
    cases += [Case("Split", (x, constant(1, 3)), (1,), {"axis": 2}, outputs=2)]
    cases += [Case("Split", (x,), attributes={"axis": -1, "num_outputs": 3}, outputs=3)]
    cases += [Case("Split", (floats(4, 3), constant(3, 1)), (1,), {"axis": 0}, outputs=2, fixed=True)]
    cases += [Case("Expand", (floats(2, 3, 1, 5), shape), (1,)) for shape in (constant(2, 3, 4, 5), constant(3, 1, 1))]
    cases += [Case("Expand", (floats(2, 1, 5), constant(2, 1, 2, 1, 1, 1)), (1,))]
    cases += [Case("Expand", (floats(2, 1), constant(2, 6)))]
    cases += [Case("Tile", (floats(2, 3), constant(2, 3)), (1,)), Case("Tile", (floats(2, 3), constant(1, 2)))]
    cases += [
        Case("ConstantOfShape", (constant(2, 3),)),
        Case("Range", tuple(constant(value).reshape(()) for value in (2, 11, 3))),
    ]
    cases += [Case("EyeLike", (floats(3, 4),), attributes={"k": k}) for k in (0, 1, -1)]
    cases += [Case("EyeLike", (floats(3, 4),), attributes={"dtype": 7})]
    for mode in ("DCR", "CRD"):
        cases.append(Case("DepthToSpace", (floats(2, 12, 3, 4),), attributes={"blocksize": 2, "mode": mode}))
    return cases


def _list_indexing() -> list[Case]:
    x = floats(4, 5, 6)
    cases = []
    for axis in (0, 1, -1):
        cases += [Case("Gather", (x, wholes(2, 3, low=-4, high=4)), (1,), {"axis": axis})]
        cases += [Case("Gather", (x, wholes(2, 3, low=-4, high=4)), attributes={"axis": axis})]
        cases += [Case("GatherElements", (x, wholes(3, 2, 4, low=-4, high=4)), attributes={"axis": axis})]
    cases += [Case("Gather", (x, constant(2).reshape(())), (1,), {"axis": 1})]
    cases += [Case("Gather", (np.array([["a", "b"], ["c", "d"]], object), constant(1)), (1,), {"axis": 1})]
    cases += [Case("GatherND", (x, wholes(3, 2, low=-4, high=4)))]
    cases += [Case("GatherND", (x, wholes(4, 7, 1, low=0, high=5)), attributes={"batch_dims": 1})]
    bounds: list[tuple[Any, ...]] = [
        ([1], [4], [1]), ([0], [2**63 - 1], [2]), ([-3], [-1], [-1]), ([-9], [99], [1]), ([3, 0], [1, 5], [1, 2]),
    ]  # fmt: skip
    cases += [Case("Slice", (x, *(constant(*part) for part in parts)), (1, 2, 3)) for parts in bounds]
    backwards = [
        ([-1], [-(2**63)], [1], [-1]),
        ([4], [0], [1], [-2]),
        ([-1], [-(2**63)], [0], [-1]),
        ([2], [9], [-1], [3]),
    ]
    cases += [Case("Slice", (x, *(constant(*part) for part in parts)), (1, 2, 3, 4)) for parts in backwards]
    cases += [Case("Slice", (x, constant(1), constant(3), constant(2)), (3,))]
    cases += [Case("Slice", (x, constant(1), constant(2**63 - 1), constant(1)), (3,))]
    cases += [Case("Slice", (x, constant(1, 2), constant(3, 4)), (1, 2))]
    image = floats(2, 3, 4, 5)
    value = constant(1.5, dtype=np.float32).reshape(())
    for mode in ("constant", "edge", "reflect", "wrap"):
        cases += [Case("Pad", (image, constant(0, 0, 1, 2, 0, 0, 3, 1)), (1,), {"mode": mode})]
        cases += [Case("Pad", (image, constant(2, 0, 1, 3), None, constant(2, -1)), (1, 3), {"mode": mode})]
    cases += [Case("Pad", (image, constant(0, 1, 0, -1, 1, 0, -2, 0), value), (1, 2))]
    cases += [Case("Pad", (floats(2, 3), constant(0, 1, 0, 2)))]
    cases += [
        Case("Pad", (flags(3, 4), constant(0, 1, 0, 0)), (1,)),
        Case("Pad", (wholes(3, 4), constant(0, 5, 0, 0)), (1,)),
    ]
    cases += [Case("Trilu", (floats(2, 4, 5),), attributes={"upper": upper}) for upper in (0, 1)]
    cases += [Case("Trilu", (floats(2, 4, 5), constant(k).reshape(())), (1,), {"upper": 0}) for k in (-1, 2)]
    cases += [Case("NonZero", (floats(3, 4) * flags(3, 4),))]
    for reduction in ("none", "add", "max", "min"):
        unique = np.stack([_rng.permutation(4)[:2] for _ in range(3)]).astype(np.int64)
        options = {"reduction": reduction}
        cases += [Case("ScatterElements", (floats(3, 4), unique, floats(3, 2)), attributes={"axis": 1, **options})]
        cases += [Case("ScatterND", (floats(4, 5, 6), constant([0], [-1], [2]), floats(3, 5, 6)), attributes=options)]
    return cases


def _list_reductions() -> list[Case]:
    x, cases = floats(3, 4, 5, low=0.1), []
    for name in ["L1", "L2", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum"]:
        cases += [Case(f"Reduce{name}", (x, axes), (1,), {"keepdims": keeps}, tolerance=4e-6)
                  for axes in (constant(1), constant(-1, 1)) for keeps in (0, 1)]  # fmt: skip
        cases += [
            Case(f"Reduce{name}", (x,), tolerance=4e-6),
            Case(f"Reduce{name}", (x,), attributes={"noop_with_empty_axes": 1}),
        ]
    cases = [case for case in cases if "noop_with_empty_axes" not in case.attributes or case.operator == "ReduceSum"]
    cases += [Case(name, (flags(3, 4), constant(1)), (1,)) for name in ("ReduceMax", "ReduceMin")]
    cases += [
        Case("ReduceSum", (wholes(3, 4), constant(1)), (1,)),
        Case("ReduceMax", (wholes(3, 4), constant(0)), (1,)),
    ]
    ties = wholes(4, 6, low=0, high=3).astype(np.float32)
    for name in ("ArgMax", "ArgMin"):
        cases += [
            Case(name, (ties,), attributes={"axis": axis, "keepdims": keeps}) for axis in (0, -1) for keeps in (0, 1)
        ]
        cases += [Case(name, (ties,), attributes={"axis": 1, "select_last_index": 1})]
    for options in ({}, {"exclusive": 1}, {"reverse": 1}, {"exclusive": 1, "reverse": 1}):
        cases += [Case("CumSum", (floats(3, 6), constant(-1).reshape(())), (1,), options)]
    for largest in (0, 1):
        for axis, k in ((-1, 3), (0, 2)):
            options = {"axis": axis, "largest": largest}
            cases += [Case("TopK", (floats(5, 6), constant(k)), (1,), options, outputs=2)]
            cases += [Case("TopK", (wholes(5, 6, low=-(2**62), high=2**62), constant(k)), (1,), options, outputs=2)]
            cases += [Case("TopK", (floats(4, 5, 6), constant(k)), (1,), options, outputs=2)]
        cases += [Case("TopK", (ties, constant(6)), (1,), {"largest": largest}, outputs=2)]
    for name in ("Softmax", "LogSoftmax"):
        cases += [Case(name, (floats(3, 4, 5),), attributes={"axis": axis}) for axis in (1, -1)]
    return cases


def _list_products() -> list[Case]:
    shapes: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
        ((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((2, 1, 3, 4), (5, 4, 2)), ((4,), (4, 5)),
        ((3, 4), (4,)), ((2, 3, 4), (4,)), ((4,), (2, 4, 3)),
    ]  # fmt: skip
    cases = [Case("MatMul", (floats(*left), floats(*right))) for left, right in shapes]
    cases += [Case("MatMul", (floats(2, 3, 4), floats(4, 5)), (1,)), Case("MatMul", (floats(4), floats(4)), fixed=True)]
    cases += [Case("Gemm", (floats(3, 4), floats(4, 5), floats(5)), (1, 2)), Case("Gemm", (floats(3, 4), floats(4, 5)))]
    options = {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}
    cases += [Case("Gemm", (floats(4, 3), floats(5, 4), floats(3, 1)), (1,), options)]
    for equation, parts in {
        "bij,bjk->bik": ((2, 3, 4), (2, 4, 5)), "bi,bi->b": ((3, 4), (3, 4)), "...ij->...ji": ((2, 3, 4),),
        "bhld, bhmd -> bhlm": ((2, 2, 3, 4), (2, 2, 5, 4)), "bi,jk->bijk": ((2, 3), (4, 5)),
    }.items():  # fmt: skip
        cases.append(Case("Einsum", tuple(floats(*part) for part in parts), attributes={"equation": equation}))
    return cases


def list_value_cases() -> list[Case]:
    """Return the cases of operators on values, shapes, positions, axes and matrices."""
    families: list[Callable[[], list[Case]]] = [
        _list_elementwise, _list_shapes, _list_indexing, _list_reductions, _list_products,
    ]  # fmt: skip
    return [case for family in families for case in family()]
