"""Write `warmup/` of a servable: samples with its answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlscale.atomic_files import PRIVATE_FOLDER, write_bytes, write_json
from mlscale.contracts import get_format_tag
from mlscale.export.warmup.answer_comparison import SAME_PIXELS, answer_sample, iterate_numbers
from mlscale.export.warmup.warmup_requests import REQUESTS, store_sample

if TYPE_CHECKING:
    from mlscale.export.servable import Servable

TOLERANCE, INT8_TOLERANCE = 1e-3, 5e-2
"""Of a number, as a share of the largest one of its kind: other processors sum up in another order; of 8 bits they also
saturate elsewhere."""
_MOST, _NOISE_DRAWS = 8, 8


def write_warmup(
    folder: Path, servable: Servable, samples: Sequence[tuple[str, Any]], *, tolerance: float = TOLERANCE
) -> int:
    """Write requests with the answers of the servable, 8 at most, none for no folder; return their number.

    A sample is left out whose answer is not finite, or whose prediction a rounding error could change.

    Args:
        folder: it is created.
        servable: with a model and an encoder; its own folder may be elsewhere.
        samples: names and raw samples; the first that suit are taken.
        tolerance: see `WarmupRequests`.

    Raises:
        MLScaleError: the graph fails, or the folder can't be written to (exit code 5).
    """
    entries: list[dict[str, Any]] = []
    contents: dict[str, bytes] = {}
    for key, sample in samples:
        if len(entries) == _MOST:
            break
        answer = answer_sample(servable, sample)
        if isinstance(answer, dict) and not (
            all(math.isfinite(number) for _, number in iterate_numbers(answer))
            and _is_clear(servable, sample, tolerance)
        ):
            continue
        stored, content = store_sample(sample, len(entries), is_text=servable.encoder.kind in ("text", "document"))
        if content is not None:
            contents[stored["file"]] = content
        entries.append({"key": key, **stored, "answer" if isinstance(answer, dict) else "error": answer})
    if entries:
        folder.mkdir(mode=PRIVATE_FOLDER)
        for name, content in contents.items():
            write_bytes(folder / name, content)
        write_json(folder / REQUESTS, {"format": get_format_tag("warmup"), "tolerance": tolerance, "requests": entries})
    return len(entries)


def _is_clear(servable: Servable, sample: object, tolerance: float) -> bool:
    """Return whether the prediction stays the same where outputs change by the tolerance."""
    outputs = servable.compute_samples(servable.pack_samples([sample]))
    # A fixed seed, so that two exports of one model choose the same samples.
    random = np.random.default_rng(0)
    for _ in range(_NOISE_DRAWS):
        changed = {name: _add_noise(value, tolerance, random) for name, value in outputs.items()}
        same = servable.task_type.compare_predictions(outputs, changed)
        if same is not None and not same.min() >= SAME_PIXELS:
            return False
    return True


def _add_noise(values: NDArray[Any], share: float, random: np.random.Generator) -> NDArray[Any]:
    if values.dtype.kind != "f":
        return values
    size = share * max(1.0, float(np.abs(values, where=np.isfinite(values), out=np.zeros_like(values)).max(initial=0)))
    noisy: NDArray[Any] = values + random.choice([-size, size], values.shape).astype(values.dtype)
    return noisy
