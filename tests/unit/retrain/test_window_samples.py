"""Windows of rows, texts, masks and documents."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.data.encoders.encoder import Encoder
from mlscale.data.encoders.summaries.text_summary import create_summary
from mlscale.events.event_table import Events
from mlscale.export.servable import Servable
from mlscale.retrain.labelled_window import LabelledWindow, select_labelled_window
from mlscale.retrain.window_samples import compute_sample_digest
from mlscale.task_types.segmentation_type import encode_mask
from tests.unit.retrain.raw_servables import IMAGES, ROWS, TEXTS, make_raw_servable


def write_events(encoder: Encoder, samples: Sequence[Any], labels: Sequence[Any]) -> Events:
    """Events as a server leaves them."""
    summary = create_summary(encoder)
    contents = [summary.write_samples(encoder.pack_samples([sample]), [0])[0] for sample in samples]
    times = pa.array([number * 1_000_000 for number in range(len(samples))], pa.timestamp("us", tz="UTC"))
    columns = {
        "time": times,
        "sample": pa.array(contents, pa.binary()),
        "sample_kind": pa.array([summary.sample_kind] * len(samples)),
        "truth": pa.array([json.dumps(label) for label in labels]),
        "group": pa.nulls(len(samples), pa.string()),
    }
    return Events(pa.table(columns))


def take_window(servable: Servable, samples: Sequence[Any], labels: Sequence[Any]) -> LabelledWindow:
    events = write_events(servable.encoder, samples, labels)
    return select_labelled_window(events, servable, model="m", held_out=0.3, most=100)


def test_rows_come_as_they_were_sent_and_new_categories_are_counted() -> None:
    rows = [
        {"age": 1.5, "city": "Rome"},
        {"age": None, "city": "Oslo"},
        {"age": 1e6, "city": None},
        {"age": 2.0, "city": "Oslo"},
        {"age": 2.0, "city": "Bern"},
    ]
    servable = make_raw_servable(ROWS, labels=("high", "low"))
    window = take_window(servable, rows, ["high", 1, "low", "low", "neither"])
    assert window.samples == rows[:4]
    assert window.labels == ["high", "low", "low", "low"]
    assert window.left_out == {"a label that the model does not have": 1}
    assert window.new_categories == {"city": {"Oslo": 2}}
    assert window.summarize_window()["new_categories"] == {"city": {"Oslo": 2}}


def test_numbers_are_labels() -> None:
    rows = [{"age": float(number), "city": "Rome"} for number in range(4)]
    one = make_raw_servable(ROWS, "regression", targets=("cost",))
    window = take_window(one, rows, [1.5, "2", "many", None])
    assert window.labels == [1.5, 2.0]
    several = make_raw_servable(ROWS, "regression", targets=("cost", "days"))
    window = take_window(several, rows, [{"days": 1, "cost": 2.5}, 3.0, {"cost": 1}, {"cost": 1, "days": 2}])
    assert window.labels == [{"cost": 2.5, "days": 1.0}, {"cost": 1.0, "days": 2.0}]


def test_texts_are_cut_as_the_model_cuts_them() -> None:
    window = take_window(make_raw_servable(TEXTS, labels=("a", "b")), ["good", "a longer text", "a longer t"], "aab")
    # Of the last two the same bytes count.
    assert window.samples == [b"good", b"a longer"]
    assert window.labels == ["a", "b"]
    assert window.left_out == {"seen before": 1}


def test_documents_need_no_label() -> None:
    servable = make_raw_servable(DocumentEncoder(8), "language")
    events = write_events(servable.encoder, ["a text", "another, longer one"], [None, None])
    window = select_labelled_window(Events(events.table.drop(["truth"])), servable, model="m", held_out=0.3, most=100)
    assert window.samples == [b"a text", b"another, longer one"]
    assert window.labels == [None, None]


def test_masks_have_the_size_of_the_prediction() -> None:
    masks = [np.zeros((2, 2), np.uint8), np.zeros((3, 2), np.uint8)]
    labels = [base64.b64encode(encode_mask(mask)).decode() for mask in masks]
    images = np.arange(8, dtype=np.uint8).reshape(2, 1, 2, 2)
    window = take_window(make_raw_servable(IMAGES, "segmentation", labels=("sky", "sea")), list(images), labels)
    assert window.labels == labels[:1]
    assert window.left_out == {"a mask of another size": 1}


def test_lists_are_labels() -> None:
    images = np.arange(8, dtype=np.uint8).reshape(2, 1, 2, 2)
    window = take_window(make_raw_servable(IMAGES, "multilabel", labels=("a", "b")), list(images), [["b", "a"], []])
    assert window.labels == [["a", "b"], []]
    assert window.select_part(is_held_out=False)[1] + window.select_part(is_held_out=True)[1]


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        ({"a": 1.0, "b": "x"}, {"b": "x", "a": 1.0}, {"a": 1.0, "b": "y"}),
        (b"text", b"text", b"texts"),
        (np.zeros(3, np.uint8), np.zeros(3, np.uint8), np.ones(3, np.uint8)),
        ({"x": np.zeros(2), "y": np.ones(2)}, {"y": np.ones(2), "x": np.zeros(2)}, {"x": np.ones(2), "y": np.zeros(2)}),
    ],
)
def test_equal_samples_have_equal_digests(one: Any, same: Any, other: Any) -> None:
    assert compute_sample_digest(one, "m") == compute_sample_digest(same, "m")
    assert compute_sample_digest(one, "m") != compute_sample_digest(other, "m")
    assert compute_sample_digest(one, "m") != compute_sample_digest(one, "n")
