"""The encoder of a user's own data: samples are tensors already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.encoder import INPUT, Encoder, TensorSpec, convert_values, describe_infinite


@dataclass(frozen=True)
class TensorEncoder(Encoder):
    """Samples that a client has prepared, compared with the shape that the model takes.

    Args:
        specs: the tensors of one sample; with several of them a sample is a mapping by name.
    """

    kind: ClassVar[str] = "tensor"
    graph_start: ClassVar[str] = "tensors"
    specs: tuple[TensorSpec, ...]

    @classmethod
    def from_shape(cls, shape: tuple[int, ...], dtype: str) -> TensorEncoder:
        """Return the encoder of a model with one input."""
        return cls((TensorSpec(INPUT, dtype, shape),))

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self.specs

    def describe_raw_input(self) -> dict[str, Any]:
        return {"type": "tensor", "tensors": [spec.to_document() for spec in self.specs]}

    def describe_settings(self) -> dict[str, Any]:
        return {"tensors": [spec.to_document() for spec in self.specs]}

    @classmethod
    def parse_settings(cls, settings: Mapping[str, Any]) -> Self:
        return cls(tuple(TensorSpec.parse_document(spec) for spec in settings["tensors"]))

    def encode_sample(self, raw: Any) -> dict[str, NDArray[Any]]:
        given = raw if isinstance(raw, Mapping) else {self.specs[0].name: raw}
        if missing := [spec.name for spec in self.specs if spec.name not in given]:
            raise ValueError(f"it lacks the tensor {missing[0]!r}")
        return {spec.name: _convert_tensor(given[spec.name], spec) for spec in self.specs}

    def find_bad_rows(self, packed: Mapping[str, NDArray[Any]]) -> dict[int, str]:
        bad: dict[int, str] = {}
        for values in packed.values():
            # Whole numbers are always finite.
            if values.dtype.kind != "f" or (finite := np.isfinite(values)).all():
                continue
            is_finite = finite.reshape(len(values), -1)
            for row in np.flatnonzero(~is_finite.all(axis=1)).tolist():
                # The first tensor's reason stays, where several of a row are bad.
                bad.setdefault(row, describe_infinite(is_finite[row]))
        return bad


def _convert_tensor(value: object, spec: TensorSpec) -> NDArray[Any]:
    """Return a value as the tensor that is taken.

    Raises:
        ValueError: it has another shape, or a value that the dtype does not have.
    """
    # numpy would take either as an array of one element, of another type.
    if isinstance(value, bytes | str):
        raise ValueError(f"it is a {'file' if isinstance(value, bytes) else 'text'}, and the model takes {spec.shape}")
    array = np.asarray(value)
    if array.shape != spec.shape:
        raise ValueError(f"it has the shape {array.shape}, and the model takes {spec.shape}")
    return convert_values(array, spec.dtype)
