"""Each sample's answer is its own: the same a second time, alone, and next to the samples of other clients."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mlscale.culprit import find_user_line, quote_line
from mlscale.errors import MLScaleError
from mlscale.export.differing_line import find_mixing_line, find_random_line, run_alone
from mlscale.export.served_module import NO_RANDOM, ServedModule, build_example_tensors, compute_torch_outputs

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def check_own_answers(model: ServedModule, tensors: Mapping[str, Any], tolerance: float) -> None:
    """Check that the outputs of a sample are its own: the same a second time, and next to other samples.

    Args:
        model: the trained one.
        tensors: of a few samples, (n, …) by name.
        tolerance: the largest difference, as a share of the largest output.

    Raises:
        MLScaleError: it takes complex numbers, is random, or mixes the samples of a batch, which a server makes of
            several clients' requests.
    """
    if any(spec.dtype.startswith("complex") for spec in model.specs):
        fix = "let forward take the two parts as numbers, (…, 2), and call torch.view_as_complex(x)"
        raise MLScaleError("forward takes complex numbers", where="model", why="ONNX has none", fix=fix)
    examples = zip(model.specs, build_example_tensors(model.specs), strict=True)
    zeros: dict[str, NDArray[Any]] = {spec.name: tensor.numpy() for spec, tensor in examples}
    # Zeros, so that a single sample has another next to it, too.
    mixed = {name: np.concatenate([zeros[name], rows]) for name, rows in tensors.items()}
    first, again = (compute_torch_outputs(model, mixed) for _ in range(2))
    if not _are_close(first, again, tolerance):
        raise MLScaleError(
            "the same samples get other outputs a second time",
            where=find_random_line(model, mixed) or "model",
            why="its forward is random, or changes what it computes with, and an export can't be compared with it",
            fix=NO_RANDOM,
        )
    pair: tuple[Mapping[str, Any], Mapping[str, Any]] = (tensors, zeros)
    try:
        is_own = _is_own_answer(model, *pair, tolerance)
    except (IndexError, RuntimeError) as error:  # the batch of several has passed above
        fix = "keep the first dimension in forward: x.squeeze(1), not x.squeeze()"
        where, why = quote_line(find_user_line(error)) or "model", f"{type(error).__name__}: {error}"
        raise MLScaleError("forward does not take a batch of one sample", where=where, why=why, fix=fix) from error
    # Samples may be alike in what is taken of a batch, such as its maximum. Codes of categories can leave their range.
    with suppress(IndexError, RuntimeError):
        if is_own:
            varied = {name: _vary(rows) for name, rows in tensors.items()}
            paler, far = ({name: rows[side] for name, rows in varied.items()} for side in range(2))
            is_own = _is_own_answer(model, paler, far, tolerance)
            pair = paler, far
    if is_own:
        return
    # The layers that do so most often; a mean over the batch in the user's own code has no name to print.
    layers = [
        path.removeprefix("task.")
        for path, layer in model.named_modules()
        if isinstance(layer, _BATCH_NORMS) and (layer.running_mean is None or layer.training)
    ]
    cause = f"; {', '.join(layers[:3])} normalises by the batch, without running statistics" if layers else ""
    raise MLScaleError(
        "the output for a sample depends on the other samples of its batch",
        where=find_mixing_line(model, *pair) or "model",
        why=f"a server makes batches of several clients' requests{cause}",
        fix="let forward compute each sample by itself: BatchNorm with track_running_stats=True or GroupNorm, no "
        "x.mean(0) and no if on the batch",
    )


def _is_own_answer(
    model: ServedModule, samples: Mapping[str, Any], others: Mapping[str, Any], tolerance: float
) -> bool:
    """Return whether the outputs of samples next to others are those that they have alone."""
    count = len(next(iter(samples.values())))
    mixed = compute_torch_outputs(model, {name: np.concatenate([others[name], samples[name]]) for name in samples})
    run = partial(compute_torch_outputs, model)
    alone = [run_alone(run, {name: rows[row : row + 1] for name, rows in samples.items()}) for row in range(count)]
    own = {name: np.stack([outputs[name][0] for outputs in alone]) for name in mixed}
    return _are_close({name: values[-count:] for name, values in mixed.items()}, own, tolerance)


def _vary(values: Any) -> tuple[Any, Any]:
    """Return paler samples that are not black, and twice as many others, far out; token numbers stay as they are."""
    if values.dtype == np.uint8:
        return values // 2 + 64, np.concatenate([255 - values, values])
    is_float = values.dtype.kind == "f"
    return values / 2 if is_float else values, np.concatenate(
        [values * 100, values * -1e4] if is_float else [values] * 2
    )


def _are_close(first: Mapping[str, Any], second: Mapping[str, Any], tolerance: float) -> bool:
    """Return whether outputs differ by no more than this share of the largest, at least 1; a NaN equals a NaN."""
    largest = max(1.0, *(float(np.abs(values[np.isfinite(values)]).max(initial=0)) for values in first.values()))
    pairs = ((values, second[name]) for name, values in first.items())
    return all(np.allclose(*pair, rtol=0, atol=tolerance * largest, equal_nan=True) for pair in pairs)
