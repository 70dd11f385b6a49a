"""The events and labels that this release wrote: every later one must read them, and find the same in them."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mlscale.events.segments import list_segments
from mlscale.events.store import EventStore
from mlscale.events.stream_schema import SCHEMAS, describe_schema
from tests.contract.test_documents import EXAMPLES, read, validate
from tests.event_writing import add_classified

STORED = Path(__file__).parent / "examples" / "event-1"
STORED_2 = STORED.with_name("event-2")


def test_the_stored_events_still_read(tmp_path: Path) -> None:
    shutil.copytree(STORED, tmp_path / "events")
    store = EventStore(tmp_path / "events")
    events = store.read("digits", samples=True)
    assert events.skipped == 0
    assert events.id.tolist() == ["a-1", "a-2", "a-3", "a-4"]
    assert events.time[0] == np.datetime64("2026-01-05T10:11:12.123456")
    assert events.version.tolist() == ["digits:v1", "digits:v1", "digits:v2", "digits:v2"]
    assert events.label.tolist() == ["7", "6", "7", None]
    assert events.predictions == ["7", "6", "7", None]
    assert events.outcome.tolist() == ["ok", "ok", "ok", "rejected"]
    assert list(events.inputs) == ["mean_0", "std_0"]
    assert np.isfinite(events.confidence).tolist() == [True, True, True, False]
    kept = events.where(events.has_sample)
    pixels = np.asarray(kept.samples())
    np.testing.assert_allclose(pixels.mean((1, 2, 3)), kept.inputs["mean_0"], rtol=1e-6)
    np.testing.assert_allclose(pixels.std((1, 2, 3)), kept.inputs["std_0"], rtol=1e-6)
    joined = store.joined("digits")
    assert dict(zip(joined.id, joined.truth, strict=True)) == {"a-1": "7", "a-2": "5"}


def test_the_stored_events_of_any_type_still_read(tmp_path: Path) -> None:
    shutil.copytree(STORED_2, tmp_path / "events")
    store = EventStore(tmp_path / "events")
    events = store.read("penguins", samples=True)
    assert events.skipped == 0
    assert events.outcome.tolist() == ["ok", "ok", "rejected"]
    assert events.source.tolist() == ["serve"] * 3
    np.testing.assert_array_equal(events.inputs["mass"], [4.5, np.nan, np.nan])
    assert events.inputs["island"].tolist() == ["Dream", "Torgersen", None]
    assert events.predictions == events.label.tolist() == ["Gentoo", "Adelie", None]
    assert events.where(events.has_sample).samples() == [
        {"mass": 4.5, "island": "Dream"},
        {"mass": None, "island": "Torgersen"},
    ]
    assert store.joined("penguins").truth.tolist() == ["Gentoo", "Gentoo"]


@pytest.mark.parametrize(("name", "folder"), [("event", "events"), ("label", "labels")])
@pytest.mark.parametrize(("stored", "model"), [(STORED, "digits"), (STORED_2, "penguins")])
def test_their_files_are_those_of_the_contract(name: str, folder: str, stored: Path, model: str) -> None:
    number = stored.name[-1]
    for segment in list_segments(stored / model / folder):
        found = describe_schema(pq.read_schema(segment.path))
        validate(name, found)
        assert found == read(STORED.with_name(f"{name}-{number}.json"))
    assert f"{name}-{number}" in {path.stem for path in EXAMPLES}


def test_what_is_written_validates(tmp_path: Path) -> None:
    store = EventStore(tmp_path)
    writer = store.open_writer("digits")
    add_classified(writer, ["a"], version="digits:v1", outcome="failed")
    writer.close()
    store.add_labels("digits", ["a"], ["7"])
    for name in SCHEMAS:
        (segment,) = list_segments(tmp_path / "digits" / f"{name}s")
        validate(name, describe_schema(pq.read_schema(segment.path)))
