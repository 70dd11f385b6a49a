"""The values of a stored ONNX graph that torch computes as well, matched by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from mlscale.export.layer_bisect.cut_graph import GraphPart
from mlscale.export.layer_bisect.traced_model import TracedModel

if TYPE_CHECKING:
    import onnx

_CHUNK = 2**28
"""Bytes of the values that are in memory at once, about: torch's, and as many of ONNX Runtime's."""


class MatchedValues:
    """Torch's values by the names that a stored graph has for them.

    Args:
        graph: the stored graph.
        traced: the trained model.
        samples: inputs of the graph by name.
        inputs: those of the model, in the order of its forward.

    Attributes:
        given: samples and inputs, by their names in the graph.
        sources: the FX node of each other value.
    """

    def __init__(
        self,
        graph: onnx.GraphProto,
        traced: TracedModel,
        samples: Mapping[str, NDArray[Any]],
        inputs: Mapping[str, NDArray[Any]],
    ) -> None:
        self._traced = traced
        given = {**samples, **_match_inputs(graph, traced.graph, inputs)}
        self.given: dict[str, NDArray[Any]] = {name: array[: traced.count] for name, array in given.items()}
        self.sources = _match_sources(graph, traced)

    def list_names(self) -> set[str]:
        """Return the names of the values at which the graph can be cut."""
        return {*self.given, *self.sources}

    def iterate_chunks(self, parts: list[GraphPart]) -> Iterator[tuple[list[GraphPart], dict[str, NDArray[Any]]]]:
        """Yield parts in order with the values that they read and compute, a bounded number of bytes at once."""
        chunk: list[GraphPart] = []
        names: set[str] = set()
        for part in parts:
            needed = {part.target, *part.feeds} - set(self.given)
            # A part that is larger than the bound is a chunk by itself.
            if chunk and self._measure_bytes(names | needed) > _CHUNK:
                yield chunk, self._compute_values(names)
                chunk, names = [], set()
            chunk.append(part)
            names |= needed
        if chunk:
            yield chunk, self._compute_values(names)

    def _measure_bytes(self, names: set[str]) -> int:
        return sum(self._traced.sizes.get(self.sources.get(name, ""), 0) for name in names)

    def _compute_values(self, names: set[str]) -> dict[str, NDArray[Any]]:
        sources = {name: self.sources[name] for name in names if name in self.sources}
        values = self._traced.compute_values(set(sources.values()))
        return {**self.given, **{name: values[source] for name, source in sources.items()}}


def _match_inputs(
    stored: onnx.GraphProto, fresh: onnx.GraphProto, inputs: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Return the model's inputs by the names that the stored graph has for them: what reads them first is the same."""
    readers = {node.name: node for node in stored.node}
    matched: dict[str, NDArray[Any]] = {}
    for port, array in zip(fresh.input, inputs.values(), strict=True):
        reader = next((node for node in fresh.node if port.name in node.input and node.name in readers), None)
        if reader is not None:
            matched[readers[reader.name].input[list(reader.input).index(port.name)]] = array
    return matched


def _match_sources(graph: onnx.GraphProto, traced: TracedModel) -> dict[str, str]:
    makers = {output: node for node in graph.node for output in node.output}
    sources = {name: traced.sources[name] for name in makers if name in traced.sources}
    outputs = zip((port.name for port in graph.output), traced.output_names, strict=True)
    sources |= {name: source for name, source in outputs if source in traced.sizes}
    for node in graph.node:
        maker = makers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if maker is not None and maker.op_type == "QuantizeLinear" and maker.input[0] in sources:
            # A quantiser leaves out an operator that only clips, such as ReLU: its output is what comes back.
            sources[node.output[0]] = sources.pop(maker.input[0])
    return sources
