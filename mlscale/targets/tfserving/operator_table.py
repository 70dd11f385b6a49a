"""The table of ONNX operators that can be written as TensorFlow's, filled by the modules of `operators`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

Layout = Literal["first", "last", "any", "axis"]
Tensor = Any
"""Of TensorFlow, which states no types."""

OperatorFunction = Callable[..., Any]
F = TypeVar("F", bound=OperatorFunction)


class NotExpressible(Exception):  # noqa: N818 - the walker turns it into a line of an error
    """TensorFlow has no counterpart of this node; the message has the reason."""


@dataclass(frozen=True)
class GraphNode:
    """A node of an ONNX graph.

    Attributes:
        operator: its type; with its domain in front where that is not ONNX's own: 'ai.onnx.ml.LabelEncoder'.
        name: in the graph.
        attributes: by name; texts are bytes, tensors are arrays.
        outputs: how many of its outputs are used.
    """

    operator: str
    name: str
    attributes: Mapping[str, Any]
    outputs: int

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute; texts as str."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def refuse_attributes(self, **allowed: Any) -> None:
        """Raise an error if an attribute has another value than the allowed one.

        Raises:
            NotExpressible: it has.
        """
        for name, value in allowed.items():
            if (given := self.get(name, value)) != value:
                raise NotExpressible(f"{name}={given}")


@dataclass(frozen=True)
class Operator:
    """An operator's function, which gets the node and its inputs, None for those left out.

    Attributes:
        function: returns the output, or a tuple of outputs.
        fixed: positions of inputs that must be constants; it gets them as arrays.
        folded: positions of inputs that it gets as arrays where they are constants, else as tensors.
        layout: of the images that it gets: (n, channels, …) is 'first', (n, …, channels) 'last'; 'any' of one that
            computes each value by itself, 'axis' of one to which only its attribute `axis` matters.
    """

    function: OperatorFunction
    fixed: Sequence[int] = ()
    folded: Sequence[int] = ()
    layout: Layout = "first"


OPERATORS: dict[str, Operator] = {}


def register(
    *names: str, fixed: Sequence[int] = (), folded: Sequence[int] = (), layout: Layout = "first"
) -> Callable[[F], F]:
    """Return the decorator that enters a function for the operators of these names."""

    def enter(function: F) -> F:
        OPERATORS.update({name: Operator(function, fixed, folded, layout) for name in names})
        return function

    return enter
