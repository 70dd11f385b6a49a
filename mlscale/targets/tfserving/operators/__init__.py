"""ONNX operators as TensorFlow's, a module for each family. Importing them imports TensorFlow."""

from __future__ import annotations

from importlib import import_module

_FAMILIES = (
    "convolutions",
    "elementwise",
    "indexing",
    "labels",
    "losses",
    "normalisations",
    "pooling",
    "products",
    "quantised",
    "recurrent",
    "reductions",
    "resizing",
    "scattering",
    "shapes",
)


def load_operators() -> None:
    """Fill `operator_table.OPERATORS`."""
    for family in _FAMILIES:
        import_module(f"{__name__}.{family}")
