"""A faulty file, and what plants one kind of fault into any export."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from onnx import helper

from scripts.layer_faults.exported_cases import Case
from scripts.layer_faults.onnx_editor import Editor


@dataclass(frozen=True)
class Fault:
    """A faulty file: the nodes and modules that name the fault, and the file without it if that is int8."""

    content: bytes
    nodes: frozenset[str]
    what: str
    modules: frozenset[str] = frozenset()
    clean: bytes | None = None


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
        return Fault(editor.finish(), frozenset({node.name}), f"{name} of {node.name} is {changed}")

    return plant


def replace_value(value: Any, _: Any) -> Any:
    return value
