"""A model as a server describes it: its tensors by the V2 protocol, and its raw input where the server states it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.serve.protocol.v2_codec import DTYPES

_LONGEST_RUNTIME = 200  # characters: a server may state anything


@dataclass(frozen=True)
class InputTensor:
    """An input of a model.

    Attributes:
        name: of the input.
        dtype: numpy's name of it; object for texts and bytes.
        shape: of one sample; -1 where a size varies.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @classmethod
    def parse_document(cls, document: Mapping[str, Any]) -> InputTensor:
        """Return the input of an entry of the model's metadata."""
        if (datatype := str(document["datatype"])) not in DTYPES:
            raise ValueError(f"its input {document['name']} is {datatype}, none of {', '.join(DTYPES)}")
        return cls(str(document["name"]), DTYPES[datatype], tuple(int(size) for size in document["shape"][1:]))

    @property
    def is_fixed(self) -> bool:
        """Return whether each sample has the same number of bytes."""
        return self.dtype != "object" and min(self.shape, default=1) > 0

    def find_problem(self, values: NDArray[Any]) -> str:
        """Return why `values` (n, …) are not this input; '' where they are."""
        wanted = f"({', '.join(map(str, ('n', *self.shape)))})"
        sizes = values.shape[1:]
        if len(sizes) != len(self.shape) or any(a not in (-1, b) for a, b in zip(self.shape, sizes, strict=True)):
            return f"{self.name} is {values.shape}, and the model takes {wanted}"
        return "" if values.dtype == self.dtype else f"{self.name} is {values.dtype}, and the model takes {self.dtype}"


@dataclass(frozen=True)
class ServerModel:
    """A model.

    Attributes:
        name: its name in URLs.
        inputs: its tensors.
        classes: the number of its probabilities; 0 where the server does not state it.
        raw_input: the schema of a raw sample, with its `type`; empty where the server does not state it.
        tensor_columns: the columns of a table in the order of each tensor.
        raw_tensor: the BYTES tensor that takes texts or image files in place of the inputs; '' for none.
        runtime: what computes it, such as 'ONNX Runtime 1.32.0 on CPU'; '' where the server does not state it.
    """

    name: str
    inputs: tuple[InputTensor, ...]
    classes: int = 0
    raw_input: Mapping[str, Any] = field(default_factory=dict)
    tensor_columns: Mapping[str, list[str]] = field(default_factory=dict)
    raw_tensor: str = ""
    runtime: str = ""

    @classmethod
    def parse_metadata(cls, name: str, document: Mapping[str, Any]) -> ServerModel:
        """Return the model of the response of `GET /v2/models/<name>`.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: it is another document, or has an unknown datatype.
        """
        inputs = tuple(map(InputTensor.parse_document, document["inputs"]))
        if not inputs:
            raise ValueError("it has no inputs")
        # Masks and other maps have more dimensions, and labels have one.
        outputs = [output for output in document["outputs"] if len(output["shape"]) == 2]
        named = [output for output in outputs if output["name"] == "probabilities"] or outputs
        parameters = document.get("parameters") or {}
        return cls(
            name,
            inputs,
            max((int(output["shape"][-1]) for output in named), default=0),
            dict(parameters.get("raw_input") or {}),
            {str(tensor): list(map(str, columns)) for tensor, columns in (parameters.get("columns") or {}).items()},
            str((parameters.get("raw_tensor") or {}).get("name", "")),
            "".join(filter(str.isprintable, str(parameters.get("runtime") or "")))[:_LONGEST_RUNTIME],
        )

    @property
    def raw_type(self) -> str:
        """The type of a raw sample, such as table, text or image; '' where the server does not state it."""
        return str(self.raw_input.get("type", ""))

    @property
    def columns(self) -> list[Mapping[str, Any]]:
        """The columns of a row."""
        return list(self.raw_input.get("columns", ()))

    def to_document(self) -> dict[str, Any]:
        """Return the model as JSON values."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> ServerModel:
        """Return the model of `to_document`."""
        inputs = tuple(InputTensor(**{**entry, "shape": tuple(entry["shape"])}) for entry in document["inputs"])
        return cls(**{**document, "inputs": inputs})


def count_bytes(values: NDArray[Any]) -> int:
    """Return the bytes of an array, of texts those of their content."""
    return values.nbytes if values.dtype != np.object_ else sum(len(value) for value in values.ravel())
