"""Events of every task type, from packed samples to columns that any tool reads."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mlscale.data.encoders.encoder import join_samples
from mlscale.events.segments import list_segments
from mlscale.events.store import EventStore
from mlscale.export.event_subject import build_event_subject
from mlscale.export.servable import load
from tests.contract.test_servable import STORED
from tests.task_servables import build_examples, get_task_servable, operators_parsed_once
from tests.unit.predict.test_loaded_model import GetServable

__all__ = ["get_task_servable", "operators_parsed_once"]


@pytest.mark.parametrize("name", list(build_examples()))
def test_every_type_has_events(name: str, get_task_servable: GetServable, tmp_path: Path) -> None:
    servable, raw = get_task_servable(name), build_examples()[name].draw(np.random.default_rng(3), 6)
    subject, store = build_event_subject(servable, "m:v1", "serve"), EventStore(tmp_path)
    writer = store.open_writer("m", sample_share=1.0)
    # As a server: requests of one and of several samples, in one flush.
    for rows in (slice(0, 1), slice(1, 6)):
        packed = servable.pack_samples(raw[rows])
        predictions = servable.task_type.build_predictions(servable.compute_samples(packed), servable.labels)
        samples = join_samples([packed])
        ids = [f"{rows.start + number}" for number in range(samples.size)]
        writer.add_events(ids, subject=subject, samples=samples, predictions=predictions)
    writer.add_events(["6"], subject=subject, outcome="rejected")
    writer.close()
    assert (writer.written, writer.problem) == (7, "")
    events = store.read("m", samples=True)
    assert events.id.tolist() == [f"{number}" for number in range(7)]
    packed = servable.pack_samples(raw)
    expected = servable.task_type.build_predictions(servable.compute_samples(packed), servable.labels)
    assert events.predictions[:6] == json.loads(
        json.dumps(servable.task_type.express_as_labels(expected, servable.names))
    )
    assert events.predictions[6] is None
    for columns, found in (
        (subject.summary.summarize_samples(packed), events.inputs),
        (servable.task_type.summarize_outputs(expected, servable.names), events.outputs),
    ):
        assert columns
        assert set(columns) == set(found)
        for column, values in columns.items():
            if isinstance(values, list):
                assert found[column].tolist() == [*values, None]
            else:
                np.testing.assert_allclose(found[column], [*values, np.nan], rtol=1e-5, atol=1e-6)
    assert len(events.where(events.has_sample).samples()) == 6
    (segment,) = list_segments(tmp_path / "m" / "events")
    assert {"list", "struct"} & {str(type_).partition("<")[0] for type_ in pq.read_schema(segment.path).types} == set()


def test_a_servable_of_format_1_has_the_columns_of_its_profile(tmp_path: Path) -> None:
    servable = load(STORED)
    subject = build_event_subject(servable, "digits:v1", "serve")
    packed = servable.pack_samples([np.full((1, 8, 8), 7, np.uint8)])
    assert {name: float(values[0]) for name, values in subject.summary.summarize_samples(packed).items()} == {  # type: ignore[arg-type]
        "mean_0": 7.0,
        "std_0": 0.0,
    }
