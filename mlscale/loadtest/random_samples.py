"""Random samples of what a server states that its model takes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlscale.errors import MLScaleError
from mlscale.loadtest.load_samples import MOST_BYTES, RequestSamples
from mlscale.loadtest.server_model import InputTensor, ServerModel

_COUNT = 256
_TEXT_BYTES = 400
_LETTERS = np.frombuffer(b"etaoinshrdlucmfw   ", np.uint8)


def generate_samples(model: ServerModel, protocol: str = "auto", seed: int = 0) -> RequestSamples:
    """Return 256 random samples, fewer if they are large.

    Rows have numbers from the ranges, and categories, of the training data; texts have letters and spaces; images are
    noise. Of tensors: any value of uint8, 0 to 1 for floats, 0 to 99 for other integers.

    Raises:
        MLScaleError: a size of the input varies, or the images have other channels than grey or RGB.
    """
    generator = np.random.default_rng(seed)
    # Tensors are sent where the protocol has nothing else, or where they are what is sent by default.
    if model.raw_type == "table" and protocol != "bytes":
        return RequestSamples("random rows", raw=_generate_rows(model, generator), form="row")
    if model.raw_type == "text" and protocol != "bytes":
        return RequestSamples("random texts", raw=_generate_texts(model, generator), form="text")
    if model.raw_type == "image" and protocol == "raw":
        return RequestSamples("random images", raw=_generate_images(model, generator), form="image")
    for tensor in model.inputs:
        if min(tensor.shape, default=1) < 1:
            raise MLScaleError(
                f"no random samples of {model.name} can be made",
                where="samples",
                why=f"a size of its input {tensor.name} varies: {list(tensor.shape)}",
                fix="samples=<an .npz file with the arrays of its inputs>",
            )
    size = sum(np.dtype(tensor.dtype).itemsize * int(np.prod(tensor.shape)) for tensor in model.inputs)
    count = max(1, min(_COUNT, MOST_BYTES // max(1, size)))
    return RequestSamples(
        "random samples", {tensor.name: _generate_tensor(tensor, count, generator) for tensor in model.inputs}
    )


def _generate_tensor(tensor: InputTensor, count: int, generator: np.random.Generator) -> NDArray[Any]:
    shape, dtype = (count, *tensor.shape), np.dtype(tensor.dtype)
    if dtype == np.object_:
        # No text is known to be valid, but every encoder has a meaning for the empty one: a missing value.
        return np.full(shape, "", object)
    if dtype.kind == "f":
        return generator.random(shape).astype(dtype)
    # Below 100, so that token numbers are in every vocabulary of bytes.
    return generator.integers(0, {"uint8": 256, "bool": 2}.get(tensor.dtype, 100), shape).astype(dtype)


def _generate_rows(model: ServerModel, generator: np.random.Generator) -> list[dict[str, Any]]:
    columns: dict[str, list[Any]] = {}
    for column in model.columns:
        if column["type"] == "number":
            # A column without values in training has no range.
            low, high = (float(column.get(name) or 0) for name in ("minimum", "maximum"))
            values: list[Any] = generator.uniform(low, max(low, high), _COUNT).tolist()
        else:
            values = generator.choice(column.get("categories") or [""], _COUNT).tolist()
        columns[str(column["name"])] = values
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _generate_texts(model: ServerModel, generator: np.random.Generator) -> list[bytes]:
    most = min(_TEXT_BYTES, int(model.raw_input.get("max_bytes") or _TEXT_BYTES))
    # A text begins with a letter: a server may take white space alone for an empty one.
    return [b"a" + generator.choice(_LETTERS, int(size)).tobytes() for size in generator.integers(0, most, _COUNT)]


def _generate_images(model: ServerModel, generator: np.random.Generator) -> list[bytes]:
    from PIL import Image

    # Pillow writes a grey image from two dimensions only: an axis of size 1 is an error.
    channels = {"grey": (), "RGB": (3,)}.get(str(model.raw_input.get("colours")))
    if channels is None:
        raise MLScaleError(
            f"no random images of {model.name} can be made",
            where="samples",
            why=f"its images are {model.raw_input.get('colours')}, neither grey nor RGB",
            fix="samples=<a folder of images>\nprotocol=bytes",
        )
    size = int(model.raw_input["height"]), int(model.raw_input["width"])
    images = []
    for _ in range(max(1, min(_COUNT, MOST_BYTES // (3 * size[0] * size[1])))):
        file = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (*size, *channels), np.uint8)).save(file, "PNG")
        images.append(file.getvalue())
    return images
