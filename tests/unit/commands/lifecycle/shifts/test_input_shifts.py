"""Changes of inputs: what they do to images, rows and texts, and what they leave as it is."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlscale.commands.lifecycle.production_samples import LabelledSamples
from mlscale.commands.lifecycle.shifts.image_shifts import list_image_shifts
from mlscale.commands.lifecycle.shifts.shift import Shift
from mlscale.commands.lifecycle.shifts.table_shifts import list_table_shifts
from mlscale.commands.lifecycle.shifts.text_shifts import list_text_shifts
from mlscale.data.decoding.fast_decoder import DECODE_VERSION
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.table_parsing.columns import DataTable

ROWS = DataTable(
    {"heat": np.array([10.0, 20, 30, np.nan]), "size": np.array([1.0, 2, 3, 4]), "kind": ["a", "b", "a", "new"]},
    ["0", "1", "2", "3"],
)
TABLE = TableEncoder.fit(ROWS, ("heat", "size", "kind"), where="data.train")


def encode_images(channels: int) -> ImageEncoder:
    return ImageEncoder((channels, 6, 4), "uint8", True, 1 << 20, (0.0,), (1.0,), DECODE_VERSION)


def draw_picture(channels: int) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, channels), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def read_pixels(content: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(content))).astype(int)


def flatten(groups: list[list[Shift]]) -> list[Shift]:
    return [shift for group in groups for shift in group]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["invert", "turn", "blur"])
def test_an_image_file_becomes_another_one_of_its_own_size(name: str, channels: int) -> None:
    before = draw_picture(channels)
    for shift in flatten(list_image_shifts(name, encode_images(channels))):
        after = shift.apply_to(LabelledSamples([before], np.array([1])))
        pixels, was = read_pixels(after.raw[0]), read_pixels(before)
        assert after.truth.tolist() == [1]
        assert not shift.is_concept
        if name == "invert":
            assert (pixels == 255 - was).all()
        elif name == "turn":
            assert (pixels == np.rot90(was)).all()
        else:
            assert pixels.shape == was.shape
            assert pixels.std() < was.std()
            assert abs(pixels.mean() - was.mean()) < 15


@pytest.mark.parametrize("name", ["invert", "turn", "blur"])
def test_an_array_stays_one_of_its_dtype(name: str) -> None:
    given = np.random.default_rng(0).random((2, 5, 5)).astype(np.float32)
    for shift in flatten(list_image_shifts(name, encode_images(1))):
        assert shift.change_sample is not None
        after = shift.change_sample(given)
        assert (after.shape, after.dtype) == (given.shape, given.dtype)
        assert (after != given).any(axis=(1, 2)).all()
        assert after.flags.c_contiguous


def test_a_unit_changes_one_column_and_leaves_missing_values() -> None:
    groups = list_table_shifts("unit", TABLE)
    assert [[shift.description.partition(" has")[0] for shift in group] for group in groups[:1]] == [
        ["the unit of heat", "the unit of size"]
    ]
    first = groups[0][0]
    assert first.change_sample is not None
    assert first.change_sample({"heat": 100.0, "size": 1, "kind": "a"}) == {"heat": 212.0, "size": 1, "kind": "a"}
    assert first.change_sample({"heat": None, "size": 1, "kind": "a"})["heat"] is None
    (thousand,) = [shift for shift in flatten(groups) if "size" in shift.description and "1,000" in shift.description]
    assert thousand.change_sample is not None
    assert thousand.change_sample({"size": 2})["size"] == 2000


def test_units_come_first_whose_values_training_did_not_have() -> None:
    descriptions = [shift.description for shift in flatten(list_table_shifts("unit", TABLE))]
    # 22 to 66 overlaps 10 to 30.
    assert descriptions.index("the unit of heat has changed as from m to mm (× 1,000)") < descriptions.index(
        "the unit of heat has changed as from kg to lb (× 2.2046)"
    )


def test_a_sensor_is_stuck_at_an_end_of_its_range() -> None:
    shifts = flatten(list_table_shifts("stuck", TABLE))
    assert [shift.change_sample({"heat": 1, "size": 2}) for shift in shifts if shift.change_sample] == [
        {"heat": 10.0, "size": 2},
        {"heat": 30.0, "size": 2},
        {"heat": 1, "size": 1.0},
        {"heat": 1, "size": 4.0},
    ]


def test_a_new_category_is_none_of_training() -> None:
    (shift,) = flatten(list_table_shifts("category", TABLE))
    assert shift.change_sample is not None
    assert shift.change_sample({"heat": 1, "kind": "a"}) == {"heat": 1, "kind": "new new"}
    numbered = TableEncoder.fit(ROWS, ("size",), ("size",), where="data.train")
    (shift,) = flatten(list_table_shifts("category", numbered))
    assert shift.change_sample is not None
    assert shift.change_sample({"size": 3.0})["size"] == 5


def test_words_become_those_of_another_domain_the_same_everywhere() -> None:
    (shift,) = flatten(list_text_shifts("domain"))
    assert shift.change_sample is not None
    after = shift.change_sample(b"The cat, the Cat of 1984 \xc3\xa9\xff")
    first, second = after.split(b", ")
    assert len(after) == len(b"The cat, the Cat of 1984 \xc3\xa9\xff")
    assert first != b"The cat"
    assert second.lower().startswith(first.lower())
    assert after.endswith(b" of 1984 \xc3\xa9\xff")


def test_a_broken_encoding_changes_what_is_not_ascii() -> None:
    (shift,) = flatten(list_text_shifts("encoding"))
    assert shift.change_sample is not None
    assert shift.change_sample("Käse".encode()) == "KÃ¤se".encode()
    assert shift.change_sample(b"cheese") == b"cheese"
