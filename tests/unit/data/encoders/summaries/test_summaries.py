"""The columns that raw samples are summarised by, and the bytes that they are stored as."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from mlscale.data.decoding.fast_decoder import DECODE_VERSION
from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.encoder import EncodedSamples, TensorSpec
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.data.encoders.summaries.input_summary import ChannelSummary
from mlscale.data.encoders.summaries.text_summary import TextSummary, WordTable, create_summary
from mlscale.data.encoders.table_columns import CategoryColumn, NumberColumn
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.encoders.tensor_encoder import TensorEncoder
from mlscale.data.encoders.text_encoder import TextEncoder
from mlscale.task_types.event_forms import SummaryColumns

ROWS = TableEncoder(
    (
        NumberColumn("mass", 4, 4, 1, 2, 6, True),
        CategoryColumn("island", ("Biscoe", "Dream"), False),
        NumberColumn("length", 4, 4, 1, 2, 6, False),
    )
)


def get_numbers(columns: SummaryColumns, name: str) -> list[float]:
    values = columns[name]
    assert isinstance(values, np.ndarray)
    assert values.dtype == np.float64
    rounded: list[float] = values.round(4).tolist()
    return rounded


def test_a_row_has_its_columns_by_name_and_is_stored_as_json() -> None:
    rows: list[dict[str, object]] = [
        {"mass": 3.5, "island": "Torgersen", "length": 7},
        {"mass": None, "island": None, "length": "2"},
    ]
    summary, packed = create_summary(ROWS), ROWS.pack_samples(rows)
    columns = summary.summarize_samples(packed)
    assert list(columns) == ["mass", "island", "length"]
    np.testing.assert_array_equal(columns["mass"], [3.5, np.nan])
    assert columns["island"] == ["Torgersen", None]
    assert summary.sample_kind == "json"
    assert [json.loads(text) for text in summary.write_samples(packed, [1, 0])] == [
        {"mass": None, "island": None, "length": 2.0},
        {"mass": 3.5, "island": "Torgersen", "length": 7.0},
    ]


def test_an_image_has_light_detail_size_and_colours() -> None:
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[::2] = 200, 100, 50
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    encoder = ImageEncoder((3, 40, 60), "uint8", True, 10_000, (), (), DECODE_VERSION)
    packed = encoder.pack_samples([file.getvalue(), np.full((3, 40, 60), 7, np.uint8)])
    columns = create_summary(encoder).summarize_samples(packed)
    grey = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    assert get_numbers(columns, "brightness") == pytest.approx([grey / 2, 7], abs=1e-3)
    assert get_numbers(columns, "contrast") == pytest.approx([grey / 2, 0], abs=1e-3)
    assert get_numbers(columns, "sharpness") == pytest.approx([2 * grey, 0], abs=0.1)
    assert get_numbers(columns, "red") == [100, 7]
    assert (get_numbers(columns, "width"), get_numbers(columns, "height")) == ([60, 60], [40, 40])
    # Without facts, as where a client sends pixels: their own size.
    assert get_numbers(create_summary(encoder).summarize_samples(EncodedSamples(packed.tensors, {})), "width") == [
        60,
        60,
    ]
    (stored,) = create_summary(encoder).write_samples(packed, [1])
    assert (np.load(io.BytesIO(stored)) == 7).all()


def test_a_large_photo_keeps_its_own_size() -> None:
    file = io.BytesIO()
    Image.new("L", (90, 70)).save(file, "JPEG")
    encoder = ImageEncoder((1, 8, 8), "uint8", True, 10_000, (), (), DECODE_VERSION)
    columns = create_summary(encoder).summarize_samples(encoder.pack_samples([file.getvalue()]))
    assert (get_numbers(columns, "width"), get_numbers(columns, "height")) == ([90], [70])
    assert "red" not in columns


def test_a_text_has_its_length_alphabet_and_other_words() -> None:
    encoder, words = TextEncoder(20), WordTable.collect_words([b"the cat", b"The CAT 9 lives", b"the dog"])
    assert words.words[:2] == (b"the", b"cat")
    texts = [b"The bird, 1 dog", b"\xff\xfe \xc3\xa9t\xc3\xa9", b"the cat and so forth and so on"]
    columns = TextSummary(words).summarize_samples(encoder.pack_samples(texts))
    assert get_numbers(columns, "length") == [15, 8, 30]
    assert get_numbers(columns, "words") == [4, 2, 5]  # of the part that is read: 'fort' is cut
    assert get_numbers(columns, "unknown_words") == [0.5, 1, 0.6]
    assert get_numbers(columns, "letters") == [round(10 / 15, 4), round(1 / 8, 4), 0.8]
    assert get_numbers(columns, "invalid") == [0, 0.25, 0]
    assert get_numbers(columns, "non_ascii") == [0, 0.75, 0]
    assert "unknown_words" not in create_summary(encoder).summarize_samples(encoder.pack_samples(texts))


def test_a_character_that_the_end_cuts_is_not_invalid() -> None:
    encoder = TextEncoder(4)
    columns = create_summary(encoder).summarize_samples(encoder.pack_samples(["abcé", b"abc\xc3", b"ab\xc3"]))
    assert get_numbers(columns, "invalid") == [0, 0, round(1 / 3, 4)]


def test_texts_do_not_depend_on_their_batch() -> None:
    rng = np.random.default_rng(0)
    texts = [bytes(rng.integers(1, 256, rng.integers(1, 90)).astype(np.uint8)) for _ in range(50)]
    encoder, summary = TextEncoder(64), TextSummary(WordTable.collect_words(texts[:9]))
    together = summary.summarize_samples(encoder.pack_samples(texts))
    for row, text in enumerate(texts):
        alone = summary.summarize_samples(encoder.pack_samples([text]))
        assert {name: values[0] for name, values in alone.items()} == pytest.approx(
            {name: values[row] for name, values in together.items()}, nan_ok=True
        )


def test_a_document_counts_each_byte_once_though_windows_overlap() -> None:
    encoder, texts = DocumentEncoder(8), ["one two three four 5", "a"]
    summary, packed = create_summary(encoder), encoder.pack_samples(texts)
    columns = summary.summarize_samples(packed)
    assert get_numbers(columns, "length") == [20, 1]
    assert get_numbers(columns, "words") == [5, 1]
    assert summary.write_samples(packed, [0, 1]) == [b"one two three four 5", b"a"]
    assert summary.unmeasured == {"length", "words"}


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        ((2,), ["mean_0", "mean_1"]),
        ((2, 3), ["mean_0", "mean_1", "std_0", "std_1"]),
        ((33, 2), ["mean", "std"]),
        ((), ["mean_0"]),
    ],
)
def test_tensors_have_moments_of_at_most_32_channels(shape: tuple[int, ...], names: list[str]) -> None:
    encoder = TensorEncoder.from_shape(shape, "float32")
    values = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
    columns = create_summary(encoder).summarize_samples(EncodedSamples({"input": values}, {}))
    assert list(columns) == names
    assert all(len(column) == 3 for column in columns.values())


def test_several_tensors_are_named_and_stored_together() -> None:
    encoder = TensorEncoder((TensorSpec("left", "float32", (1,)), TensorSpec("right", "int64", (1,))))
    summary, packed = create_summary(encoder), encoder.pack_samples([{"left": [0.5], "right": [2]}])
    assert get_numbers(summary.summarize_samples(packed), "left.mean_0") == [0.5]
    stored = np.load(io.BytesIO(summary.write_samples(packed, [0])[0]))
    assert stored["right"].tolist() == [2]


def test_format_1_has_the_moments_of_encoded_channels() -> None:
    columns = ChannelSummary(ROWS, is_encoded=False).summarize_samples(
        ROWS.pack_samples([{"mass": 5, "island": "Dream", "length": 4}])
    )
    assert get_numbers(columns, "mean_0") == [1]
    assert {f"std_{number}" for number in range(5)} < set(columns)
