"""What is written is what is read; what is torn or foreign is skipped and counted."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlscale.errors import MLScaleError
from mlscale.events.segments import list_segments
from mlscale.events.store import EventStore
from tests.event_writing import add_classified

START = datetime(2026, 1, 5, 23, 59, 59, tzinfo=UTC)
MICROSECONDS = int(START.timestamp()) * 1_000_000


def fill(store: EventStore, count: int, *, version: str = "resnet:v7", first: int = 0, share: float = 0.0) -> None:
    """One segment of `count` events, a second apart."""
    writer = store.open_writer("resnet", sample_share=share)
    rng = np.random.default_rng(first)
    for n in range(first, first + count):
        probabilities = rng.dirichlet(np.ones(3), 1).astype(np.float32)
        add_classified(
            writer,
            [f"id-{n}"],
            version=version,
            raw=np.full((1, 2, 4, 4), [[[n]], [[2 * n]]], np.uint8),
            labels=["abc"[probabilities.argmax()]],
            probabilities=probabilities,
            latency_ms=n / 10,
            time_us=MICROSECONDS + n * 1_000_000,
        )
    writer.close()
    assert (writer.written, writer.dropped, writer.problem) == (count, 0, "")


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    store = EventStore(tmp_path / "events")
    fill(store, 5)
    events = store.read("resnet")
    assert len(events) == 5
    assert events.skipped == 0
    assert events.id.tolist() == [f"id-{n}" for n in range(5)]
    assert events.time[1] == np.datetime64("2026-01-06T00:00:00")
    assert set(events.version) == {"resnet:v7"}
    np.testing.assert_array_equal(events.inputs["mean_0"], np.arange(5))
    np.testing.assert_array_equal(events.inputs["mean_1"], 2 * np.arange(5))
    np.testing.assert_array_equal(events.inputs["std_1"], np.zeros(5))
    assert set(events.outputs) == {"label", "confidence"}
    assert events.label.tolist() == events.predictions
    assert set(events.source) == {"test"}
    np.testing.assert_allclose(events.latency_ms, np.arange(5) / 10)
    assert events.outcome.tolist() == ["ok"] * 5
    assert not events.has_sample.any()
    assert store.list_models() == ["resnet"]
    (segment,) = list_segments(tmp_path / "events" / "resnet" / "events")
    assert segment.path.parent.name == "2026-01-05"
    assert segment.path.stat().st_mode & 0o077 == 0


def test_a_store_that_is_not_there_is_empty(tmp_path: Path) -> None:
    store = EventStore(tmp_path / "none")
    assert len(store.read("resnet")) == len(store.joined("resnet")) == 0
    assert store.read("resnet").inputs == {}
    assert store.read_labels_by_id("resnet") == {}
    assert list(tmp_path.iterdir()) == []


def test_a_window_and_a_version(tmp_path: Path) -> None:
    store = EventStore(tmp_path)
    fill(store, 10)
    fill(store, 10, first=10, version="resnet:v8")
    since, until = START + timedelta(seconds=8), START + timedelta(seconds=12)
    assert store.read("resnet", since=since, until=until).id.tolist() == ["id-8", "id-9", "id-10", "id-11"]
    assert store.read("resnet", since=since.replace(tzinfo=None), version="resnet:v7").id.tolist() == ["id-8", "id-9"]
    assert store.read("resnet", last=3).id.tolist() == ["id-17", "id-18", "id-19"]
    assert store.read("resnet", last=12, until=until).id.tolist() == [f"id-{n}" for n in range(12)]
    assert len(store.read("resnet", last=12, version="resnet:v8")) == 10
    assert len(store.read("other")) == 0


def test_the_latest_of_several_writers_that_overlap(tmp_path: Path) -> None:
    store = EventStore(tmp_path)
    writers = [store.open_writer("resnet") for _ in range(3)]
    for n in range(60):
        add_classified(writers[n % 3], [f"id-{n}"], version="v", outcome="failed", time_us=MICROSECONDS + n * 1_000)
        if n % 7 == 0:
            writers[n % 2].flush()
    for writer in writers:
        writer.close()
    assert store.read("resnet", last=10).id.tolist() == [f"id-{n}" for n in range(50, 60)]
    assert len(store.read("resnet")) == 60


def test_samples_are_kept_by_share_and_only_read_when_asked_for(tmp_path: Path) -> None:
    store = EventStore(tmp_path)
    fill(store, 200, share=0.25)
    assert not store.read("resnet").has_sample.any()
    events = store.read("resnet", samples=True)
    kept = events.where(events.has_sample)
    assert 25 < len(kept) < 75
    samples = np.asarray(kept.samples())
    assert samples.dtype == np.uint8
    assert samples.shape[1:] == (2, 4, 4)
    np.testing.assert_array_equal(samples[:, 0, 0, 0], [int(id_[3:]) for id_ in kept.id])
    with pytest.raises(ValueError, match="not every event has a sample"):
        events.samples()


def test_rejected_and_failed_have_no_prediction(tmp_path: Path) -> None:
    store = EventStore(tmp_path)
    fill(store, 2)
    writer = store.open_writer("resnet")
    add_classified(writer, ["a"], version="resnet:v7", outcome="rejected", time_us=MICROSECONDS + 10**7)
    add_classified(
        writer,
        ["b"],
        version="resnet:v7",
        outcome="failed",
        raw=np.ones((1, 3), np.float32),
        time_us=MICROSECONDS + 10**8,
    )
    writer.close()
    events = store.read("resnet")
    assert events.outcome.tolist() == ["ok", "ok", "rejected", "failed"]
    assert events.label[2:].tolist() == events.predictions[2:] == [None, None]
    assert np.isnan(events.confidence[2:]).all()
    assert np.isnan(events.inputs["mean_1"][2])
    assert np.isfinite(events.inputs["mean_1"][3])
    assert len(events.select_answered()) == 2
    assert len(events.where(events.outcome == "ok").table) == 2


def test_labels_join_by_id_and_the_later_one_wins(tmp_path: Path) -> None:
    store = EventStore(tmp_path)
    fill(store, 4)
    store.add_labels("resnet", ["id-1", "id-2", "unknown"], ["a", "b", "c"])
    store.add_labels("resnet", ["id-1"], ["c"])
    store.add_labels("resnet", ["id-2"], ["a"], times=[datetime(2020, 1, 1)])
    store.add_labels("resnet", [], [])
    assert store.read_labels_by_id("resnet") == {"id-1": "c", "id-2": "b", "unknown": "c"}
    joined = store.joined("resnet")
    assert dict(zip(joined.id, joined.truth, strict=True)) == {"id-1": "c", "id-2": "b"}
    assert len(store.joined("resnet", last=2)) == 1


def test_torn_and_foreign_files_are_skipped_and_counted(tmp_path: Path) -> None:
    store = EventStore(tmp_path)
    fill(store, 3)
    fill(store, 3, first=3)
    whole, torn = (each.path for each in list_segments(tmp_path / "resnet" / "events"))
    content = torn.read_bytes()
    day = whole.parent
    (day / "notes.txt").write_text("not ours, not counted")
    (day / ".aside-20260105T235959000000-1.abc-1.parquet-1").write_bytes(content[:100])
    for cut in (0, 4, len(content) // 2, len(content) - 1):
        torn.write_bytes(content[:cut])
        events = store.read("resnet")
        assert events.id.tolist() == ["id-0", "id-1", "id-2"]
        assert events.skipped == len(events.problems) == 1
    pq.write_table(pa.table({"id": ["x"]}), torn)
    assert store.read("resnet").skipped == 1
    later = pq.read_table(whole).replace_schema_metadata({"mlscale": '{"format": "mlscale/event/3"}'})
    pq.write_table(later, torn)
    assert "later mlscale" in store.read("resnet").problems[0]
    torn.unlink()
    torn.mkdir()
    assert store.read("resnet").skipped == 1


@pytest.mark.parametrize("at", range(0, 2200, 61))
def test_a_flipped_byte_harms_no_other_segment(tmp_path: Path, at: int) -> None:
    store = EventStore(tmp_path)
    fill(store, 3)
    fill(store, 3, first=3)
    path = list_segments(tmp_path / "resnet" / "events")[-1].path
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 0xFF
    path.write_bytes(content)
    events = store.read("resnet", samples=True)
    assert events.id[:3].tolist() == ["id-0", "id-1", "id-2"]
    assert len(events) in (3, 6)


def test_a_folder_that_cant_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MLScaleError, match="can't write events"):
        EventStore(tmp_path / "file").add_labels("resnet", ["a"], ["b"])
