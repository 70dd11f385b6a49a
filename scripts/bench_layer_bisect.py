"""Plant faults into exported ONNX models, and see whether `find_first_difference` names the layer and the cause.

    python scripts/bench_layer_bisect.py --seed 1

Twelve faults of different kinds, in models and places that the seed draws, each strong enough that `export` would
refuse the file; and twelve clean models, in fp32 and int8. Time is CPU time, divided by that of exporting the same
model in the same process, once the packages are loaded.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import onnx
import timm
import torch
import torchvision
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from mlscale.compress.quantize import quantize_model
from mlscale.data.encoders.encoder import INPUT
from mlscale.export.layer_bisect import LayerDifference, find_first_difference
from mlscale.export.layer_bisect.matched_values import measure_error
from mlscale.export.onnx_engine import import_onnx_runtime
from mlscale.tasks import GPT, ResNet, TabularNet, TextCNN, UNet, ViT

_SAMPLES = 32
_VISIBLE = 2e-4
"""Of the largest output: a fault below it is none that `export` finds."""
_VISIBLE_INT8 = 2.0
"""The same for int8, in units of what eight bits change without a fault."""


@dataclass(frozen=True)
class Case:
    """A trained model and its exports.

    Attributes:
        model: in evaluation mode.
        samples: of its input, (n, …).
        fp32: as ONNX.
        export_s: CPU time of the export.
    """

    model: nn.Module
    samples: NDArray[Any]
    fp32: bytes
    export_s: float

    def quantize(self, method: Any) -> bytes:
        return quantize_model(self.fp32, method, {INPUT: self.samples})


@dataclass(frozen=True)
class Fault:
    """A faulty file: the nodes and modules that name the fault, its cause, and the file without it if that is int8."""

    content: bytes
    nodes: frozenset[str]
    cause: str
    what: str
    modules: frozenset[str] = frozenset()
    clean: bytes | None = None


def draw_images(size: int, channels: int = 3) -> NDArray[Any]:
    return np.random.default_rng(0).standard_normal((_SAMPLES, channels, size, size), np.float32)


def draw_tokens(length: int) -> NDArray[Any]:
    return np.random.default_rng(0).integers(1, 256, (_SAMPLES, length))


MODELS: dict[str, Callable[[], tuple[nn.Module, NDArray[Any]]]] = {
    "resnet": lambda: (ResNet(3, 10, widths=(8, 16)), draw_images(16)),
    "resnet18 (torchvision)": lambda: (torchvision.models.resnet18(num_classes=10), draw_images(64)),
    "mobilenet (torchvision)": lambda: (torchvision.models.mobilenet_v3_small(num_classes=10), draw_images(64)),
    "unet": lambda: (UNet(3, 4, widths=(8, 16, 32)), draw_images(18)),
    "vit": lambda: (ViT(3, 10, 16, 16, patch=4, dim=32, depth=2), draw_images(16)),
    "vit (timm)": lambda: (timm.create_model("vit_tiny_patch16_224", img_size=64, depth=3), draw_images(64)),
    "text cnn": lambda: (TextCNN(257, 5, width=16, filters=16), draw_tokens(40)),
    "gpt": lambda: (GPT(256, 32, width=32, layers=2, ngrams=(2, 3), buckets=512), draw_tokens(32)),
    "table net": lambda: (TabularNet(12, 3), np.random.default_rng(0).standard_normal((_SAMPLES, 12), np.float32)),
}


@cache
def build_case(name: str) -> Case:
    """Return a model whose weights and statistics are not those that it starts with, and its export."""
    torch.manual_seed(0)
    model, samples = MODELS[name]()
    perturb_weights(model, samples)
    export_model(model, samples)
    start = time.process_time()
    content = export_model(model, samples)
    return Case(model, samples, content, time.process_time() - start)


def perturb_weights(model: nn.Module, samples: NDArray[Any]) -> None:
    with torch.no_grad():
        # A layer that starts with zeros, or with ones, hides what is wrong with it.
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        model.train()
        for _ in range(3):
            model(torch.from_numpy(samples))
    model.eval()


def export_model(model: nn.Module, samples: NDArray[Any]) -> bytes:
    """Return the model as `mlscale export` makes it: named ports, a batch of any size, no sources."""
    program = torch.onnx.export(
        model,
        (torch.from_numpy(samples[:2]),),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=["input"],
        output_names=["logits"],
        external_data=False,
        verbose=False,
    )
    assert program is not None
    proto = program.model_proto
    for part in (proto, proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


class Editor:
    """An ONNX model that is changed."""

    def __init__(self, content: bytes) -> None:
        self.model = onnx.load_from_string(content)
        self.graph = self.model.graph
        self.constants = {item.name: item for item in self.graph.initializer}

    def find_nodes(self, *operators: str) -> list[Any]:
        return [node for node in self.graph.node if node.op_type in operators]

    def find_readers(self, name: str) -> frozenset[str]:
        return frozenset(node.name for node in self.graph.node if name in node.input)

    def read(self, name: str) -> NDArray[Any]:
        return numpy_helper.to_array(self.constants[name]).copy()

    def write(self, name: str, array: NDArray[Any]) -> None:
        self.constants[name].CopyFrom(numpy_helper.from_array(array, name))

    def set_attribute(self, node: Any, name: str, value: Any) -> None:
        kept = [item for item in node.attribute if item.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    def finish(self) -> bytes:
        content: bytes = self.model.SerializeToString()
        return content


EPSILONS = [1e-3, 1e-2, 5e-2]
Plant = Callable[[Case, random.Random], Fault | None]


def pick_weight(editor: Editor, draw: random.Random) -> tuple[Any, str]:
    """Return a node and the name of its matrix or kernel."""
    pairs = [
        (node, name)
        for node in editor.find_nodes("Conv", "Gemm", "MatMul", "Gather")
        for name in node.input[:2]
        if name in editor.constants and len(editor.constants[name].dims) > 1
    ]
    return draw.choice(pairs)


def plant_weight(case: Case, draw: random.Random) -> Fault:
    editor = Editor(case.fp32)
    _, name = pick_weight(editor, draw)
    array = editor.read(name)
    row, factor = draw.randrange(len(array)), draw.choice([0.9, 1.05, 1.5])
    array[row] *= factor
    editor.write(name, array)
    return Fault(editor.finish(), editor.find_readers(name), "operator", f"row {row} of {name} × {factor}")


def plant_bias(case: Case, draw: random.Random) -> Fault | None:
    editor = Editor(case.fp32)
    names = [node.input[2] for node in editor.find_nodes("Conv", "Gemm") if len(node.input) > 2]
    if not names:
        return None
    name = draw.choice(names)
    array = editor.read(name)
    array[draw.randrange(len(array))] += 0.1
    editor.write(name, array)
    return Fault(editor.finish(), editor.find_readers(name), "operator", f"a number of {name} + 0.1")


def plant_half_weight(case: Case, draw: random.Random) -> Fault:
    import ml_dtypes

    editor = Editor(case.fp32)
    _, name = pick_weight(editor, draw)
    half = draw.choice([np.float16, ml_dtypes.bfloat16])
    editor.write(name, editor.read(name).astype(half).astype(np.float32))
    return Fault(editor.finish(), editor.find_readers(name), "precision", f"{name} in {np.dtype(half).name}")


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
    return Fault(
        editor.finish(), frozenset({node.name, down.name, up.name}), "precision", f"bfloat16 after {node.name}"
    )


def plant_attribute(operators: tuple[str, ...], name: str, *changes: Callable[[Any], Any]) -> Plant:
    """Return a function that changes an attribute of a node by one of `changes`."""

    def plant(case: Case, draw: random.Random) -> Fault | None:
        editor = Editor(case.fp32)
        nodes = editor.find_nodes(*operators)
        if not nodes:
            return None
        node = draw.choice(nodes)
        values = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        changed = draw.choice(changes)(values.get(name))
        editor.set_attribute(node, name, changed)
        return Fault(editor.finish(), frozenset({node.name}), "operator", f"{name} of {node.name} is {changed}")

    return plant


def replace_value(value: Any, _: Any) -> Any:
    return value


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
    return Fault(content, nodes, "operator", f"another eps of {name}", frozenset({name}))


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
    return Fault(editor.finish(), editor.find_readers(name), "operator", f"{name} × {factor}")


def plant_resize(case: Case, draw: random.Random) -> Fault | None:
    name, value = draw.choice(
        [("mode", "linear"), ("nearest_mode", "ceil"), ("coordinate_transformation_mode", "align_corners")]
    )
    return plant_attribute(("Resize",), name, partial(replace_value, value))(case, draw)


def plant_activation_scale(case: Case, draw: random.Random) -> Fault | None:
    clean = case.quantize("static")
    editor = Editor(clean)
    node = draw.choice(editor.find_nodes("QuantizeLinear"))
    factor = draw.choice([0.25, 0.5, 2.0, 4.0])
    editor.write(node.input[1], (editor.read(node.input[1]) * factor).astype(np.float32))
    nodes = editor.find_readers(node.input[1])
    return Fault(editor.finish(), nodes, "calibration", f"{node.input[1]} × {factor}", clean=clean)


def plant_zero_point(case: Case, draw: random.Random) -> Fault | None:
    clean = case.quantize("static")
    editor = Editor(clean)
    node = draw.choice(editor.find_nodes("QuantizeLinear"))
    zero = editor.read(node.input[2])
    editor.write(node.input[2], ((zero.astype(np.int64) + 90) % 256).astype(zero.dtype).reshape(zero.shape))
    nodes = editor.find_readers(node.input[2])
    return Fault(editor.finish(), nodes, "calibration", f"{node.input[2]} + 90", clean=clean)


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
        return Fault(editor.finish(), nodes, "calibration", what, clean=clean)

    return plant


CONVOLUTIONS = ["resnet", "resnet18 (torchvision)", "unet"]
ATTENTION = ["vit", "vit (timm)", "gpt"]
ALL = list(MODELS)
# The first six are the issue's own kinds and are planted for each seed; of the others, six are drawn.
REQUIRED: dict[str, tuple[list[str], Plant]] = {
    "weight": (ALL, plant_weight),
    "epsilon, layer": (
        [*ATTENTION, "table net"],
        plant_attribute(("LayerNormalization",), "epsilon", *(partial(replace_value, value) for value in EPSILONS)),
    ),
    "epsilon, batch": ([*CONVOLUTIONS, "mobilenet (torchvision)"], plant_batch_norm_epsilon),
    "resize mode": (["unet"], plant_resize),
    "attention scale": (ATTENTION, plant_attention_scale),
    "activation scale, int8": (CONVOLUTIONS, plant_activation_scale),
}
DRAWN: dict[str, tuple[list[str], Plant]] = {
    "weight scale, static int8": (CONVOLUTIONS, plant_weight_scale("static")),
    "weight scale, dynamic int8": ([*ATTENTION, "table net"], plant_weight_scale("dynamic")),
    "zero point, int8": (CONVOLUTIONS, plant_zero_point),
    "bias": (ALL, plant_bias),
    "weight in half precision": (ALL, plant_half_weight),
    "value in half precision": (ALL, plant_cast),
    "gelu": (ATTENTION, plant_attribute(("Gelu",), "approximate", lambda a: "none" if a == b"tanh" else "tanh")),
    "softmax axis": (ATTENTION, plant_attribute(("Softmax",), "axis", lambda _: -2)),
    "pooling": (["resnet18 (torchvision)", "unet"], plant_attribute(("MaxPool",), "dilations", lambda _: [2, 2])),
    "gemm factor": (ALL, plant_attribute(("Gemm",), "beta", lambda _: 0.5)),
    "hard sigmoid": (["mobilenet (torchvision)"], plant_attribute(("HardSigmoid",), "alpha", lambda _: 0.2)),
    "transposition": (["vit", "gpt"], plant_attribute(("Transpose",), "perm", lambda p: p and p[::-1])),
}


def run_model(content: bytes, samples: NDArray[Any]) -> NDArray[Any] | None:
    """Return the logits; None where ONNX Runtime refuses the model."""
    runtime = import_onnx_runtime()
    try:
        session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
        logits: NDArray[Any] = session.run(None, {"input": samples})[0]
    except Exception:  # onnxruntime's errors share no base
        return None
    return logits


def plant_fault(kinds: tuple[list[str], Plant], draw: random.Random) -> tuple[str, Fault] | None:
    """Return a fault that a comparison of the outputs notices, and its model."""
    for _ in range(20):
        name = draw.choice(kinds[0])
        case = build_case(name)
        fault = kinds[1](case, draw)
        if fault is None:
            continue
        logits = run_model(fault.content, case.samples)
        with torch.no_grad():
            expected = case.model(torch.from_numpy(case.samples)).numpy()
        limit = _VISIBLE
        if fault.clean is not None:
            limit = _VISIBLE_INT8 * measure_error(expected, run_model(fault.clean, case.samples))
        if logits is not None and measure_error(expected, logits) > limit:
            return name, fault
    return None


def search(case: Case, content: bytes) -> tuple[LayerDifference | None, float]:
    """Return what is found, and its CPU time divided by that of the export."""
    start = time.process_time()
    found = find_first_difference(case.model, content, {"input": case.samples}, case.fp32)
    return found, (time.process_time() - start) / case.export_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, required=True, help="of the faults and their places")
    draw = random.Random(parser.parse_args().seed)
    build_case("table net")
    kinds = {**REQUIRED, **dict(draw.sample(list(DRAWN.items()), len(DRAWN)))}
    right = total = 0
    ratios: list[float] = []
    used: set[str] = set()
    for kind, where in kinds.items():
        if total == 12 or (planted := plant_fault(where, draw)) is None:
            continue
        name, fault = planted
        found, ratio = search(build_case(name), fault.content)
        is_place = found is not None and (found.node in fault.nodes or found.module_path in fault.modules)
        is_right = is_place and found is not None and found.cause == fault.cause
        total, right = total + 1, right + is_right
        ratios.append(ratio)
        used.add(name)
        print(f"{'right' if is_right else 'WRONG'}  {kind:26} {name:24} {ratio:4.2f}×  {fault.what}", flush=True)
        print(f"       {found.sentence if found else 'nothing found'}", flush=True)
    clean = [(name, "fp32", build_case(name).fp32) for name in ALL]
    clean += [("resnet", "int8, static", build_case("resnet").quantize("static"))]
    clean += [("unet", "int8, static", build_case("unet").quantize("static"))]
    clean += [("vit", "int8, dynamic", build_case("vit").quantize("dynamic"))]
    named = 0
    for name, precision, content in clean:
        found, ratio = search(build_case(name), content)
        named += found is not None
        ratios.append(ratio)
        print(f"{'NAMED' if found else 'clean'}  {precision:26} {name:24} {ratio:4.2f}×", flush=True)
        if found:
            print(f"       {found.sentence}", flush=True)
    print(
        f"{right} of {total} faults named right, in {len(used)} models; {named} of {len(clean)} clean models named; "
        f"{np.median(ratios):.2f}× the time of an export [{min(ratios):.2f}, {max(ratios):.2f}]"
    )


if __name__ == "__main__":
    main()
