"""Mappings of the docs fit the logs of four servers."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.made_servables import PENGUIN
from tests.unit.events.foreign.foreign_logs import BEGIN, convert, converter, penguins

DOCS = Path(__file__).parents[4] / "docs" / "monitor.md"
SAGEMAKER = {
    "captureData": {
        "endpointInput": {"mode": "INPUT", "data": "Dream,39.5,3800,female", "encoding": "CSV"},
        "endpointOutput": {"mode": "OUTPUT", "data": "2.0", "encoding": "CSV"},
    },
    "eventMetadata": {"eventId": "6ea5007f", "inferenceTime": "2026-01-05T10:00:00Z"},
    "eventVersion": "0",
}  # fmt: skip


MLSERVER = {
    "time": "2026-01-05T10:00:00.000Z", "id": "a1", "model_name": "m", "model_version": "1",
    "inputs": [{"name": name, "datatype": "BYTES", "shape": [1], "data": [value]} for name, value in PENGUIN.items()],
    "outputs": [{"name": "predict", "datatype": "INT64", "shape": [1], "data": [2]}],
}  # fmt: skip


BENTOML = {"timestamp": "2026-01-05T10:00:00", "request_id": "17", **PENGUIN, "pred": "Gentoo"}


KSERVE = {
    "ce-id": "b7", "ce-time": "2026-01-05T10:00:00Z", "request": json.dumps({"instances": [PENGUIN]}),
    "response": json.dumps({"predictions": [2]}),
}  # fmt: skip


@pytest.mark.parametrize(
    ("server", "record"),
    [("SageMaker", SAGEMAKER), ("MLServer", MLSERVER), ("KServe", KSERVE), ("BentoML", BENTOML)],
    ids=["sagemaker", "mlserver", "kserve", "bentoml"],
)
def test_the_mapping_of_the_docs_fits_the_servers_log(tmp_path: Path, server: str, record: dict[str, Any]) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(record) + "\n")
    (row,) = re.findall(rf"^ *\| {server} \| `(\S+)` \| `(\S+)` \| `(\S+)`", DOCS.read_text(), re.MULTILINE)
    time, prediction, inputs = row
    names = [column.name for column in penguins().columns]
    paths = {name: inputs.replace("<name>", name).replace("<n>", str(n)) for n, name in enumerate(names)}
    text = yaml.safe_dump({"time": time, "prediction": prediction, "inputs": paths})
    report, events, _ = convert(converter(text), tmp_path, path)
    assert report.describe_losses() == ""
    assert events.time.tolist() == [BEGIN.replace(tzinfo=None)]
    assert events.label.tolist() == ["Gentoo"]
    assert {name: events.inputs[name][0] for name in PENGUIN} == PENGUIN
