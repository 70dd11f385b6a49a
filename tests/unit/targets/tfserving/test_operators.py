"""Each operator of the SavedModel against ONNX Runtime, by itself."""

from __future__ import annotations

from typing import Any

import pytest
from onnx import helper

from tests.unit.targets.tfserving.layer_cases import list_layer_cases
from tests.unit.targets.tfserving.operator_cases import Case, list_value_cases
from tests.unit.targets.tfserving.single_nodes import assert_same, build_model, compute_by_both

pytest.importorskip("tensorflow", reason="TensorFlow is not installed: pip install 'mlscale[tfserving]'")
CASES = [*list_value_cases(), *list_layer_cases()]


def compute_case(case: Case) -> tuple[Any, Any]:
    """The outputs of ONNX Runtime and of TensorFlow."""
    names = ["" if values is None else f"x{number}" for number, values in enumerate(case.inputs)]
    arrays = {f"x{number}": values for number, values in enumerate(case.inputs) if values is not None}
    constants = {name: values for name, values in arrays.items() if int(name[1:]) in case.constants}
    given = {name: values for name, values in arrays.items() if name not in constants}
    outputs = [f"y{number}" for number in range(case.outputs)]
    node = helper.make_node(case.operator, names, outputs, name="tried/node", **case.attributes)
    return compute_by_both(build_model([node], given, constants, outputs, fixed=case.fixed), given)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_operator_computes_what_onnx_runtime_does(case: Case) -> None:
    expected, computed = compute_case(case)
    assert_same(expected, computed, case.tolerance)


def test_every_operator_is_tried() -> None:
    from mlscale.targets.tfserving.operator_table import OPERATORS
    from mlscale.targets.tfserving.operators import load_operators

    load_operators()
    tried = {("ai.onnx.ml." if "domain" in case.attributes else "") + case.operator for case in CASES}
    # It is computed before; `test_saved_model` has it.
    assert set(OPERATORS) - tried == {"Constant"}
    assert len(CASES) > 400
