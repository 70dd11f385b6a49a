"""Name the channel of an image that a servable encodes otherwise than training, and why."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.export.encoder_parity.difference import Cause, Finding, are_close, fit_line

if TYPE_CHECKING:
    from PIL import Image

Pixels = NDArray[Any]
Hypothesis = tuple[tuple[Cause, str], Pixels]
# Each image is decoded again, and resized for every hypothesis: a few are enough to choose one.
_EXAMPLES = 8
_FEW_LEVELS = 1.0
_ROUNDINGS: Mapping[str, Callable[[float], int]] = {"nearest": round, "floor": math.floor, "ceil": math.ceil}
"""Of the edges of a crop: a pixel is much where noise is fine, and programs differ."""


def find_pixel_difference(
    encoder: ImageEncoder, trained: Pixels, exported: Pixels, images: Sequence[Any]
) -> Finding | None:
    """Return the first channel whose pixels differ; None where all are equal.

    Args:
        encoder: training's.
        trained, exported: (n, channels, height, width) each, before normalisation.
        images: the raw samples.
    """
    if trained.shape != exported.shape:
        first, second = ("×".join(map(str, side.shape[1:])) for side in (trained, exported))
        return Finding("the size", 0, (first, second), Cause.CROP, "another size")
    wrong = np.flatnonzero((trained != exported).any((1, 2, 3)))
    if not len(wrong):
        return None
    chosen = wrong[:_EXAMPLES]
    cause, detail = _explain_pixels(encoder, trained[chosen], exported[chosen], [images[row] for row in chosen])
    return _build_finding(trained, exported, int(wrong[0]), trained != exported, cause, detail)


def find_normalised_difference(
    encoder: ImageEncoder, trained: Pixels, exported: Pixels, share: float
) -> Finding | None:
    """Return the first channel whose normalised values differ; None where all agree within a share.

    Args:
        encoder: training's.
        trained, exported: (n, channels, height, width) each.
        share: see `are_close`.
    """
    wrong = ~are_close(trained, exported, share)
    if not wrong.any():
        return None
    row = int(np.flatnonzero(wrong.any((1, 2, 3)))[0])
    cause, detail = _explain_values(encoder, trained.astype(np.float64), exported.astype(np.float64))
    return _build_finding(trained, exported, row, wrong, cause, detail)


def _build_finding(
    trained: Pixels, exported: Pixels, row: int, wrong: NDArray[np.bool_], cause: Cause, detail: str
) -> Finding:
    channel, y, x = (int(index[0]) for index in np.nonzero(wrong[row]))
    names = "RGB" if trained.shape[1] == 3 else ""
    name = f"channel {channel + 1}{f' ({names[channel]})' if names else ''} at ({y}, {x})"
    first, second = (f"{side[row, channel, y, x]:.6g}" for side in (trained, exported))
    return Finding(name, row, (first, second), cause, detail)


def _explain_values(encoder: ImageEncoder, trained: Pixels, exported: Pixels) -> tuple[Cause, str]:
    """Return the cause of other normalised values of equal pixels."""
    channels = trained.shape[1]
    lines = [fit_line(trained[:, c].ravel(), exported[:, c].ravel()) for c in range(channels)]
    fitted = [line for line in lines if line is not None and abs(line[0]) > 1e-12]
    if len(fitted) == channels:
        # (x - mean) / std again, from slope and offset.
        stds = [std / slope for std, (slope, _) in zip(encoder.std, fitted, strict=True)]
        means = [mean - offset * std for mean, (_, offset), std in zip(encoder.mean, fitted, stds, strict=True)]
        shown = ", ".join(f"{mean:.4g}/{std:.4g}" for mean, std in zip(means, stds, strict=True))
        reverse = channels > 1 and np.allclose(means + stds, [*encoder.mean[::-1], *encoder.std[::-1]], rtol=1e-3)
        return Cause.NORMALISATION, "those of the channels in reverse order" if reverse else f"mean/deviation {shown}"
    if channels > 1 and all(
        fit_line(trained[:, c].ravel(), exported[:, channels - 1 - c].ravel()) for c in range(channels)
    ):
        return Cause.CHANNEL_ORDER, ""
    return Cause.UNKNOWN, ""


def _explain_pixels(
    encoder: ImageEncoder, trained: Pixels, exported: Pixels, images: Sequence[Any]
) -> tuple[Cause, str]:
    """Return the cause whose pixels are nearest to the exported ones, if they are much nearer than training's."""
    errors: dict[tuple[Cause, str], list[float]] = {}
    for pixels, other, image in zip(trained, exported, images, strict=True):
        for hypothesis, predicted in _list_hypotheses(encoder, pixels, image):
            if predicted.shape == other.shape:
                errors.setdefault(hypothesis, []).append(_compute_distance(predicted, other))
    distance = float(np.mean([_compute_distance(*pair) for pair in zip(trained, exported, strict=True)]))
    # Each must explain all: a hypothesis that could not be computed for an image is left out.
    means = {name: float(np.mean(values)) for name, values in errors.items() if len(values) == len(images)}
    best = min(means, key=lambda name: means[name], default=None)
    if best is not None and means[best] <= 0.5 * distance:
        return best
    return (Cause.DECODER, "") if distance < _FEW_LEVELS else (Cause.UNKNOWN, "")


def _compute_distance(first: Pixels, second: Pixels) -> float:
    return float(np.abs(first.astype(np.float64) - second).mean())


def _list_hypotheses(encoder: ImageEncoder, pixels: Pixels, image: object) -> Iterator[Hypothesis]:
    """Yield causes with the pixels that each would give for an image."""
    if len(pixels) > 1:
        yield (Cause.CHANNEL_ORDER, ""), pixels[::-1]
    yield (Cause.ORIENTATION, "mirrored"), pixels[:, :, ::-1]
    yield (Cause.ORIENTATION, "upside down"), pixels[:, ::-1]
    for quarters in (1, 2, 3):
        yield (Cause.ORIENTATION, f"turned by {90 * quarters}°"), np.rot90(pixels, quarters, (1, 2))
    if isinstance(image, bytes) and encoder.is_resized:
        yield from _list_decoded(encoder, image)


def _list_decoded(encoder: ImageEncoder, image: bytes) -> Iterator[Hypothesis]:
    """Yield causes that lie in how a file is decoded, cropped and resized."""
    from PIL import Image

    from mlscale.data.decoding.image_decoder import decode_image
    from mlscale.data.decoding.pil import open_image
    from mlscale.data.decoding.resample import Box, find_middle_box, resize_region

    channels, *size = encoder.shape
    height, width = size
    try:
        whole = decode_image(image, None, channels, max_pixels=encoder.max_pixels).transpose(1, 2, 0)
        with open_image(image, max_pixels=encoder.max_pixels) as stored:
            as_stored = np.asarray(stored.convert("L" if channels == 1 else "RGB")).reshape(
                stored.height, stored.width, channels
            )
    except (ValueError, OSError):  # what training has decoded can be decoded; Pillow may lack a format
        return

    def resize(array: Pixels, box: Box) -> Pixels:
        return resize_region(np.ascontiguousarray(array), box, (height, width)).transpose(2, 0, 1)

    tall, wide = whole.shape[:2]
    middle = find_middle_box(tall, wide, (height, width))
    yield (
        (Cause.ORIENTATION, "as the file stores it"),
        resize(as_stored, find_middle_box(*as_stored.shape[:2], (height, width))),
    )
    yield (Cause.CROP, "the whole image is squeezed"), resize(whole, Box(0, 0, tall, wide))
    yield (Cause.CROP, "the upper left part"), resize(whole, Box(0, 0, middle.height, middle.width))
    # 0.875 is the 224 of 256 pixels that are usual for ImageNet, 0.95 a common wider crop.
    for share, first, second in product((0.875, 0.95), _ROUNDINGS, _ROUNDINGS):
        start, extent = _ROUNDINGS[first], _ROUNDINGS[second]
        inner = Box(
            middle.top + start(middle.height * (1 - share) / 2),
            middle.left + start(middle.width * (1 - share) / 2),
            max(1, extent(middle.height * share)),
            max(1, extent(middle.width * share)),
        )
        edges = "" if first == second == "nearest" else f" (edges rounded by {first}, {second})"
        yield (Cause.CROP, f"{share:.1%} of the middle{edges}"), resize(whole, inner)
    part = whole[middle.top : middle.top + middle.height, middle.left : middle.left + middle.width]
    # Nothing is resized, so no filter can be the cause.
    if part.shape[:2] == (height, width):
        return
    for name, resample in (
        ("nearest", Image.Resampling.NEAREST),
        ("bicubic", Image.Resampling.BICUBIC),
        ("lanczos", Image.Resampling.LANCZOS),
        ("box", Image.Resampling.BOX),
    ):
        yield (Cause.RESIZE_FILTER, name), _resize_by_pillow(part, (width, height), resample)
    yield (Cause.RESIZE_FILTER, "bilinear, not antialiased"), _resize_without_antialias(part, (height, width))


def _resize_by_pillow(part: Pixels, size: tuple[int, int], resample: Image.Resampling) -> Pixels:
    from PIL import Image

    planes = [np.asarray(Image.fromarray(part[..., c].copy()).resize(size, resample)) for c in range(part.shape[2])]
    return np.stack(planes)


def _resize_without_antialias(part: Pixels, size: tuple[int, int]) -> Pixels:
    import torch
    from torch.nn.functional import interpolate

    tensor = torch.from_numpy(np.ascontiguousarray(part.transpose(2, 0, 1)))[None].float()
    resized: Pixels = interpolate(tensor, size, mode="bilinear", align_corners=False)[0].round().numpy()
    return resized
