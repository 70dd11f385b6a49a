"""Changes of production: what they do to images, rows, texts and labels, and which one is chosen."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlscale.commands.lifecycle.production import LabelledSamples
from mlscale.commands.lifecycle.shifts import Shift, fit_shift, list_concept_shifts, list_input_shifts, replace_words
from mlscale.data.decoding.fast_decoder import DECODE_VERSION
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.table_parsing.columns import DataTable
from mlscale.errors import Exit, MLScaleError
from mlscale.task_types.task_type import AnswerNames, TargetColumn
from tests.unit.commands.lifecycle.servables import draw_rows, label_rows, make_classifier, make_regressor

NAMES = AnswerNames(("cat", "dog", "owl", "hen"))
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


@pytest.mark.parametrize("channels", [1, 3])
def test_the_negative_of_an_image_file_is_another_one_of_its_own_size(channels: int) -> None:
    before = draw_picture(channels)
    (shift,) = list_input_shifts(encode_images(channels))
    after = shift.apply_to(LabelledSamples([before], np.array([1])))
    assert (read_pixels(after.raw[0]) == 255 - read_pixels(before)).all()
    assert after.truth.tolist() == [1]
    assert not shift.is_concept


def test_an_array_stays_one_of_its_dtype() -> None:
    given = np.random.default_rng(0).random((2, 5, 5)).astype(np.float32)
    (shift,) = list_input_shifts(encode_images(1))
    assert shift.change_sample is not None
    after = shift.change_sample(given)
    assert (after.shape, after.dtype) == (given.shape, given.dtype)
    assert (after == given.max() - given).all()


def test_a_unit_changes_one_column_and_leaves_missing_values() -> None:
    shifts = list_input_shifts(TABLE)
    assert [shift.description.partition(" has")[0] for shift in shifts[:2]] == ["the unit of heat", "the unit of size"]
    first = shifts[0]
    assert first.change_sample is not None
    assert first.change_sample({"heat": 100.0, "size": 1, "kind": "a"}) == {"heat": 212.0, "size": 1, "kind": "a"}
    assert first.change_sample({"heat": None, "size": 1, "kind": "a"})["heat"] is None
    (thousand,) = [shift for shift in shifts if "size" in shift.description and "1,000" in shift.description]
    assert thousand.change_sample is not None
    assert thousand.change_sample({"size": 2})["size"] == 2000


def test_units_come_first_whose_values_training_did_not_have() -> None:
    descriptions = [shift.description for shift in list_input_shifts(TABLE)]
    # 22 to 66 overlaps 10 to 30.
    assert descriptions.index("the unit of heat has changed as from m to mm (× 1,000)") < descriptions.index(
        "the unit of heat has changed as from kg to lb (× 2.2046)"
    )


def test_words_become_those_of_another_domain_the_same_everywhere() -> None:
    after = replace_words(b"The cat, the Cat of 1984 \xc3\xa9\xff")
    first, second = after.split(b", ")
    assert len(after) == len(b"The cat, the Cat of 1984 \xc3\xa9\xff")
    assert first != b"The cat"
    assert second.lower().startswith(first.lower())
    assert after.endswith(b" of 1984 \xc3\xa9\xff")


def change(task_type: str, truth: list[object], names: AnswerNames = NAMES) -> tuple[Shift, list[object]]:
    given = np.array(truth)
    shift = list_concept_shifts(task_type, given, names)[0]
    after = shift.apply_to(LabelledSamples(["x"] * len(given), given))
    assert after.raw == ["x"] * len(given)
    assert after.truth.dtype == given.dtype
    assert shift.is_concept
    return shift, after.truth.tolist()


def test_the_two_most_frequent_classes_are_swapped() -> None:
    shift, after = change("classification", [2, 1, 1, 2, 2, 0, 3])
    assert shift.relabelled == ("dog", "owl")
    assert after == [1, 2, 2, 1, 1, 0, 3]


def test_of_two_classes_none_stays_what_it_was() -> None:
    shift, after = change("classification", [0, 1, 1], AnswerNames(("no", "yes")))
    assert shift.relabelled == ()
    assert after == [1, 0, 0]


def test_the_labels_are_swapped_that_are_seldom_together() -> None:
    shift, after = change("multilabel", [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [1, 1, 0, 1]])
    assert shift.relabelled == ("cat", "owl")
    assert after == [[0, 1, 1, 0], [0, 1, 1, 0], [1, 0, 0, 0], [0, 1, 1, 1]]


def test_the_background_of_masks_is_not_swapped_and_ignored_pixels_stay() -> None:
    shift, after = change("segmentation", [[[0, 1, 1]], [[0, 2, 255]], [[0, 2, 3]], [[0, 1, 0]]])
    assert shift.relabelled == ("dog", "owl")
    assert after == [[[0, 2, 2]], [[0, 1, 255]], [[0, 1, 3]], [[0, 2, 0]]]


@pytest.mark.parametrize("truth", [[2.0, 4.0], [[2.0], [4.0]]])
def test_a_target_has_another_slope(truth: list[object]) -> None:
    shift, after = change("regression", truth, AnswerNames((), (TargetColumn("mass", "kg"),)))
    assert np.ravel(np.array(after)).tolist() == [3.0, 6.0]
    assert (shift.relabelled, shift.description) == ((), "mass is × 1.5 for the same inputs")


def is_b_large(x: np.ndarray) -> np.ndarray:
    return (x[:, 1] > 0.5).astype(int)


@pytest.mark.parametrize(("name", "found"), [("auto", "the unit of b"), ("unit", "the unit of b")])
def test_the_column_is_the_one_that_the_model_depends_on(name: str, found: str) -> None:
    shift = fit_shift(name, make_classifier(is_b_large), label_rows(is_b_large(draw_rows())))
    assert found in shift.description
    assert shift.name == "unit"


def test_the_mildest_change_that_is_clear_is_taken() -> None:
    def is_far(x: np.ndarray) -> np.ndarray:
        return (x[:, 0] > 5).astype(int)

    shift = fit_shift("unit", make_classifier(is_far), label_rows(np.zeros(400, int)))
    # °F adds 32, and all are over 5 then.
    assert "°F" in shift.description

    def is_very_far(x: np.ndarray) -> np.ndarray:
        return (x[:, 0] > 100).astype(int)

    assert "1,000" in fit_shift("unit", make_classifier(is_very_far), label_rows(np.zeros(400, int))).description


def test_a_shift_without_an_effect_is_refused_with_those_that_may_have_one() -> None:
    servable, samples = make_classifier(lambda x: np.zeros(len(x))), label_rows(np.zeros(400, int))
    with pytest.raises(MLScaleError, match="'unit' does not make the model measurably worse") as caught:
        fit_shift("unit", servable, samples)
    assert caught.value.exit == Exit.GATE
    assert caught.value.fix == "lifecycle.shift=concept"


def test_errors_are_compared_with_their_mean() -> None:
    truth = draw_rows()[:, 1] * 10 + 100
    servable = make_regressor(lambda x: x[:, 1] * 10 + 99)
    assert "the unit of b" in fit_shift("auto", servable, label_rows(truth[:, None])).description
    assert "mass is × 1.5" in fit_shift("concept", servable, label_rows(truth[:, None])).description


def test_swapped_classes_are_those_of_the_samples() -> None:
    truth = np.array([0, 1, 2, 2, 1, 1, 2, 3] * 50)
    lookup = {tuple(row): label for row, label in zip(draw_rows().tolist(), truth.tolist(), strict=True)}
    servable = make_classifier(lambda x: np.array([lookup[tuple(row)] for row in x.tolist()]), classes=4)
    shift = fit_shift("concept", servable, label_rows(truth))
    assert shift.relabelled == ("b", "c")
