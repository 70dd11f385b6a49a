"""Find the module that torch.export traces as another computation than it is when it is called."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mlscale.export.engines.value_error import measure_error
from mlscale.export.layer_bisect.traced_model import TracedModel


def find_untraceable_module(model: nn.Module, traced: TracedModel, tolerance: float) -> tuple[str, str, float] | None:
    """Return the path of the first module whose output is not the traced one, its FX node, and the relative error; None
    if the model's outputs are the traced ones.

    Args:
        model: the trained one.
        traced: its trace.
        tolerance: relative error up to which outputs are equal.
    """
    outputs = [name for name in traced.output_names if name]
    values = traced.compute_values(set(outputs))
    with torch.no_grad():
        called = torch.utils._pytree.tree_leaves(model(*traced.inputs))
    errors = [
        measure_error(values[name], value.numpy())
        for name, value in zip(traced.output_names, called, strict=True)
        if name
    ]
    if not errors or max(errors) <= tolerance:
        return None
    # Only where outputs differ: a model that agrees, the usual case, is spared this pass.
    values |= traced.compute_values(set(traced.last_nodes.values()))
    for path, array in _record_outputs(model, traced):
        name = traced.last_nodes.get(path, "")
        # A module whose last node is not its output has another shape: it can't be compared.
        if name in values and values[name].shape == array.shape:
            error = measure_error(values[name], array)
            if error > tolerance:
                return path, name, error
    return "", outputs[int(np.argmax(errors))], max(errors)


def _record_outputs(model: nn.Module, traced: TracedModel) -> list[tuple[str, NDArray[Any]]]:
    """Return the output of each module that gives a tensor, in the order in which they end: the inner ones first."""
    outputs: list[tuple[str, NDArray[Any]]] = []

    def register(path: str, module: nn.Module) -> Any:
        def keep(_: nn.Module, __: object, output: object) -> None:
            if isinstance(output, Tensor):
                # A copy, as the next module may compute in place.
                outputs.append((path, output.detach().clone().numpy()))

        return module.register_forward_hook(keep)

    handles = [register(path, module) for path, module in model.named_modules()]
    try:
        with torch.no_grad():
            model(*traced.inputs)
    finally:
        # A hook that stays would record every later call, and the model is the caller's.
        for handle in handles:
            handle.remove()
    return outputs
