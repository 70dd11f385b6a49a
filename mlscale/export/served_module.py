"""A trained task as the function that is exported: tensors of encoded samples in, named outputs out."""

from __future__ import annotations

import io
import logging
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mlscale.culprit import find_user_line
from mlscale.data.encoders.encoder import INPUT, Encoder, TensorSpec
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.errors import MLScaleError
from mlscale.task_types.registry import resolve_task_type
from mlscale.task_types.task_type import TaskType

NO_RANDOM = (
    "leave out of forward what is random or changes: F.dropout(x, training=self.training), no torch.rand, no "
    "self.count += 1"
)
UNPACKED = "give the padded sequence to the layer, and take each sample's last step by its length"
EXAMPLES = 2
"""Samples of the example batch: torch.export treats a size of 1 as a constant."""


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


def build_example_tensors(specs: Sequence[TensorSpec]) -> tuple[Tensor, ...]:
    """Return a batch of zeros: valid values of every dtype, and for token numbers of every vocabulary."""
    return tuple(torch.zeros(EXAMPLES, *spec.shape, dtype=getattr(torch, spec.dtype)) for spec in specs)


def compute_torch_outputs(model: ServedModule, tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return the outputs as numpy arrays, from numpy arrays by name."""
    with torch.inference_mode():
        outputs = model(*(torch.from_numpy(tensors[spec.name]) for spec in model.specs))
    return {name: value.numpy() for name, value in outputs.items()}
