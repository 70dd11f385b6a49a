"""Logs of other servers become events that the monitor reads: each form, with what can't be read counted and named."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml

from mlscale.data.encoders.encoder import Encoder
from mlscale.data.encoders.summaries.create_summary import create_summary
from mlscale.data.encoders.table_encoder import TableEncoder
from mlscale.data.encoders.text_encoder import TextEncoder
from mlscale.errors import MLScaleError
from mlscale.events.event_rows import EventSubject
from mlscale.events.event_table import Events
from mlscale.events.foreign.convert_log import LogConverter
from mlscale.events.foreign.event_mapping import parse_mapping
from mlscale.events.foreign.guess_mapping import guess_mapping
from mlscale.events.foreign.log_report import LogReport
from mlscale.events.store import EventStore
from mlscale.task_types.event_forms import AnswerNames, TargetColumn
from mlscale.task_types.registry import get_task_type
from tests.made_servables import PENGUIN, SPECIES, encode_images, encode_penguins
from tests.unit.events.foreign.test_log_files import write

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


@pytest.mark.parametrize("name", ["log.parquet", "log.csv", "log.jsonl"])
def test_each_format_gives_the_same_events_and_labels(tmp_path: Path, name: str) -> None:
    rows = log(12_000)
    report, events, labels = convert(converter(PLAIN + INPUTS), tmp_path, write(tmp_path / name, rows))
    assert (report.rows, report.events, report.labels, report.describe_losses()) == (12_000, 12_000, 6_000, "")
    assert len(events) == 12_000
    assert events.id[:2].tolist() == ["r0", "r1"]
    assert events.time[-1] == np.datetime64("2026-01-05T13:19:59")
    np.testing.assert_allclose(events.inputs["bill_length_mm"], [row["bill_length_mm"] for row in rows])
    assert set(events.inputs["island"].tolist()) == {"Dream"}
    assert events.outputs["label"][:3].tolist() == list(SPECIES)
    assert events.predictions[:3] == list(SPECIES)
    assert set(events.latency_ms.tolist()) == {5.0}
    assert (len(labels), labels["r1"]) == (6_000, "Adelie")
    assert set(events.version.tolist()) == {"m:v1"}
    assert report.newest == BEGIN + timedelta(seconds=11_999)


def test_windows_of_the_store_are_those_of_the_times_in_the_log(tmp_path: Path) -> None:
    """Rows need not be in the order of their times."""
    rows = log(12_000)
    np.random.default_rng(1).shuffle(rows)
    convert(converter(PLAIN), tmp_path, write(tmp_path / "log.parquet", rows))
    store = EventStore(tmp_path / "store")
    since, until = BEGIN + timedelta(seconds=1000), BEGIN + timedelta(seconds=5000)
    chosen = store.read("m", since=since, until=until, version="m:v1", last=100)
    assert chosen.id.tolist() == [f"r{n}" for n in range(4900, 5000)]
    assert store.read("m", last=3).id.tolist() == ["r11997", "r11998", "r11999"]


def test_what_can_not_be_read_is_counted_and_named(tmp_path: Path) -> None:
    rows = log(10)
    rows[1]["time"] = "soon"
    rows[2]["species"] = "Emperor"
    rows[3]["actual"] = "Emperor"
    rows[4]["body_mass_g"] = "heavy"
    rows[5]["latency"] = "fast"
    lines = [*map(json.dumps, rows), "{"]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    report, events, labels = convert(converter(PLAIN + INPUTS), tmp_path, tmp_path / "log.jsonl")
    counts = {"time": 1, "prediction": 1, "label": 1, "inputs": 1, "latency": 1, "line": 1}
    assert report.unreadable == counts
    # A label that can't be read is lost alone.
    assert (report.rows, report.events, len(events)) == (11, 6, 6)
    assert set(labels) == {"r7", "r9"}
    told = report.describe_losses()
    assert "1 row can't be read by the time (log.jsonl, row 2: 'soon' is not a time)" in told
    assert "log.jsonl, row 3: 'Emperor' is not a class" in told
    assert "log.jsonl, row 11: not an object of JSON" in told


def test_a_torn_row_of_csv_is_counted_and_named(tmp_path: Path) -> None:
    """The last line may be one that is being written."""
    lines = write(tmp_path / "log.csv", log(12_000)).read_text().splitlines()
    lines[5] += ",more"
    torn = tmp_path / "torn.csv"
    torn.write_text("\n".join(lines)[:-40])
    report, events, _ = convert(converter(PLAIN + INPUTS), tmp_path, torn)
    assert (report.rows, len(events), report.unreadable) == (12_000, 11_998, {"line": 2})
    why = "torn.csv, row 5: not as many values as the heading has columns"
    assert report.describe_losses() == f"2 rows can't be read by the line ({why})"
    # A row keeps its own number.
    assert events.id[[3, 4, -1]].tolist() == ["r3", "r5", "r11998"]


def test_versions_outcomes_and_early_rows(tmp_path: Path) -> None:
    rows = log(10)
    for row, version in zip(rows, ("1", "v1", "m:v1", "2", "2", 1, 1, 1, 1, 1), strict=True):
        row["model"] = version
        row["status"] = 200
    rows[6] |= {"status": 503, "species": None}
    rows[7] |= {"status": 422, "species": None}
    rows[8] |= {"status": 200, "species": None}
    mapping = PLAIN + "version: model\noutcome: status\n"
    path = write(tmp_path / "log.jsonl", rows)
    report, events, _ = convert(converter(mapping), tmp_path, path, start=BEGIN + timedelta(seconds=1))
    assert report.early == 1
    assert report.other_versions == {"2": 2}
    assert "2 rows of other versions: 2 (2)" in report.describe_losses()
    assert events.id.tolist() == ["r1", "r2", "r5", "r6", "r7", "r9"]
    assert events.outcome.tolist() == ["ok", "ok", "ok", "failed", "rejected", "ok"]
    assert report.unreadable == {"prediction": 1}


def test_columns_that_are_not_mapped_are_known(tmp_path: Path) -> None:
    made = converter(PLAIN + "inputs: {sex: sex}\n")
    names = ("input.sex", "input.island", "output.label", "output.confidence")
    assert [made.is_mapped(name) for name in names] == [True, False, True, False]
    _, events, _ = convert(made, tmp_path, write(tmp_path / "log.csv", log(5)))
    assert events.inputs["sex"].tolist() == ["female"] * 5
    assert all(converter("time: time\nprobabilities: p\n" + INPUTS).is_mapped(name) for name in names)
    pictures = converter("time: time\nprediction: p\n", encoder=encode_images())
    assert [pictures.is_mapped(name) for name in ("input.brightness", "output.label")] == [False, True]
    texts = converter("time: time\nprediction: p\ninputs: {text: t}\n", encoder=TextEncoder(24))
    assert texts.is_mapped("input.length")


@pytest.mark.parametrize(
    ("mapping", "given", "label", "confidence"),
    [
        ("prediction: p", {"p": "2"}, "Gentoo", None),
        ("prediction: p", {"p": 1.0}, "Chinstrap", None),
        ("{prediction: p, confidence: c}", {"p": "Adelie", "c": "0.75"}, "Adelie", 0.75),
        ("probabilities: p", {"p": [0.1, 0.7, 0.2]}, "Chinstrap", 0.7),
        ("probabilities: p", {"p": "0.1,0.2,0.7"}, "Gentoo", 0.7),
        ("{prediction: q, probabilities: p}", {"p": "[0.25, 0.25, 0.5]", "q": 0}, "Adelie", 0.5),
    ],
)
def test_predictions_of_a_class(
    tmp_path: Path, mapping: str, given: dict[str, Any], label: str, confidence: float | None
) -> None:
    entries = yaml.safe_dump({"time": "time", **yaml.safe_load(mapping)})
    _, events, _ = convert(converter(entries), tmp_path, write(tmp_path / "log.jsonl", [{"time": 1767607200, **given}]))
    assert events.label.tolist() == [label]
    assert events.confidence[0] == pytest.approx(confidence if confidence is not None else np.nan, nan_ok=True)


def test_a_threshold_chooses_one_of_two_classes(tmp_path: Path) -> None:
    names = AnswerNames(("no", "yes"))
    made = converter("time: t\nprediction: {field: p, threshold: 0.3, positive: 'yes'}", names=names)
    rows = [{"t": 1767607200, "p": share} for share in ("0.25", "0.5")]
    _, events, _ = convert(made, tmp_path, write(tmp_path / "log.jsonl", rows))
    assert events.label.tolist() == ["no", "yes"]
    assert events.confidence.tolist() == pytest.approx([0.75, 0.5])


@pytest.mark.parametrize(("entry", "field"), [("positive: ausfall, ", "p"), ("", "p_ausfall"), ("", "model.Ausfall.p")])
def test_the_positive_class_of_a_threshold_is_named_or_shown_by_the_field(
    tmp_path: Path, entry: str, field: str
) -> None:
    """The first class, too: the order of the classes says nothing about a log."""
    names = AnswerNames(("ausfall", "ok"))
    made = converter(f"time: t\nprediction: {{{entry}field: {field}, threshold: 0.5}}", names=names)
    rows = [{"t": 1767607200 + n, field: share} for n, share in enumerate(("0.25", "90%"))]
    _, events, _ = convert(made, tmp_path, write(tmp_path / "log.jsonl", rows))
    assert events.label.tolist() == ["ok", "ausfall"]
    assert events.confidence.tolist() == pytest.approx([0.75, 0.9])


@pytest.mark.parametrize(
    ("entry", "why"), [("", "nothing in 'p' shows it"), ("positive: okk, ", "'okk' is not a class")]
)
def test_a_threshold_without_a_positive_class_is_an_error(entry: str, why: str) -> None:
    with pytest.raises(MLScaleError, match="class whose probability is logged is not known") as caught:
        converter(f"time: t\nprediction: {{{entry}field: p, threshold: 0.5}}", names=AnswerNames(("ausfall", "ok")))
    assert why in caught.value.why
    assert caught.value.fix == "prediction: {field: p, threshold: 0.5, positive: 'ok'}"
    with pytest.raises(MLScaleError, match="chooses one of two classes"):
        converter("time: t\nprediction: {field: p, threshold: 0.5}")


def test_percent_are_numbers_and_a_confidence_over_one_is_refused(tmp_path: Path) -> None:
    rows = [{"t": 1767607200 + n, "p": "Adelie", "c": c} for n, c in enumerate(("99.90%", "99.90 %", "99.90", 0.5))]
    path = write(tmp_path / "log.jsonl", [{**row, "c": str(row["c"])} for row in rows])
    report, events, _ = convert(converter("{time: t, prediction: p, confidence: c}"), tmp_path, path)
    assert events.confidence.tolist() == pytest.approx([0.999, 0.999, 0.5])
    assert "99.9 is over 1; percent are read by confidence: {field: <column>, scale: 0.01}" in report.describe_losses()
    scaled = converter("{time: t, prediction: p, confidence: {field: c, scale: 0.01}}")
    _, events, _ = convert(scaled, tmp_path / "b", path)
    assert events.confidence.tolist() == pytest.approx([0.999, 0.999, 0.999, 0.005])


def test_numbers_and_lists_of_labels(tmp_path: Path) -> None:
    one = AnswerNames(targets=(TargetColumn("mass", "g"),))
    rows = [{"t": 1767607200 + n, "p": p, "y": "3.5", "i": n} for n, p in enumerate(("4.5", [5.5], 6))]
    plain = "time: t\nprediction: p\nlabel: y\nid: i\n"
    _, events, labels = convert(converter(plain, "regression", names=one), tmp_path, write(tmp_path / "1.jsonl", rows))
    assert events.outputs["value"].tolist() == [4.5, 5.5, 6.0]
    assert labels == {"0": 3.5, "1": 3.5, "2": 3.5}
    two = AnswerNames(targets=(TargetColumn("mass"), TargetColumn("age")))
    rows = [{"t": 1767607200, "p": [4.5, 2], "y": {"mass": 4, "age": 3}, "i": "a"}]
    made = converter(plain, "regression", names=two)
    _, events, labels = convert(made, tmp_path / "b", write(tmp_path / "2.jsonl", rows))
    assert (events.outputs["mass"].tolist(), events.outputs["age"].tolist()) == ([4.5], [2.0])
    assert labels == {"a": {"mass": 4.0, "age": 3.0}}
    rows = [{"t": 1767607200, "p": '["sea", "sand"]', "y": ["sky"], "i": "a"}]
    made = converter(plain, "multilabel", names=AnswerNames(("sea", "sky", "sand")))
    _, events, labels = convert(made, tmp_path / "c", write(tmp_path / "3.jsonl", rows))
    assert events.predictions == [["sea", "sand"]]
    assert (events.outputs["label_count"].tolist(), labels) == ([2.0], {"a": ["sky"]})


def test_texts_are_summarised_as_the_reference_is(tmp_path: Path) -> None:
    made = converter("time: t\nprediction: p\ninputs: {text: body.text}\n", encoder=TextEncoder(24))
    rows = [{"t": 1767607200, "p": 0, "body": {"text": "Hello 12"}}]
    _, events, _ = convert(made, tmp_path, write(tmp_path / "log.jsonl", rows))
    assert events.inputs["length"].tolist() == [8.0]
    assert events.inputs["digits"].tolist() == [0.25]


@pytest.mark.parametrize(
    ("mapping", "what", "fix"),
    [
        ("time: tiem\nprediction: species", "no column 'tiem' in log.csv", "time: time"),
        ("time: time\nprediction: species\nlabel: actuall", "no column 'actuall' in log.csv", "label: actual"),
        ("time: time\nprediction: species\ninputs: {sex: sexx}", "no column 'sexx' in log.csv", "inputs.sex: sex"),
    ],
)
@pytest.mark.parametrize("name", ["log.csv", "log.parquet", "log.jsonl"])
def test_a_column_that_is_not_there_is_an_error_that_lists_what_is(
    tmp_path: Path, mapping: str, what: str, fix: str, name: str
) -> None:
    with pytest.raises(MLScaleError) as caught:
        convert(converter(mapping), tmp_path, write(tmp_path / name, log(5)))
    assert caught.value.what == what.replace("log.csv", name)
    assert (caught.value.fix, caught.value.exit) == (fix, 2)
    assert "it has: time, id, island" in caught.value.why


def test_a_mapping_that_does_not_fit_the_model_is_an_error() -> None:
    with pytest.raises(MLScaleError, match="the model has no input 'bodymass'") as caught:
        converter(PLAIN + "inputs: {bodymass: x}")
    assert "body_mass_g" in caught.value.fix
    with pytest.raises(MLScaleError, match="takes neither rows nor texts"):
        converter(PLAIN + INPUTS, encoder=encode_images())
    with pytest.raises(MLScaleError, match="not read for the task type segmentation"):
        converter(PLAIN, "segmentation")


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


def test_files_of_a_folder_are_one_log(tmp_path: Path) -> None:
    files: Sequence[Path] = [write(tmp_path / f"{day}.csv", log(10)) for day in range(3)]
    report, events, _ = convert(converter("time: time\nprediction: species\n"), tmp_path, *files)
    assert (report.events, len(events), len(set(events.id.tolist()))) == (30, 30, 30)


def test_a_log_of_pandas_with_times_of_a_zone_is_read(tmp_path: Path) -> None:
    times = pa.array([BEGIN + timedelta(seconds=n) for n in range(3)], pa.timestamp("ns", tz="Asia/Tokyo"))
    table = pa.table({"time": times, "species": pa.array(SPECIES).dictionary_encode(), "extra": [[1], [2], []]})
    pyarrow.parquet.write_table(table, tmp_path / "log.parquet")
    _, events, _ = convert(converter("time: time\nprediction: species\n"), tmp_path, tmp_path / "log.parquet")
    assert events.time[0] == np.datetime64("2026-01-05T10:00:00")
    assert events.label.tolist() == list(SPECIES)
