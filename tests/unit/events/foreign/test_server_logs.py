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


def batch(server: str, record: dict[str, Any]) -> dict[str, Any]:
    """Return a request of this server with a second sample, of class 1."""
    made: dict[str, Any] = json.loads(json.dumps(record))
    if server == "SageMaker":
        made["captureData"]["endpointInput"]["data"] += "\nBiscoe,47.5,5000,male\n"
        made["captureData"]["endpointOutput"]["data"] += "\n1.0\n"
    elif server == "MLServer":
        for tensor, value in zip(made["inputs"], ("Biscoe", 47.5, 5000, "male"), strict=True):
            tensor["data"].append(value)
        made["outputs"][0]["data"].append(1)
    elif server == "KServe":
        other = dict(zip(PENGUIN, ("Biscoe", 47.5, 5000, "male"), strict=True))
        made |= {
            "request": json.dumps({"instances": [PENGUIN, other]}),
            "response": json.dumps({"predictions": [2, 1]}),
        }
    return made


@pytest.mark.parametrize(
    ("server", "record"),
    [("SageMaker", SAGEMAKER), ("MLServer", MLSERVER), ("KServe", KSERVE), ("BentoML", BENTOML)],
    ids=["sagemaker", "mlserver", "kserve", "bentoml"],
)
def test_the_mapping_of_the_docs_fits_the_servers_log(tmp_path: Path, server: str, record: dict[str, Any]) -> None:
    path = tmp_path / "log.jsonl"
    has_batches = server != "BentoML"
    path.write_text(json.dumps(record) + "\n" + json.dumps(batch(server, record)) * has_batches)
    (row,) = re.findall(rf"^ *\| {server} \| `(\S+)` \| `(\S+)` \| `(\S+)`", DOCS.read_text(), re.MULTILINE)
    time, prediction, inputs = row
    names = [column.name for column in penguins().columns]
    paths = {name: inputs.replace("<name>", name).replace("<n>", str(n)) for n, name in enumerate(names)}
    text = yaml.safe_dump({"time": time, "prediction": prediction, "inputs": paths})
    report, events, _ = convert(converter(text), tmp_path, path)
    assert (report.rows, report.describe_losses()) == (3 if has_batches else 1, "")
    assert set(events.time.tolist()) == {BEGIN.replace(tzinfo=None)}
    assert events.label.tolist() == ["Gentoo", "Gentoo", "Chinstrap"][: report.rows]
    assert {name: events.inputs[name][0] for name in PENGUIN} == PENGUIN
    assert events.inputs["island"].tolist() == ["Dream", "Dream", "Biscoe"][: report.rows]


def test_samples_of_a_request_have_ids_and_labels_and_a_torn_request_is_counted(tmp_path: Path) -> None:
    mapping = "{time: t, prediction: answer.*, id: id, label: truth.*.name, probabilities: shares.*}"
    share = {"Gentoo": 0.7, "Adelie": 0.2, "Chinstrap": 0.1}
    requests: list[dict[str, Any]] = [
        {"id": "a", "answer": [2, 0], "truth": [{"name": "Gentoo"}, {}], "shares": [share, {**share, "x": 0}]},
        {"id": "b", "answer": [1, 1, 1], "truth": [{"name": "Adelie"}]},
        {"id": "a", "answer": [2], "shares": [[0, 0.1, 0.9]]},  # a retry with one of the samples
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps({"t": "2026-01-05", **request}) + "\n" for request in requests))
    report, events, labels = convert(converter(mapping), tmp_path, path)
    assert (events.id.tolist(), labels) == (["a.0"], {"a.0": "Gentoo"})
    assert events.outputs["confidence"].tolist() == pytest.approx([0.7])
    losses = report.describe_losses()
    assert (
        "by the prediction (sample 1 of line 1 of log.jsonl: probabilities are a number for each of 3 classes" in losses
    )
    assert "by the samples (line 2 of log.jsonl: answer.* has 3 samples and truth.*.name has 1 samples)" in losses
    assert (report.rows, report.repeated) == (4, 1)
