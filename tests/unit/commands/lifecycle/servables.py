"""A servable of a table whose graph is a function of its numbers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.commands.lifecycle.production import LabelledSamples
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.table_parsing.columns import DataTable
from mlscale.export.engines.engine import Port
from mlscale.export.servable import Servable
from mlscale.task_types.registry import get_task_type
from mlscale.task_types.task_type import AnswerNames, TargetColumn

Numbers = NDArray[np.float64]


class FakeEngine:
    def __init__(self, graph: Callable[[Numbers], dict[str, NDArray[Any]]]) -> None:
        self.graph = graph

    def compute(self, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return self.graph(tensors["numbers"])


def draw_rows(n: int = 400) -> Numbers:
    """Two columns of numbers, uniform from 0 to 1."""
    return np.random.default_rng(0).random((n, 2))


def make_servable(graph: Callable[[Numbers], dict[str, NDArray[Any]]], kind: str, names: AnswerNames) -> Servable:
    """A model of the columns a and b."""
    values = draw_rows()
    table = DataTable({"a": values[:, 0], "b": values[:, 1]}, list(map(str, range(len(values)))))
    encoder = TableEncoder.fit(table, ("a", "b"), where="data.train")
    engine: Any = FakeEngine(graph)
    ports = (Port("numbers", "float64", (-1, 2)),)
    return Servable(Path(), {"format": "mlscale/servable/2"}, get_task_type(kind), encoder, ports, (), names, engine)


def label_rows(truth: NDArray[Any]) -> LabelledSamples:
    return LabelledSamples([{"a": a, "b": b} for a, b in draw_rows().tolist()], truth)


def make_classifier(decide: Callable[[Numbers], NDArray[Any]], classes: int = 2) -> Servable:
    """Predicts the class that `decide` returns."""
    names = AnswerNames(tuple("abcdefgh"[:classes]))
    return make_servable(
        lambda x: {"logits": np.eye(classes, dtype=np.float32)[decide(x).astype(int)]}, "classification", names
    )


def make_regressor(compute: Callable[[Numbers], Numbers]) -> Servable:
    """Predicts the number that `compute` returns, a mass in kg."""
    names = AnswerNames((), (TargetColumn("mass", "kg"),))
    return make_servable(lambda x: {"value": compute(x)[:, None].astype(np.float32)}, "regression", names)
