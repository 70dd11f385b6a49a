"""Faults of an export in fp32: weights, precision, and attributes of nodes."""

from __future__ import annotations

import random
from functools import partial

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from scripts.layer_faults.exported_cases import Case, export_model
from scripts.layer_faults.onnx_editor import Editor
from scripts.layer_faults.planted_fault import Fault, pick_weight, plant_attribute, replace_value

EPSILONS = [1e-3, 1e-2, 5e-2]


def plant_weight(case: Case, draw: random.Random) -> Fault:
    editor = Editor(case.fp32)
    _, name = pick_weight(editor, draw)
    array = editor.read(name)
    row, factor = draw.randrange(len(array)), draw.choice([0.9, 1.05, 1.5])
    array[row] *= factor
    editor.write(name, array)
    return Fault(editor.finish(), editor.find_readers(name), f"row {row} of {name} × {factor}")


def plant_bias(case: Case, draw: random.Random) -> Fault | None:
    editor = Editor(case.fp32)
    names = [node.input[2] for node in editor.find_nodes("Conv", "Gemm") if len(node.input) > 2]
    if not names:
        return None
    name = draw.choice(names)
    array = editor.read(name)
    array[draw.randrange(len(array))] += 0.1
    editor.write(name, array)
    return Fault(editor.finish(), editor.find_readers(name), f"a number of {name} + 0.1")


def plant_half_weight(case: Case, draw: random.Random) -> Fault:
    import ml_dtypes

    editor = Editor(case.fp32)
    _, name = pick_weight(editor, draw)
    half = draw.choice([np.float16, ml_dtypes.bfloat16])
    editor.write(name, editor.read(name).astype(half).astype(np.float32))
    return Fault(editor.finish(), editor.find_readers(name), f"{name} in {np.dtype(half).name}")


def plant_cast(case: Case, draw: random.Random) -> Fault | None:
    """Round the output of a node to half precision."""
    editor = Editor(case.fp32)
    nodes = editor.find_nodes("Conv", "MatMul", "LayerNormalization", "Relu", "Add", "Gelu", "Softmax")
    node = draw.choice(nodes)
    name = node.output[0]
    if name == "logits":
        return None
    node.output[0] = f"{name}_full"
    down = helper.make_node("Cast", [f"{name}_full"], [f"{name}_half"], f"{node.name}_down", to=TensorProto.BFLOAT16)
    up = helper.make_node("Cast", [f"{name}_half"], [name], f"{node.name}_up", to=TensorProto.FLOAT)
    position = list(editor.graph.node).index(node) + 1
    editor.graph.node.insert(position, down)
    editor.graph.node.insert(position + 1, up)
    return Fault(editor.finish(), frozenset({node.name, down.name, up.name}), f"bfloat16 after {node.name}")


def plant_batch_norm_epsilon(case: Case, draw: random.Random) -> Fault | None:
    """Export with another epsilon: the exporter folds it into the layer before."""
    norms = [(name, module) for name, module in case.model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return None
    name, module = draw.choice(norms)
    before, module.eps = module.eps, draw.choice(EPSILONS)
    try:
        content = export_model(case.model, case.samples)
    finally:
        module.eps = before
    stored, clean = (onnx.load_from_string(each).graph for each in (content, case.fp32))
    constants = [{item.name: item.raw_data for item in graph.initializer} for graph in (stored, clean)]
    changed = {key for key, data in constants[0].items() if data != constants[1].get(key)}
    nodes = frozenset(node.name for node in stored.node if changed & set(node.input))
    return Fault(content, nodes, f"another eps of {name}", frozenset({name}))


def plant_attention_scale(case: Case, draw: random.Random) -> Fault | None:
    """Change the factor of the queries or keys; attention is where a softmax is."""
    editor = Editor(case.fp32)
    if not editor.find_nodes("Softmax"):
        return None
    names = sorted(
        {
            name
            for node in editor.find_nodes("Mul")
            for name in node.input
            if name in editor.constants and numpy_helper.to_array(editor.constants[name]).size == 1
        }
    )
    name = draw.choice(names)
    factor = draw.choice([0.7, 1.05, 1.3])
    editor.write(name, editor.read(name) * np.float32(factor))
    return Fault(editor.finish(), editor.find_readers(name), f"{name} × {factor}")


def plant_resize(case: Case, draw: random.Random) -> Fault | None:
    name, value = draw.choice(
        [("mode", "linear"), ("nearest_mode", "ceil"), ("coordinate_transformation_mode", "align_corners")]
    )
    return plant_attribute(("Resize",), name, partial(replace_value, value))(case, draw)
