"""Reading a file of weights: a checkpoint, a plain `state_dict`, or safetensors. Nothing in it is trusted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlscale.errors import MLScaleError
from mlscale.runs import safetensors_files as safetensors
from mlscale.runs.initial_source import is_bare_pickle
from mlscale.train.checkpoint.weights_only_load import load_checkpoint_file

# Names under which training programs save their weights next to other values, in the order in which they are tried.
_NAMES = ("state_dict", "model_state_dict", "model", "module", "net", "weights")


def read_weight_file(path: Path) -> dict[str, Tensor]:
    """Return the tensors in a file of weights, by name, on the CPU. Of a checkpoint the weights alone.

    Raises:
        MLScaleError: the file does not exist, is torn, holds no weights, or more than tensors and plain values.
    """
    if path.name.endswith(safetensors.INDEX):
        return {
            name: tensor
            for file in safetensors.list_shard_files(path)
            for name, tensor in _read_safetensors(file).items()
        }
    if path.name.endswith(safetensors.SUFFIX):
        return _read_safetensors(path)
    is_legacy = path.is_file() and is_bare_pickle(path)
    content = _read_legacy_pickle(path) if is_legacy else load_checkpoint_file(path)
    for state in (*(content.get(name) for name in _NAMES if isinstance(content, Mapping)), content):
        if isinstance(state, Mapping) and any(isinstance(value, Tensor) for value in state.values()):
            return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    raise MLScaleError(
        "the checkpoint holds no weights",
        where=str(path),
        why=f"it has none of {', '.join(_NAMES)}, nor tensors",
        fix="init_from=<a file of weights>: a run's checkpoint, a state_dict saved by torch, or safetensors",
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of one file, copied: a tensor of a mapped file that is cut short later kills the process."""
    with safetensors.open_safetensors(path, "pt") as file:
        return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dictionary


def _read_legacy_pickle(path: Path) -> Any:
    """Return the content of a file in torch's format from before archives, read weights-only."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a torn pickle raises errors of many classes
        raise MLScaleError(
            "the file of weights can't be read",
            where=str(path),
            why=str(error).split("\n")[0],
            fix="copy or download it again; a file that holds more than tensors is not read",
        ) from error
