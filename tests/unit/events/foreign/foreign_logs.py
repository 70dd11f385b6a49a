"""Logs of another server of penguins, and their conversion."""

import gzip
import json
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import yaml

from mlscale.data.encoders.encoder import Encoder
from mlscale.data.encoders.summaries.text_summary import create_summary
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.events.event_rows import EventSubject
from mlscale.events.event_table import Events
from mlscale.events.foreign.convert_log import LogConverter
from mlscale.events.foreign.event_mapping import parse_mapping
from mlscale.events.foreign.log_rows import LogReport
from mlscale.events.store import EventStore
from mlscale.task_types.event_forms import AnswerNames
from mlscale.task_types.registry import get_task_type
from tests.made_servables import PENGUIN, SPECIES, encode_penguins

BEGIN = datetime(2026, 1, 5, 10, tzinfo=UTC)


PLAIN = "time: time\nprediction: species\nlabel: actual\nid: id\nlatency: latency\n"


INPUTS = "inputs: {island: island, bill_length_mm: bill_length_mm, body_mass_g: body_mass_g, sex: sex}\n"


@cache
def penguins() -> TableEncoder:
    return encode_penguins()


def converter(
    mapping: str, task: str = "classification", encoder: Encoder | None = None, names: AnswerNames | None = None
) -> LogConverter:
    encoder = encoder or penguins()
    names = names or AnswerNames(SPECIES)
    subject = EventSubject("m:v1", create_summary(encoder), get_task_type(task), names, "log")
    return LogConverter(parse_mapping(yaml.safe_load(mapping), "m.yaml"), "m", subject, encoder, "m.yaml")


def convert(
    made: LogConverter, folder: Path, *files: Path, start: datetime | None = None
) -> tuple[LogReport, Events, dict[str, Any]]:
    store = EventStore(folder / "store")
    report = made.convert_files(files, store, start)
    return report, store.read("m"), store.read_labels_by_id("m")


def log(count: int, **more: Any) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {
            "time": (BEGIN + timedelta(seconds=n)).isoformat(),
            "id": f"r{n}",
            **PENGUIN,
            "bill_length_mm": float(rng.normal(40, 2)),
            "species": SPECIES[n % 3],
            "actual": SPECIES[0] if n % 2 else None,
            "latency": 5.0,
            **more,
        }
        for n in range(count)
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows in the format that the name has."""
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=5_000)
        return path
    if ".csv" in path.name:
        sink = pa.BufferOutputStream()
        pyarrow.csv.write_csv(pa.Table.from_pylist(rows), sink)
        content = sink.getvalue().to_pybytes()
    else:
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path
