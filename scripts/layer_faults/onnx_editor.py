"""Find and change the nodes and constants of an ONNX model."""

from __future__ import annotations

from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper


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
