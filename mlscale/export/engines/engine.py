"""The interface of engines, which compute the graph of a servable: a runtime, or a server over the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray


@dataclass(frozen=True)
class Port:
    """An input or output of a graph.

    Attributes:
        name: in the ONNX graph, and in requests.
        dtype: uint8, int32, int64, float32, float64, bool or string.
        shape: -1 first, for the batch, and where a size varies.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


class Engine(Protocol):
    """Computes the outputs of a graph; see `OnnxEngine`."""

    @property
    def inputs(self) -> tuple[Port, ...]:
        """The inputs that `compute` takes."""

    @property
    def outputs(self) -> tuple[Port, ...]:
        """The outputs that it gives."""

    @property
    def description(self) -> str:
        """Its name and version, and where it computes: 'ONNX Runtime 1.32.0 on CPU'."""

    def compute(self, tensors: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Return the outputs by name, (n, …) each, for the inputs by name, (n, …) each.

        Raises:
            MLScaleError: the graph fails for this batch.
        """
