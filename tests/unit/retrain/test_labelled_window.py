"""What a window takes of events that anybody may have sent."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mlscale.data.decoding.fast_decoder import DECODE_VERSION
from mlscale.data.encoders.image_encoder import ImageEncoder
from mlscale.data.encoders.summaries.input_summary import ImageSummary
from mlscale.data.windows.window_folder import read_window_digests, write_window_digests
from mlscale.events.event_rows import EventSubject
from mlscale.events.store import EventStore
from mlscale.retrain.labelled_window import LabelledWindow, select_labelled_window
from tests.event_writing import add_classified
from tests.unit.retrain.raw_servables import IMAGES, make_raw_servable

LABELS = ("cat", "dog")
_MINUTE = 60_000_000


def images(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 1, 2, 2), np.uint8)


class Filled:
    """A store with events of a model."""

    def __init__(self, root: Path) -> None:
        self.store, self.count = EventStore(root), 0

    def add(
        self, raw: NDArray[Any], truth: list[str], share: float = 1.0, groups: list[str | None] | None = None
    ) -> None:
        ids = [f"{self.count + number}" for number in range(len(raw))]
        writer = self.store.open_writer("pets", sample_share=share)
        probabilities = np.full((len(raw), 2), 0.5, np.float32)
        add_classified(
            writer,
            ids,
            version="pets:v1",
            raw=raw,
            labels=["cat"] * len(raw),
            probabilities=probabilities,
            time_us=1_700_000_000_000_000 + self.count * _MINUTE,
            groups=groups,
        )
        writer.close()
        self.store.add_labels("pets", ids, truth)
        self.count += len(raw)

    def window(self, **changes: Any) -> LabelledWindow:
        settings: dict[str, Any] = {"model": "pets", "held_out": 0.3, "most": 1000, **changes}
        servable = make_raw_servable(IMAGES, labels=LABELS)
        return select_labelled_window(self.store.joined("pets", samples=True), servable, **settings)


@pytest.fixture
def events(tmp_path: Path) -> Filled:
    return Filled(tmp_path)


def test_samples_come_as_they_were_sent(events: Filled) -> None:
    raw = images(4)
    events.add(raw[:2], ["cat", "dog"])
    events.add(raw[2:], ["dog", "dog"])
    found = events.window()
    assert np.array_equal(found.samples, raw)
    assert found.samples[0].dtype == np.uint8
    assert found.labels == ["cat", "dog", "dog", "dog"]
    assert (found.since, found.until) == ("2023-11-14T22:13:20.000Z", "2023-11-14T22:15:20.000Z")
    assert found.summarize_window()["samples"] == 4
    assert events.window(model="others").labelled == 4


def test_facts_of_photos_are_those_that_were_sent(tmp_path: Path) -> None:
    photos = ImageEncoder((1, 2, 2), "uint8", True, 10_000, (0.0,), (1.0,), DECODE_VERSION)
    store, servable = EventStore(tmp_path), make_raw_servable(photos, labels=LABELS)
    sent = [encode_photo(width) for width in range(10, 50)]
    writer = store.open_writer("pets", sample_share=1.0)
    ids = [str(number) for number in range(len(sent))]
    subject = EventSubject("pets:v1", ImageSummary(), servable.task_type, servable.names, "test")
    writer.add_events(
        ids, subject=subject, samples=servable.pack_samples(sent), predictions=None, latency_ms=0.0, outcome="ok"
    )
    writer.close()
    store.add_labels("pets", ids, ["cat"] * len(sent))
    found = select_labelled_window(store.joined("pets", samples=True), servable, model="pets", held_out=0.3, most=1000)
    # Samples that are equal after the resize count once.
    assert 0 < len(found) <= len(sent)
    assert set(found.facts["width"]) <= set(range(10, 50))
    assert found.facts["height"].tolist() == (2 * found.facts["width"]).tolist()
    assert len(found.select_held_out_facts()["width"]) == found.held_out.sum()


def encode_photo(width: int) -> bytes:
    pixels = np.random.default_rng(width).integers(0, 256, (2 * width, width), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_what_can_not_be_learned_from_is_left_out_and_counted(events: Filled) -> None:
    raw = images(3)
    events.add(raw, ["cat", "bird", "dog"])
    events.add(images(2, seed=1), ["cat", "cat"], share=0.0)
    events.add(np.zeros((1, 1, 3, 3), np.uint8), ["cat"])
    events.add(np.full((1, 1, 2, 2), 0.5, np.float32), ["cat"])
    events.add(np.full((1, 1, 2, 2), 7.0, np.float32), ["dog"])  # whole numbers, though they are floats
    found = events.window()
    assert found.labels == ["cat", "dog", "dog"]
    assert np.array_equal(found.samples[2], np.full((1, 2, 2), 7, np.uint8))
    assert found.labelled == 8
    assert found.left_out == {
        "without a sample": 2,
        "a sample that the model does not take": 2,
        "a label that the model does not have": 1,
    }


def test_an_input_counts_once_with_its_latest_label(events: Filled) -> None:
    raw = images(3)
    events.add(raw, ["cat", "cat", "cat"])
    events.add(raw[1:2], ["dog"])
    found = events.window()
    assert len(found) == 3
    assert found.left_out == {"seen before": 1}
    assert found.labels[-1] == "dog"  # seen last
    assert np.array_equal(found.samples[-1], raw[1])


def test_what_an_earlier_window_holds_does_not_count_again(events: Filled, tmp_path: Path) -> None:
    raw = images(6)
    events.add(raw[:4], ["cat", "cat", "dog", "dog"])
    first = events.window()
    write_window_digests(tmp_path / "window", first.digests)
    earlier = read_window_digests([tmp_path / "window", tmp_path / "without"])
    assert len(earlier) == 4
    # The same events again, copies of two of them, one of which has another label, and two that are new.
    events.add(raw[:2], ["cat", "dog"])
    events.add(raw[4:], ["dog", "cat"])
    second = events.window(earlier=earlier)
    assert np.array_equal(second.samples, raw[[1, 4, 5]])
    assert second.labels == ["dog", "dog", "cat"]
    assert second.left_out == {"in the window of an earlier version": 3, "seen before": 2}
    assert not set(second.digests.tolist()) & earlier
    # Its latest label is the one that an earlier version has learned.
    events.add(raw[1:2], ["cat"])
    assert np.array_equal(events.window(earlier=earlier).samples, raw[4:])


def test_the_latest_are_taken(events: Filled) -> None:
    raw = images(5)
    events.add(raw, ["cat"] * 5)
    events.add(images(5, seed=2), ["dog"] * 5)
    found = events.window(most=5)
    assert found.labels == ["dog"] * 5
    assert found.left_out == {"older than the latest": 5}


def test_what_a_user_sends_again_nearly_the_same_is_on_one_side(events: Filled) -> None:
    raw = np.repeat(images(50), 10, axis=0)
    raw[:, 0, 0, 0] = np.tile(np.arange(10, dtype=np.uint8), 50)
    events.add(raw, ["cat"] * 500, groups=[f"user {number // 10}" for number in range(500)])
    window = events.window()
    sides = window.held_out.reshape(50, 10)
    assert (sides == sides[:, :1]).all()
    assert 0.1 < sides[:, 0].mean() < 0.5
    # For the gate: users are compared, not their samples.
    found = window.select_held_out_facts()["group"]
    assert len(found) == window.held_out.sum() == 10 * len(np.unique(found))


def test_a_sample_never_changes_sides(events: Filled) -> None:
    raw = images(500)
    events.add(raw, ["cat"] * 500)
    first = events.window()
    assert 0.2 < first.held_out.mean() < 0.4
    sides = {sample.tobytes(): side for sample, side in zip(first.samples, first.held_out, strict=True)}
    events.add(np.concatenate([images(300, seed=9), raw[::-1]]), ["dog"] * 800)
    later = events.window()
    assert len(later) > len(first)
    known = [(sides[sample.tobytes()], side) for sample, side in zip(later.samples, later.held_out, strict=True)
             if sample.tobytes() in sides]  # fmt: skip
    assert len(known) == len(sides)
    assert all(before == now for before, now in known)
    # A larger share takes from the other side, and gives nothing back.
    more = events.window(held_out=0.6)
    assert more.held_out[later.held_out].all()
    assert more.held_out.sum() > later.held_out.sum()
    # Another model has other sides.
    assert (events.window(model="x").held_out != later.held_out).any()


def test_nothing_is_a_window_too(events: Filled) -> None:
    found = events.window()
    assert (len(found), found.samples, found.since) == (0, [], "")
    assert found.summarize_window()["held_out"] == 0


def test_the_parts_of_a_window_and_its_summary() -> None:
    window = LabelledWindow(
        samples=["a", "b", "c"],
        labels=[1, 2, 3],
        held_out=np.array([False, True, False]),
        since="2026-01-01",
        until="2026-01-02",
        labelled=6,
        left_out={"seen before": 3},
        new_categories={"city": {"Oslo": 2}},
        facts={"width": np.array([1.0, 2.0, 3.0])},
    )
    assert window.select_part(is_held_out=True) == (["b"], [2])
    assert window.select_part(is_held_out=False) == (["a", "c"], [1, 3])
    assert window.select_held_out_facts()["width"].tolist() == [2]
    assert len(window.digests) == 0
    assert window.summarize_window() == {
        "since": "2026-01-01",
        "until": "2026-01-02",
        "labelled": 6,
        "samples": 3,
        "train": 2,
        "held_out": 1,
        "left_out": {"seen before": 3},
        "new_categories": {"city": {"Oslo": 2}},
    }
