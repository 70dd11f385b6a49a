"""Warm-up requests of a repository's models: the recorded requests of the servable, as files that Triton reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.atomic_files import write_bytes
from mlscale.export.servable import Servable
from mlscale.export.warmup import WARMUP, WarmupRequest, read_warmup
from mlscale.targets.triton.config_text import EnumName
from mlscale.targets.triton.model_config import TYPES
from mlscale.targets.triton.tensor_bytes import create_raw_tensor, encode_tensor


def write_tensor_warmup(servable: Servable, folder: Path, largest: int) -> list[dict[str, Any]]:
    """Write the tensors of each recorded request; return the entries of the configuration.

    Args:
        servable: with its recorded requests, or without.
        folder: of the model.
        largest: samples of one more request, which takes the memory of a full batch before the first client's.
    """
    entries = []
    for number, request in _iterate_answered(servable):
        tensors = {name: rows[:1] for name, rows in servable.pack_samples([request.sample]).tensors.items()}
        types = {port.name: TYPES[port.dtype] for port in servable.inputs}
        entries.append(_write_request(f"request {number}", 1, tensors, types, folder, number))
    if entries and largest > 1:
        # The server repeats the data of a request for each sample of its batch.
        entries.append({**entries[0], "name": "a full batch", "batch_size": largest})
    return entries


def write_raw_warmup(servable: Servable, folder: Path, name: str) -> list[dict[str, Any]]:
    """Write the raw sample of each recorded request, for the model that encodes them; return the entries."""
    return [
        _write_request(
            f"request {number}", 1, {name: create_raw_tensor([request.sample])}, {name: TYPES["string"]}, folder, number
        )
        for number, request in _iterate_answered(servable)
    ]


def _iterate_answered(servable: Servable) -> Iterator[tuple[int, WarmupRequest]]:
    warmup = read_warmup(servable.folder / WARMUP)
    # One that is refused would keep the server from loading the model.
    answered = [request for request in warmup.requests if request.answer is not None] if warmup else []
    yield from enumerate(answered)


def _write_request(
    name: str, rows: int, tensors: Mapping[str, NDArray[Any]], types: Mapping[str, str], folder: Path, number: int
) -> dict[str, Any]:
    inputs = []
    for at, (tensor, values) in enumerate(tensors.items()):
        # Numbered: a tensor may have a name that no file can have.
        file = f"{number}_{at}"
        (folder / WARMUP).mkdir(exist_ok=True, parents=True)
        write_bytes(folder / WARMUP / file, encode_tensor(np.asarray(values)))
        dims = list(values.shape[1:]) or [1]
        value = {"data_type": EnumName(types[tensor]), "dims": dims, "input_data_file": file}
        inputs.append({"key": tensor, "value": value})
    return {"name": name, "batch_size": rows, "inputs": inputs}
