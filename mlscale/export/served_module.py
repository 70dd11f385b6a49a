"""A trained task as the function that is exported: tensors of encoded samples in, named outputs out."""

from __future__ import annotations

import io
import logging
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mlscale.culprit import find_user_line, quote_line
from mlscale.data.encoders.encoder import INPUT, Encoder, TensorSpec
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.errors import MLScaleError
from mlscale.export.mixing_line import find_mixing_line, find_random_line, run_alone
from mlscale.task_types.registry import resolve_task_type
from mlscale.task_types.task_type import TaskType

NO_RANDOM = (
    "leave out of forward what is random or changes: F.dropout(x, training=self.training), no torch.rand, no "
    "self.count += 1"
)
UNPACKED = "give the padded sequence to the layer, and take each sample's last step by its length"
EXAMPLES = 2
"""Samples of the example batch: torch.export treats a size of 1 as a constant."""


_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class ServedModule(nn.Module):
    """A task behind its normalisation, (raw - mean) / std, computed as in `data.images.image_stream`, in float32.

    Args:
        task: with its weights.
        task_type: says what its outputs are.
        encoder: of its samples: the module takes `encoder.inputs`, in their order.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, task: nn.Module, task_type: TaskType, encoder: Encoder) -> None:
        super().__init__()
        self.task, self.task_type = task, task_type
        self.specs: tuple[TensorSpec, ...] = encoder.inputs
        scale = (encoder.mean, encoder.std) if isinstance(encoder, ImageEncoder) else ((), ())
        self.normalises = bool(scale[0])
        for name, values in zip(("mean", "std"), scale, strict=True):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32)[:, None, None])

    def forward(self, *tensors: Tensor) -> dict[str, Tensor]:
        """Return the outputs by name, n first; floating-point ones are float32."""
        named = dict(zip((spec.name for spec in self.specs), map(self._normalise, tensors), strict=True))
        outputs = self.task_type.compute_outputs(self.task, named)
        floating = {name for name, value in outputs.items() if isinstance(value, Tensor) and value.is_floating_point()}
        return {name: value.float() if name in floating else value for name, value in outputs.items()}

    def _normalise(self, tensor: Tensor) -> Tensor:
        return (tensor.float() - self.mean) / self.std if self.normalises else tensor


def build_served_module(task: nn.Module, task_type: TaskType, encoder: Encoder) -> ServedModule:
    """Return the task as it is exported, on the CPU, for inference, its lazy layers initialised.

    Raises:
        MLScaleError: its outputs have no row for each sample.
    """
    model = ServedModule(task, task_type, encoder).cpu().float().eval()
    # The pass also gives lazy layers their shapes, which tracing needs.
    with torch.no_grad(), _explain_own_step(task):
        outputs = model(*build_example_tensors(encoder.inputs))
    for name, value in outputs.items():
        if not isinstance(value, Tensor) or value.ndim < 1 or len(value) != EXAMPLES:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise MLScaleError(
                f"the output {name!r} is {shape} for {EXAMPLES} samples",
                where="task",
                why="a servable answers each sample: the first dimension of an output is that of the batch",
                fix="return tensors (n, …) from predict_step, or from the forward of the task",
            )
    return model


@contextmanager
def trace_quietly() -> Iterator[None]:
    """Keep torch from printing warnings, logs and graphs in this block; what fails is raised, and reported as ours.

    Einsum contracts its operands from left to right in it, as without the package opt_einsum, which TensorFlow brings
    along: that chooses an order by the sizes, and takes that of the batch for a constant. Attention is traced as
    products of matrices, which give the same graph: a fused kernel states strides that a later pass of torch has not,
    and views of its output fail there, where the mask has the size of the batch.
    """
    disabled = logging.root.manager.disable
    with (
        torch.backends.opt_einsum.flags(enabled=False),
        sdpa_kernel(SDPBackend.MATH),
        warnings.catch_warnings(),
        redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable()
        try:
            yield
        finally:
            logging.disable(disabled)


@contextmanager
def _explain_own_step(task: nn.Module) -> Iterator[None]:
    """Raise an error that explains what a user's own `predict_step` gets and returns, or which line fails for zeros."""
    step: Any = getattr(type(task), "predict_step", None)
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        is_own = step not in (None, LightningModule.predict_step) and not step.__module__.startswith("mlscale.")
        first = (str(error).strip() or "no message").splitlines()[0]
        if not is_own or resolve_task_type(task) is None:
            if not (line := find_user_line(error)):
                raise
            raise MLScaleError(
                "the model fails for a batch of zeros",
                where=line,
                why=f"its outputs are found with one, and a client may send one: {type(error).__name__}: {first}",
                fix=UNPACKED
                if "nn/utils/rnn.py" in "".join(traceback.format_tb(error.__traceback__))
                else "let forward take zeros: a text without tokens, a black image",
            ) from error
        name = f"{type(task).__module__}.{type(task).__qualname__}"
        raise MLScaleError(
            f"{name}.predict_step does not give the outputs of a batch by name",
            where="task",
            why=f'a module with a kind gets {{"x": …, "y": …}} there, and returns {{"logits": …}} or the like; '
            f"it raised {type(error).__name__}: {first}",
            fix=f"leave predict_step out of {name}: then what its forward gives is exported",
        ) from error


def require_predictions(task: LightningModule) -> None:
    """Raise an error if a task has nothing that gives predictions: one may train without.

    Raises:
        MLScaleError: it has no forward; nor, if it states its type, a predict_step of its own.
    """
    kind = type(task)
    has_step = kind.predict_step is not LightningModule.predict_step and resolve_task_type(task) is not None
    if has_step or kind.forward is not LightningModule.forward or "forward" in vars(task):
        return
    name = f"{kind.__module__}.{kind.__qualname__}"
    raise MLScaleError(
        f"{name} has no forward",
        where="task",
        why="predictions, servables and int8 models are what forward gives for a batch",
        fix=f"define forward(self, x) in {name}: it returns the predictions of a batch, (n, …)",
    )


def compute_plain_outputs(task: nn.Module, task_type: TaskType, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what the forward of a plain LightningModule gives for a batch of the data.

    Raises:
        MLScaleError: forward takes something else, such as what the module's steps make of a batch.
    """
    try:
        with torch.no_grad():
            return task_type.compute_outputs(task.cpu().float().eval(), tensors)
    except (RuntimeError, TypeError, ValueError) as error:
        kind = type(task)
        shapes = ", ".join(f"({', '.join(map(str, tensor.shape))})" for tensor in tensors.values())
        raise MLScaleError(
            f"{kind.__module__}.{kind.__qualname__}.forward does not take a batch of the data, {shapes}",
            where="task",
            why=f"{type(error).__name__}: {error}; forward alone is exported, and clients send what the data gives",
            fix="move what your steps do to a batch first, such as x.view(x.size(0), -1), into forward\n"
            "data._target_=<a LightningDataModule that gives what forward takes, such as the noise of a GAN>"
            if list(tensors) == [INPUT]
            else f"define forward(self, {', '.join(tensors)}), which gets the inputs by name, and call self(**x) in "
            "the steps",
        ) from error


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


def build_example_tensors(specs: Sequence[TensorSpec]) -> tuple[Tensor, ...]:
    """Return a batch of zeros: valid values of every dtype, and for token numbers of every vocabulary."""
    return tuple(torch.zeros(EXAMPLES, *spec.shape, dtype=getattr(torch, spec.dtype)) for spec in specs)


def compute_torch_outputs(model: ServedModule, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return the outputs as numpy arrays, from numpy arrays by name."""
    with torch.inference_mode():
        outputs = model(*(torch.from_numpy(tensors[spec.name]) for spec in model.specs))
    return {name: value.numpy() for name, value in outputs.items()}
