"""A mapping in YAML: each form of an entry, and its mistakes, all at once and with what was meant."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from mlscale.errors import MLScaleError
from mlscale.events.foreign.event_mapping import (
    AbsentFieldError,
    EventMapping,
    MappedField,
    TimeParser,
    find_time_zone,
    find_value,
    parse_mapping,
    read_mapping,
)

RECORD = {
    "time": "2026-01-05T10:00:00Z",
    "input.age": 40,
    "a.b": {"c": [1, {"d": 2}]},
    "text": '{"x": [5, 6]}',
    "line": "1, 2,three",
    "nothing": None,
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("time", "2026-01-05T10:00:00Z"), ("input.age", 40), ("a.b.c.0", 1), ("a.b.c.-1.d", 2), ("text.x.1", 6),
        ("line.2", "three"), ("nothing", None),
    ],
)  # fmt: skip
def test_a_path_finds_its_value(path: str, value: object) -> None:
    assert find_value(RECORD, path) == value


@pytest.mark.parametrize("path", ["tim", "a.b.c.2", "a.b.c.x", "text.y", "input.age.0", "line.7", "nothing.x"])
def test_a_path_that_is_not_there_is_absent(path: str) -> None:
    with pytest.raises(AbsentFieldError):
        find_value(RECORD, path)


def parse(text: str) -> EventMapping:
    return parse_mapping(yaml.safe_load(text), "m.yaml")


def test_all_forms_of_an_entry() -> None:
    mapping = parse("""
time: {field: when, format: '%d.%m.%Y %H:%M', zone: Europe/Berlin}
prediction: {field: p, threshold: 0.5}
version: {constant: m:v1}
latency: {field: took, unit: s}
outcome: {field: code, ok: [200, 201], failed: 500}
label: {field: y, values: {1: spam, 0: ham}}
inputs: {age: input.age, income: {field: a.b.c.0, scale: 0.001}, city: {constant: Rome}}
""")
    assert mapping.fields["version"].read_value({}) == "m:v1"
    assert mapping.fields["latency"].read_value({"took": "0.25"}) == 250.0
    assert mapping.fields["label"].read_value({"y": "1"}) == "spam"
    assert mapping.fields["label"].read_value({"y": 0}) == "ham"
    assert mapping.outcomes == {"200": "ok", "201": "ok", "500": "failed"}
    assert mapping.threshold == 0.5
    values = {name: entry.read_value(RECORD) for name, entry in mapping.inputs.items()}
    assert values == {"age": 40, "income": 0.001, "city": "Rome"}
    # Berlin is an hour ahead of UTC in winter.
    expected = datetime(2026, 1, 5, 9, 30, tzinfo=UTC).timestamp() * 1e6
    assert mapping.times.parse_time("05.01.2026 10:30") == expected
    assert mapping.list_paths()["inputs.income"] == "a.b.c.0"


def test_what_is_not_a_number_can_not_be_scaled() -> None:
    with pytest.raises(ValueError, match="is not a number"):
        MappedField("p", scale=2.0).read_value({"p": "x"})
    assert MappedField("p", scale=2.0).read_value({"p": None}) is None


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("time: t", "the mapping has no 'prediction'"),
        ("prediction: p", "the mapping has no 'time'"),
        ("time: t\nprediction: p\nlabell: y", "unknown key 'labell'"),
        ("time: {field: t, formt: iso}\nprediction: p", "unknown key 'time.formt'"),
        ("time: {field: t, zone: Europe/Berln}\nprediction: p", "'Europe/Berln' is not a time zone"),
        ("time: {field: t, format: german}\nprediction: p", "time.format is 'german'"),
        ("time: t\nprediction: {field: p, constant: 1}", "'prediction' needs a field or a constant"),
        ("time: t\nprediction: {}", "'prediction' needs a field or a constant"),
        ("time: t\nprediction: {field: p, threshold: x}", "prediction.threshold is not a number"),
        ("time: t\nprediction: p\nlatency: {field: l, unit: min}", "latency.unit is 'min'"),
        ("time: t\nprediction: p\ninputs: age", "'inputs' has no names"),
        ("time: t\nprediction: p\ninputs: {age: {field: a, scale: x}}", "'inputs.age.scale' is not a number"),
        ("- time", "the mapping has no 'time'"),
    ],
)
def test_mistakes_are_errors_with_a_fix(text: str, what: str) -> None:
    with pytest.raises(MLScaleError) as caught:
        parse(text)
    assert what in str(caught.value)
    assert caught.value.exit == 2
    assert "fix:" in str(caught.value)


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(MLScaleError) as caught:
        parse("tiem: t\nprediction: {field: p, treshold: 1}")
    for what in ("unknown key 'tiem'", "no 'time'", "unknown key 'prediction.treshold'"):
        assert what in str(caught.value)


def test_a_mapping_that_can_not_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mapping.yaml").write_text("time: t\nprediction: p\n")
    assert read_mapping(tmp_path / "mapping.yaml").list_paths() == {"time": "t", "prediction": "p"}
    with pytest.raises(MLScaleError, match="No such file or directory"):
        read_mapping(tmp_path / "maping.yaml")
    (tmp_path / "mapping.yaml").write_text("time: [")
    with pytest.raises(MLScaleError, match="can't read the mapping"):
        read_mapping(tmp_path / "mapping.yaml")


SECONDS = datetime(2026, 1, 5, 10, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("value", "form", "zone"),
    [
        ("2026-01-05T10:00:00Z", "auto", "UTC"),
        ("2026-01-05 11:00:00+01:00", "iso", "UTC"),
        ("2026-01-05 10:00:00", "auto", "UTC"),
        ("2026-01-05 19:00:00", "auto", "Asia/Tokyo"),
        (SECONDS, "auto", "UTC"),
        (SECONDS * 1e3, "auto", "UTC"),
        (int(SECONDS) * 10**6, "auto", "UTC"),
        (str(int(SECONDS) * 10**9), "auto", "UTC"),
        (str(int(SECONDS) * 10**3), "auto", "UTC"),
        (str(int(SECONDS)), "auto", "UTC"),
        ("20260105T100000", "auto", "UTC"),
        (str(SECONDS), "s", "UTC"),
        (datetime(2026, 1, 5, 10), "auto", "UTC"),
        ("20260105-100000", "%Y%m%d-%H%M%S", "UTC"),
    ],
)
def test_times_are_read_in_the_forms_of_servers(value: object, form: str, zone: str) -> None:
    assert TimeParser(form, find_time_zone(zone)).parse_time(value) == SECONDS * 1e6


@pytest.mark.parametrize(
    ("value", "form"),
    [("soon", "auto"), (None, "auto"), (True, "auto"), ("nan", "auto"), (-5, "auto"), ("1e300", "s"), ("5", "%Y-%m")],
)
def test_what_is_no_time_is_an_error(value: object, form: str) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        TimeParser(form).parse_time(value)
