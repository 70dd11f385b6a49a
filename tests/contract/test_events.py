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

STORED = Path(__file__).parent / "examples" / "event-1"


def test_the_stored_events_still_read(tmp_path: Path) -> None:
    shutil.copytree(STORED, tmp_path / "events")
    store = EventStore(tmp_path / "events")
    events = store.read("digits", samples=True)
    assert events.skipped == 0
    assert events.id.tolist() == ["a-1", "a-2", "a-3", "a-4"]
    assert events.time[0] == np.datetime64("2026-01-05T10:11:12.123456")
    assert events.version.tolist() == ["digits:v1", "digits:v1", "digits:v2", "digits:v2"]
    assert events.label.tolist() == ["7", "6", "7", ""]
    assert events.predicted.tolist() == [7, 6, 7, -1]
    assert events.outcome.tolist() == ["ok", "ok", "ok", "rejected"]
    assert events.probabilities.shape == (4, 10)
    kept = events.where(events.has_sample)
    np.testing.assert_allclose(kept.samples().mean((2, 3)), kept.input_mean, rtol=1e-6)
    np.testing.assert_allclose(kept.samples().std((2, 3)), kept.input_std, rtol=1e-6)
    joined = store.joined("digits")
    assert dict(zip(joined.id, joined.truth, strict=True)) == {"a-1": "7", "a-2": "5"}


@pytest.mark.parametrize(("name", "folder"), [("event", "events"), ("label", "labels")])
def test_their_files_are_those_of_the_contract(name: str, folder: str) -> None:
    for segment in list_segments(STORED / "digits" / folder):
        found = describe_schema(pq.read_schema(segment.path))
        validate(name, found)
        assert found == read(STORED.with_name(f"{name}-1.json"))
    assert f"{name}-1" in {path.stem for path in EXAMPLES}


def test_what_is_written_validates(tmp_path: Path) -> None:
    store = EventStore(tmp_path)
    writer = store.open_writer("digits")
    writer.add_events(["a"], version="digits:v1", outcome="failed")
    writer.close()
    store.add_labels("digits", ["a"], ["7"])
    for name in SCHEMAS:
        (segment,) = list_segments(tmp_path / "digits" / f"{name}s")
        validate(name, describe_schema(pq.read_schema(segment.path)))
