"""Random samples are valid ones of what the server states."""

import io

import numpy as np
import pytest
from PIL import Image

from mlscale.errors import MLScaleError
from mlscale.loadtest.random_samples import generate_samples
from mlscale.loadtest.server_model import InputTensor, ServerModel

NUMBER = {"name": "a", "type": "number", "minimum": -2.0, "maximum": 3.0, "median": 0.5}
CATEGORY = {"name": "b", "type": "category", "categories": ["x", "y"]}


def one(dtype: str, shape: tuple[int, ...]) -> ServerModel:
    return ServerModel("m", (InputTensor("input", dtype, shape),))


@pytest.mark.parametrize("dtype", ["uint8", "float32", "int64", "float64", "int32"])
def test_random_samples_fit_the_model(dtype: str) -> None:
    samples = generate_samples(one(dtype, (3, 5)))
    raw = samples.tensors["input"]
    assert raw.dtype == dtype
    assert raw.shape == (256, 3, 5)
    assert len(np.unique(raw)) > 50
    assert (generate_samples(one(dtype, (3, 5))).tensors["input"] == raw).all()


def test_several_tensors_have_as_many_samples() -> None:
    inputs = InputTensor("bytes", "uint8", (200,)), InputTensor("n", "int64", ()), InputTensor("t", "object", (2,))
    samples = generate_samples(ServerModel("m", inputs))
    shapes = {name: values.shape for name, values in samples.tensors.items()}
    assert shapes == {"bytes": (256, 200), "n": (256,), "t": (256, 2)}
    assert samples.tensors["t"][0, 0] == ""


def test_rows_are_within_the_ranges_and_have_known_categories() -> None:
    model = ServerModel("m", (), raw_input={"type": "table", "columns": [NUMBER, CATEGORY]})
    samples = generate_samples(model)
    assert (samples.form, len(samples)) == ("row", 256)
    assert {row["b"] for row in samples.raw} == {"x", "y"}
    numbers = [row["a"] for row in samples.raw]
    assert -2 <= min(numbers) < -1.5 < 2.5 < max(numbers) <= 3


def test_texts_are_short_enough_and_not_empty() -> None:
    samples = generate_samples(ServerModel("m", (), raw_input={"type": "text", "max_bytes": 40}))
    lengths = [len(text) for text in samples.raw]
    assert (min(lengths), max(lengths)) == (1, 40)
    assert samples.form == "text"


def test_images_are_pixels_or_files() -> None:
    raw = {"type": "image", "colours": "RGB", "height": 6, "width": 5}
    model = ServerModel("m", (InputTensor("input", "uint8", (3, 6, 5)),), raw_input=raw)
    assert generate_samples(model).tensors["input"].shape == (256, 3, 6, 5)
    files = generate_samples(model, "raw")
    picture = Image.open(io.BytesIO(files.raw[0]))
    assert (picture.mode, picture.size, files.form) == ("RGB", (5, 6), "image")
    with pytest.raises(MLScaleError, match="no random images"):
        generate_samples(ServerModel("m", (), raw_input={**raw, "colours": "4 channels"}), "raw")


def test_sizes_that_vary_are_reported() -> None:
    with pytest.raises(MLScaleError, match="no random samples of m can be made"):
        generate_samples(one("float32", (3, -1)))
