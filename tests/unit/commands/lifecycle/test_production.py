"""Changes of production, and a tour's client, which checks each answer."""

import io
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlscale.commands.lifecycle.production import (
    CheckedClient,
    LabelledSamples,
    choose_shift,
    compare_sides,
    list_input_shifts,
    replace_words,
)
from mlscale.data.decoding.fast_decoder import DECODE_VERSION
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.table_parsing.columns import DataTable
from tests.unit.commands.lifecycle.servables import draw_rows, label_rows, make_classifier, make_regressor
from tests.unit.loadtest.servers import Answer, label, serving

ROWS = DataTable(
    {"heat": np.array([10.0, 20, 30, np.nan]), "size": np.array([1.0, 2, 3, 4]), "kind": ["a", "b", "a", "new"]},
    ["0", "1", "2", "3"],
)
TABLE = TableEncoder.fit(ROWS, ("heat", "size", "kind"), where="data.train")
RAW = np.random.default_rng(0).integers(0, 256, (6, 1, 4, 4), np.uint8)


def expect_answer(servable: Any, sample: Any) -> dict[str, Any]:
    return {"label": label(sample), "probabilities": [0.8 if name == label(sample) else 0.1 for name in "abc"]}


@pytest.fixture(autouse=True)
def _known_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlscale.commands.lifecycle.production.answer_sample", expect_answer)


def make_client(url: str) -> CheckedClient:
    servable: Any = SimpleNamespace(
        encoder=SimpleNamespace(kind="tensor"),
        input=SimpleNamespace(name="input"),
        task_type=SimpleNamespace(describe_answer=lambda names: {}),
        names=None,
    )
    return CheckedClient(url, list(RAW), lambda version: servable, servable)


def test_each_answer_is_counted_and_checked() -> None:
    with serving() as server:
        client = make_client(server.url)
        client.send_all()
        assert (client.problem, client.requests, client.versions["sums:v1"]) == ("", 6, 6)
        with client.keep_sending():
            while server.asked < 20:
                time.sleep(0.01)
    assert client.problem == ""
    assert client.requests >= 19


def _spoil(answer: Answer, number: int) -> Answer | None:
    """Every third answer is of another model, every third is missing."""
    status, headers, body = answer
    return (answer, (status, headers, body.replace(b"0.8", b"0.7")), None)[number % 3]


def test_answers_that_are_wrong_or_missing_are_reported_apart() -> None:
    with serving(_spoil) as server:
        client = make_client(server.url)
        client.send_all()
    assert (len(client.dropped), len(client.wrong), client.requests) == (2, 2, 6)
    assert "0.7" in client.wrong[0]


def test_an_error_of_the_server_is_a_dropped_request_and_no_labels() -> None:
    with serving(lambda answer, number: (503, {}, b'{"error": "busy"}')) as server:
        client = make_client(server.url)
        client.send_all()
        client.send_labels(["a"])
    assert len(client.dropped) == 7
    assert "503" in client.dropped[0]


def test_samples_come_in_batches_with_their_truth() -> None:
    batches = list(LabelledSamples(list(range(600)), np.arange(600) % 7).iterate_batches())
    assert [row for raw, _ in batches for row in raw] == list(range(600))
    assert sum(len(truth) for _, truth in batches) == 600
    assert len(batches) > 1


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


def test_an_array_stays_one_of_its_dtype() -> None:
    given = np.random.default_rng(0).random((2, 5, 5)).astype(np.float32)
    (shift,) = list_input_shifts(encode_images(1))
    after = shift.change_sample(given)
    assert (after.shape, after.dtype) == (given.shape, given.dtype)
    assert (after == given.max() - given).all()


def test_another_zero_changes_one_column_and_leaves_missing_values() -> None:
    heat, size = list_input_shifts(TABLE)
    # By 1.5 times the range, 10 to 30.
    assert heat.change_sample({"heat": 100.0, "size": 1, "kind": "a"}) == {"heat": 130.0, "size": 1, "kind": "a"}
    assert heat.change_sample({"heat": None, "size": 1, "kind": "a"})["heat"] is None
    assert (size.change_sample({"size": 2})["size"], size.description) == (6.5, "size has another zero, by 4.5")


def test_words_become_those_of_another_domain_the_same_everywhere() -> None:
    after = replace_words(b"The cat, the Cat of 1984 \xc3\xa9\xff")
    first, second = after.split(b", ")
    assert len(after) == len(b"The cat, the Cat of 1984 \xc3\xa9\xff")
    assert first != b"The cat"
    assert second.lower().startswith(first.lower())
    assert after.endswith(b" of 1984 \xc3\xa9\xff")


def is_b_large(x: np.ndarray) -> np.ndarray:
    return (x[:, 1] > 0.5).astype(int)


def test_the_column_is_the_one_that_the_model_depends_on() -> None:
    # Large ones stay large: the classes must not be one.
    shift = choose_shift(make_classifier(is_b_large), label_rows(is_b_large(draw_rows())))
    assert "b has another zero" in shift.description
    truth = draw_rows()[:, 1] * 10 + 100
    servable = make_regressor(lambda x: x[:, 1] * 10 + 99)
    assert "b has another zero" in choose_shift(servable, label_rows(truth[:, None])).description


def test_models_are_compared_in_both_directions() -> None:
    truth = (draw_rows()[:, 0] > 0.5).astype(int)
    good, bad = make_classifier(lambda x: x[:, 0] > 0.5), make_classifier(lambda x: x[:, 1] > 0.5)
    samples = label_rows(truth)
    better = compare_sides((bad, samples), (good, samples))
    assert (better.second, better.p_better < 0.001, better.low > 0) == (1, True, True)
    worse = compare_sides((good, samples), (good, label_rows(1 - truth)))
    assert (worse.first, worse.second, worse.p_better > 0.999, worse.low < 0) == (1, 0, True, True)
