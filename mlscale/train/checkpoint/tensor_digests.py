"""Digests of values: equal for equal bits, short enough to keep one for every tensor of every step."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

BYTES = 8
WHOLE_BYTES = 1 << 20  # of a tensor or an array in an attribute: a larger one is a data set, and digested by a sample
_SAMPLE = 1 << 16  # bytes at the start and at the end of a larger one
_ENDS = 1024  # entries at either end of a long list that are digested
_SPREAD = 256  # elements of a tensor of a batch
# Containers that hold themselves end here, too.
_DEPTH = 6

NOTHING = object()
"""The value that `hash_value` returns for what it can't digest."""


def hash_tensor(tensor: torch.Tensor) -> str:
    """Return BLAKE2b of a tensor's dtype, shape and bytes, 16 hex digits; of this rank's shard, where it is sharded."""
    local = getattr(tensor, "_local_tensor", tensor)
    flat = local.detach().to("cpu").contiguous().reshape(-1)
    # As bytes: numpy has no bfloat16.
    return _hash_bytes(f"{tensor.dtype}{tuple(tensor.shape)}", flat.view(torch.uint8).numpy().data)


def hash_generator(value: object) -> str | None:
    """Return the digest of a random generator's state: Python's, numpy's or torch's; None for anything else."""
    if isinstance(value, random.Random):
        return _hash_bytes(repr(value.getstate()))
    if isinstance(value, np.random.Generator):
        return _hash_bytes(_format_generator_state(value.bit_generator.state))
    if isinstance(value, np.random.RandomState):
        return _hash_bytes(_format_generator_state(value.get_state(legacy=False)))
    return hash_tensor(value.get_state()) if isinstance(value, torch.Generator) else None


def hash_value(value: object, depth: int = 0) -> Any:
    """Return a plain value as a trace holds it: a number itself, the digest of text, tensors and containers.

    Lists longer than 2,048 entries and tensors of more than a MiB are distinguished by length and ends alone. Entries
    of a container that are not plain values count by their class: their content is digested elsewhere.
    """
    if value is None or isinstance(value, bool | int):
        # Larger integers are not exact in a JSON reader that uses float64.
        return value if not isinstance(value, int) or abs(value) < 1 << 53 else _hash_bytes(str(value))
    if isinstance(value, float):
        # Exact, and text: JSON has neither NaN nor infinity.
        return value.hex()
    if isinstance(value, np.generic):
        return hash_value(value.item(), depth)
    if isinstance(value, torch.Tensor):
        return (
            _hash_array(value.detach().reshape(-1), f"{value.dtype}{tuple(value.shape)}")
            if _is_dense(value)
            else NOTHING
        )
    if isinstance(value, np.ndarray):
        return _hash_array(value.reshape(-1), f"{value.dtype}{value.shape}") if not value.dtype.hasobject else NOTHING
    if isinstance(value, str | bytes | complex | Enum | Path | torch.dtype | torch.device):
        return _hash_bytes(repr(value))
    if depth > _DEPTH:
        return NOTHING
    if isinstance(value, Mapping):
        return _hash_parts(
            f"{len(value)}", (part for item in _select_ends(list(value.items())) for part in item), depth
        )
    if isinstance(value, Set):
        # Sorted: the order of a set of strings differs between processes.
        return _hash_bytes(str(sorted(str(_hash_part(part, depth)) for part in value)))
    if isinstance(value, Sequence):
        return _hash_parts(f"{len(value)}", _select_ends(value), depth)
    return NOTHING


def chain_batch(chain: str, batch: object) -> str:
    """Return the digest of the batches so far, `chain`, and one more: its small tensors; of its larger ones 256
    elements, spread over them, and the sum of all bytes; its other plain values. It takes some 20 µs a tensor, and
    0.05 ms a MB."""
    return _hash_bytes(chain, *_sample_parts(batch))


def _sample_parts(value: object, depth: int = 0) -> Iterator[bytes]:
    parts: Iterable[object] = ()
    if isinstance(value, np.ndarray) and not value.dtype.hasobject and value.dtype.kind not in "USMm":
        value = torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, torch.Tensor):
        if _is_dense(value) and value.numel():
            with contextlib.suppress(RuntimeError):  # quantized and conjugated ones
                flat = value.detach().reshape(-1)
                if len(flat) > _SPREAD:
                    yield _sum_words(flat)
                    flat = flat[_choose_positions(len(flat)).to(flat.device)]
                yield _get_bytes(flat)
    elif value is None or isinstance(value, str | bytes | bool | int | float):
        yield repr(value).encode(errors="surrogatepass")
    elif isinstance(value, Mapping):
        parts = value.values()
    else:
        parts = value if isinstance(value, Sequence) else vars(value).values() if hasattr(value, "__dict__") else ()
    for part in parts if depth < _DEPTH else ():
        yield from _sample_parts(part, depth + 1)


def _sum_words(flat: torch.Tensor) -> bytes:
    """Return the sum of a tensor's bytes as words of eight, and the bytes after the last: one bit changes it."""
    data = flat.to("cpu").contiguous().view(torch.uint8).numpy()
    end = len(data) // 8 * 8
    return bytes(data[:end].view(np.uint64).sum().tobytes() + data[end:].tobytes())


@lru_cache(maxsize=64)
def _choose_positions(count: int) -> torch.Tensor:
    # Not evenly: every n-th pixel may be one of a border. The golden ratio spreads them without a period.
    fractions = torch.arange(_SPREAD, dtype=torch.float64) * 0.6180339887498949 % 1
    return (fractions * count).long()


def _hash_parts(head: str, parts: Iterable[Any], depth: int) -> str:
    return _hash_bytes(head + "".join(f",{_hash_part(part, depth)}" for part in parts))


def _hash_part(part: object, depth: int) -> Any:
    value = hash_value(part, depth + 1)
    return f"<{type(part).__name__}>" if value is NOTHING else value


def _select_ends(values: Sequence[Any]) -> list[Any]:
    count = len(values)
    if count <= 2 * _ENDS:
        return list(values)
    return [values[index] for index in (*range(_ENDS), *range(count - _ENDS, count))]


def _hash_array(flat: torch.Tensor | NDArray[Any], head: str) -> str:
    """Return the digest of a tensor or an array in one dimension."""
    if flat.nbytes > WHOLE_BYTES:
        count = max(1, _SAMPLE // max(1, flat.itemsize))
        return _hash_bytes(head, _get_bytes(flat[:count]), _get_bytes(flat[-count:]))
    return _hash_bytes(head, _get_bytes(flat))


def _get_bytes(flat: torch.Tensor | NDArray[Any]) -> bytes:
    if isinstance(flat, torch.Tensor):
        return flat.to("cpu").contiguous().view(torch.uint8).numpy().tobytes()
    return bytes(np.ascontiguousarray(flat).tobytes())


def _is_dense(tensor: torch.Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_meta and not torch.nn.parameter.is_lazy(tensor)


def _format_generator_state(value: object) -> str:
    """Return the state of a numpy generator, a dictionary of dictionaries, numbers and arrays, as text."""
    if isinstance(value, Mapping):
        return ",".join(f"{key}={_format_generator_state(part)}" for key, part in value.items())
    return np.asarray(value).tobytes().hex() if isinstance(value, np.ndarray) else str(value)


def _hash_bytes(head: str, *parts: bytes | memoryview) -> str:
    # File names that are not UTF-8 hold surrogates, which a strict encoder refuses.
    digest = hashlib.blake2b(head.encode("utf-8", errors="surrogatepass"), digest_size=BYTES)
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
