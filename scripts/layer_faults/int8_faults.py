"""Faults of a model in int8: scales and zero points."""

from __future__ import annotations

import random

import numpy as np

from scripts.layer_faults.exported_cases import Case
from scripts.layer_faults.onnx_editor import Editor
from scripts.layer_faults.planted_fault import Fault, Plant


def plant_activation_scale(case: Case, draw: random.Random) -> Fault | None:
    clean = case.quantize("static")
    editor = Editor(clean)
    node = draw.choice(editor.find_nodes("QuantizeLinear"))
    factor = draw.choice([0.25, 0.5, 2.0, 4.0])
    editor.write(node.input[1], (editor.read(node.input[1]) * factor).astype(np.float32))
    nodes = editor.find_readers(node.input[1])
    return Fault(editor.finish(), nodes, f"{node.input[1]} × {factor}", clean=clean)


def plant_zero_point(case: Case, draw: random.Random) -> Fault | None:
    clean = case.quantize("static")
    editor = Editor(clean)
    node = draw.choice(editor.find_nodes("QuantizeLinear"))
    zero = editor.read(node.input[2])
    editor.write(node.input[2], ((zero.astype(np.int64) + 90) % 256).astype(zero.dtype).reshape(zero.shape))
    nodes = editor.find_readers(node.input[2])
    return Fault(editor.finish(), nodes, f"{node.input[2]} + 90", clean=clean)


def plant_weight_scale(method: str) -> Plant:
    def plant(case: Case, draw: random.Random) -> Fault | None:
        clean = case.quantize(method)
        editor = Editor(clean)
        names = [name for name in editor.constants if name.endswith("_scale") and editor.constants[name].dims]
        names = [name for name in names if f"{name.removesuffix('_scale')}_quantized" in editor.constants]
        name, factor = draw.choice(names), draw.choice([0.5, 1.5, 3.0])
        scales = editor.read(name)
        which = draw.randrange(len(scales))
        scales[which] *= factor
        editor.write(name, scales)
        nodes = editor.find_readers(name) | editor.find_readers(f"{name.removesuffix('_scale')}_quantized")
        what = f"channel {which} of {name} × {factor}"
        return Fault(editor.finish(), nodes, what, clean=clean)

    return plant
