"""A mapping is guessed from a log of another server: by its names, its values, and the names of the model."""

import json
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from mlscale.errors import MLScaleError
from mlscale.events.foreign.event_mapping import parse_mapping
from mlscale.events.foreign.guess_mapping import guess_mapping
from tests.made_servables import PENGUIN, SPECIES
from tests.unit.events.foreign.foreign_logs import BEGIN, convert, converter, penguins, write

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
    "record", [SAGEMAKER, MLSERVER, BENTOML, KSERVE], ids=["sagemaker", "mlserver", "bentoml", "kserve"]
)
def test_the_mapping_of_a_servers_log_is_guessed(tmp_path: Path, record: dict[str, Any]) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(record) + "\n")
    names = [column.name for column in penguins().columns]
    text = guess_mapping(path, names).text
    if "ce-time" in record:  # a name of its own
        text = text.replace("time: ???", "time: ce-time")
    report, events, _ = convert(converter(text), tmp_path, path)
    assert report.describe_losses() == ""
    assert events.time.tolist() == [BEGIN.replace(tzinfo=None)]
    assert events.label.tolist() == ["Gentoo"]
    assert {name: events.inputs[name][0] for name in PENGUIN} == PENGUIN


def test_a_guess_has_a_line_for_all_that_it_did_not_find(tmp_path: Path) -> None:
    rows = [{"when": "05.01.2026 10:00:00", "speed": 3, "y": 1, "no": 2, "elapsed": 0.2}]
    text = guess_mapping(write(tmp_path / "log.csv", rows), ["age", "speed"]).text
    document = yaml.safe_load(text)
    assert document["time"] == {"field": "when", "format": "%d.%m.%Y %H:%M:%S", "zone": "UTC"}
    assert document["prediction"] == "???"
    assert document["latency"] == {"field": "elapsed", "unit": "s"}
    assert document["label"] == "y"
    assert document["inputs"] == {"speed": "speed"}
    for line in ("# id: <column>", "  # age: <column>", "# not used: no"):
        assert line in text


def test_probabilities_in_one_text_are_guessed_as_such(tmp_path: Path) -> None:
    output, truth = {"data": "0.1,0.2,0.7", "encoding": "CSV"}, {"data": "Adelie", "encoding": "CSV"}
    record = {
        **SAGEMAKER,
        "captureData": {**cast(dict[str, object], SAGEMAKER["captureData"]), "endpointOutput": output},
    }
    path = write(tmp_path / "log.jsonl", [{**record, "groundTruthData": truth}])
    text = guess_mapping(path, [column.name for column in penguins().columns], SPECIES).text
    document = yaml.safe_load(text)
    assert document["probabilities"] == "captureData.endpointOutput.data"
    assert document["label"] == "groundTruthData.data"
    report, events, labels = convert(converter(text), tmp_path, path)
    assert (report.describe_losses(), events.label.tolist()) == ("", ["Gentoo"])
    assert list(labels.values()) == ["Adelie"]


def test_headers_of_another_language_are_guessed_by_values_and_names_of_the_model(tmp_path: Path) -> None:
    rows = [
        {
            "zeitpunkt": 1795700460020 + n,
            "ist_zustand": SPECIES[0] if n % 2 else None,
            "ergebnis": SPECIES[n % 3],
            "gewicht_stunden": 3.5 + n,
            "druck_bar": 2.5 + n,
        }
        for n in range(6)
    ]
    inputs = ["Gewicht Stunden", "Druck", "ort"]
    document = yaml.safe_load(guess_mapping(write(tmp_path / "log.csv", rows), inputs, SPECIES).text)
    assert {name: document[name] for name in ("time", "prediction", "label")} == {
        "time": "zeitpunkt",
        "prediction": "ergebnis",
        "label": "ist_zustand",
    }
    assert document["inputs"] == {"Gewicht Stunden": "gewicht_stunden", "Druck": "druck_bar"}


GERMAN = [
    {
        "Zeitpunkt": f"26.11.2026 18:{n:02}:11", "Vorgangs-Nr.": f"V{n}", "Modellversion": "2026-03",
        "Außentemp. [°C]": n,
        "Ampel (Vorhersage)": ("rot", "grün")[n % 2], "Sicherheit in %": 60.4,
        "Ist-Zustand": ("rot", "grün", None)[n % 3],
        "Dauer [ms]": 19, "Status": "Fehler" if n == 58 else "OK",
    }
    for n in range(59)
]  # fmt: skip


def test_columns_of_a_german_spreadsheet_are_guessed_with_what_their_values_need(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", GERMAN)
    guess = guess_mapping(path, ["Außentemp. [°C]"], ["Frost", "ok"], "heizung:v1")
    colours = {"rot": "???", "grün": "???"}
    assert yaml.safe_load(guess.text) == {
        "time": {"field": "Zeitpunkt", "format": "%d.%m.%Y %H:%M:%S", "zone": "UTC"},
        "prediction": {"field": "Ampel (Vorhersage)", "values": colours},
        "confidence": {"field": "Sicherheit in %", "scale": 0.01},
        "label": {"field": "Ist-Zustand", "values": colours},
        "id": "Vorgangs-Nr.",
        "version": {"field": "Modellversion", "values": {"2026-03": "heizung:v1"}},
        "outcome": {"field": "Status", "ok": ["OK"], "failed": ["Fehler"]},
        "latency": {"field": "Dauer [ms]", "unit": "ms"},
        "inputs": {"Außentemp. [°C]": "Außentemp. [°C]"},
    }
    assert guess.missing == ("prediction", "label")
    assert "# not used" not in guess.text
    with pytest.raises(MLScaleError, match=r"'prediction.values' has no class for grün, rot"):
        parse_mapping(yaml.safe_load(guess.text), "mapping.yaml")


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (["200", "503"], "outcome: status"),
        (["ok", "failed"], "outcome: status"),
        (["done", "kaputt"], "# outcome: {field: status, ok: [<value>], failed: [<value>]}   # it has: done, kaputt"),
    ],
)
def test_an_outcome_is_guessed_only_with_a_meaning_for_each_value(tmp_path: Path, values: list[str], line: str) -> None:
    rows = [{"time": 1795700460020 + n, "prediction": SPECIES[0], "status": values[n % 2]} for n in range(4)]
    assert line in guess_mapping(write(tmp_path / "log.csv", rows), [], SPECIES).text.splitlines()


def test_versions_of_several_names_are_left_to_a_person(tmp_path: Path) -> None:
    rows = [{"time": 1795700460020, "prediction": SPECIES[0], "version": f"2026-0{n}"} for n in range(3)]
    document = yaml.safe_load(guess_mapping(write(tmp_path / "log.csv", rows), [], SPECIES, "m:v1").text)
    assert "version" not in document


def test_a_list_of_probabilities_in_json_is_guessed_as_a_whole(tmp_path: Path) -> None:
    rows = [{"ts": "2026-01-05T10:00:00Z", "res": {"label": SPECIES[0], "scores": [0.7, 0.2, 0.1]}, "other": 1}]
    text = guess_mapping(write(tmp_path / "log.jsonl", rows), [], SPECIES).text
    assert yaml.safe_load(text)["probabilities"] == "res.scores"
    assert "# not used: other" in text.splitlines()


def test_the_truth_is_not_the_prediction_whatever_its_column_is_called(tmp_path: Path) -> None:
    # Classes in capitals and one that the model does not have: only the truth has exactly its names.
    rows = [
        {"Zeitpunkt": "2026-01-05 10:00:00", "Ergebnis": result, "Wahrheit": truth}
        for result, truth in (("GENTOO", "Gentoo"), ("ADELIE", "Adelie"), ("EMU", "Adelie"))
    ]
    text = guess_mapping(write(tmp_path / "log.csv", rows), [], SPECIES).text
    document = yaml.safe_load(text)
    values = {"GENTOO": "Gentoo", "ADELIE": "Adelie", "EMU": "???"}
    assert document["prediction"] == {"field": "Ergebnis", "values": values}
    assert document["label"] == "Wahrheit"


def test_names_of_the_classes_next_to_probabilities_are_not_the_prediction(tmp_path: Path) -> None:
    rows = [
        {"ts": 1767607200 + number, "response": {"classes": list(SPECIES), "scores": scores}, "truth": SPECIES[0]}
        for number, scores in enumerate(([0.1, 0.2, 0.7], [0.6, 0.2, 0.2]))
    ]
    document = yaml.safe_load(guess_mapping(write(tmp_path / "log.jsonl", rows), [], SPECIES).text)
    assert "prediction" not in document
    assert document["probabilities"] == "response.scores"
    assert document["label"] == "truth"
