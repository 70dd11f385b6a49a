"""Keep the size of a batch from becoming a constant of torch.export, and find what has made it one."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils.hooks import RemovableHandle


def find_fixing_operator(model: nn.Module, example: tuple[Tensor, ...]) -> str:
    """Return in words which operator of which module fixes the size of the batch; '' where it is not found.

    The model is traced once more, so this is for models that are refused.

    Args:
        model: its forward takes the example as positional arguments.
        example: a batch of two samples or more.
    """
    batch = torch.export.Dim("batch")
    with contextlib.ExitStack() as stack:
        stack.enter_context(trace_quietly())
        open_modules = stack.enter_context(_track_modules(model))
        watch = _BatchWatch(open_modules)
        stack.enter_context(watch)
        # That it fails is why it is traced; what the watch has seen by then is the result.
        with contextlib.suppress(Exception):
            torch.export.export(model, example, dynamic_shapes=(tuple({0: batch} for _ in example),))
    return watch.cause


@contextlib.contextmanager
def trace_quietly() -> Iterator[None]:
    """Keep torch from printing warnings, logs and graphs in this block; what fails is raised, and reported as ours.

    Einsum contracts its operands from left to right in it, as without the package opt_einsum, which TensorFlow brings
    along: that chooses an order by the sizes, and takes that of the batch for a constant.
    """
    disabled = logging.root.manager.disable
    with (
        torch.backends.opt_einsum.flags(enabled=False),
        warnings.catch_warnings(),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable()
        try:
            yield
        finally:
            logging.disable(disabled)


@contextlib.contextmanager
def _track_modules(model: nn.Module) -> Iterator[Sequence[str]]:
    """Yield the list of the paths of the modules whose forward is running, the innermost one last."""
    paths: list[str] = []
    handles: list[RemovableHandle] = []

    def enter(path: str) -> Callable[..., None]:
        return lambda *_: paths.append(path)

    def leave(*_: object) -> None:
        paths.pop()

    for path, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(enter(path)))
        handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield paths
    finally:
        for handle in handles:
            handle.remove()


class _BatchWatch(TorchFunctionMode):
    """Notes after which function the size of the batch is a constant.

    Args:
        open_modules: the paths of the modules that are running.
    """

    def __init__(self, open_modules: Sequence[str]) -> None:
        super().__init__()
        self.cause = ""
        self._open_modules = open_modules
        self._batch: Any = None  # the symbol of its size

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        # What a Python branch has fixed was so before the next function.
        self._note_constant("Python code", args)
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self._note_constant(resolve_name(func) or getattr(func, "__name__", str(func)), args)

    def _note_constant(self, operator: str, args: Sequence[Any]) -> None:
        if self.cause:
            return
        if self._batch is None:
            leaves = torch.utils._pytree.tree_leaves(args)
            sizes = (leaf.shape[0] for leaf in leaves if isinstance(leaf, Tensor) and leaf.ndim)
            self._batch = next((size for size in sizes if isinstance(size, torch.SymInt)), None)
        elif self._batch.node.expr.is_number:
            module = next(reversed(self._open_modules), "")
            self.cause = f"{operator} of {module} fixes it" if module else f"{operator} fixes it"
