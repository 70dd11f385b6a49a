"""Servables whose graph is a function of one tensor, for gates."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.encoder import TensorSpec
from mlscale.data.encoders.tensor_encoder import TensorEncoder
from mlscale.export.engines.engine import Port
from mlscale.export.servable import Servable
from mlscale.task_types.registry import get_task_type
from mlscale.task_types.task_type import AnswerNames, TargetColumn

Graph = Callable[[NDArray[Any]], dict[str, NDArray[Any]]]


class FakeEngine:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def compute(self, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return self.graph(tensors["x"])


def make_servable(
    graph: Graph,
    kind: str = "classification",
    *,
    labels: tuple[str, ...] = (),
    targets: tuple[str, ...] = (),
    width: int = 1,
) -> Servable:
    """A model of `width` numbers a sample."""
    names = AnswerNames(labels, tuple(TargetColumn(name) for name in targets))
    encoder, document = TensorEncoder((TensorSpec("x", "float32", (width,)),)), {"format": "mlscale/servable/2"}
    ports = (Port("x", "float32", (-1, width)),)
    engine: Any = FakeEngine(graph)
    return Servable(Path(), document, get_task_type(kind), encoder, ports, (), names, engine)


def classify(columns: int, classes: int) -> Graph:
    """The class that a column of the sample holds."""
    return lambda x: {"logits": np.eye(classes, dtype=np.float32)[x[:, columns].astype(int)]}
