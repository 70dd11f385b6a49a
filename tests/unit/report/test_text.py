"""Tables and numbers as people read them."""

import pytest

from mlscale.report import format_duration, format_key_values, format_number, format_size, format_table
from mlscale.report.curves import build_run_plots
from mlscale.report.text import format_metric, format_metric_name, format_percent, format_size_change, measure_width


def test_table() -> None:
    assert format_table([("a", 1, None), ("long", 22.5, "x\ny")], ("name", "n", "what")).splitlines() == [
        "name     n  what",
        "────  ────  ────",
        "a        1  -",
        "long  22.5  x y",
    ]
    assert format_table([]) == ""
    assert format_table([("a",), ("b", "c")]) == "a\nb  c"


def test_table_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    lines = format_table([("id", "x" * 100), ("ab", "日本" * 40)], ("a", "b")).splitlines()
    assert max(map(measure_width, lines)) <= 40
    assert all(line.endswith("…") for line in lines[2:])
    assert format_table([("id", "x" * 50)], width=1000).endswith("x" * 50)


def test_key_values_keep_paths_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    path = "/a" * 100
    assert format_key_values([("run", path), ("x", None), ("two", "a\nb")]) == f"run  {path}\nx    -\ntwo  a\n     b"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.99172, "0.9917"), (1437, "1,437"), (2.0, "2"), (0.000012, "1.2e-05"), (123456.7, "123,457"),
     (float("nan"), "nan"), (0, "0"), (-0.5, "-0.5"), (True, "True")],
)  # fmt: skip
def test_number(value: float, text: str) -> None:
    assert format_number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 ms"), (0.0124, "12 ms"), (0.9996, "1.0 s"), (3.44, "3.4 s"), (59.96, "1 min 00 s"), (125, "2 min 05 s"),
     (3599.7, "1 h 00 min"), (4020, "1 h 07 min"), (86399, "1 d 00 h"), (273600, "3 d 04 h"), (-2, "-2.0 s"),
     (float("inf"), "inf")],
)  # fmt: skip
def test_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (512, "512 B"),
        (1536, "1.5 KiB"),
        (1 << 20, "1.0 MiB"),
        (24 << 30, "24.0 GiB"),
        (1 << 50, "1024.0 TiB"),
    ],
)
def test_size(count: int, text: str) -> None:
    assert format_size(count) == text


def test_metric_by_its_unit() -> None:
    assert format_metric("time_s", 74.2) == "1 min 14 s"
    assert format_metric("peak_memory_bytes", 1 << 30) == "1.0 GiB"
    assert format_metric("latency_ms", 0.12631) == "0.1263 ms"
    assert format_metric("throughput_samples_per_s", 5120.0) == "5,120 samples/s"
    assert format_metric("cost_usd", 1234.5) == "$1,234.50"
    assert format_metric("cost_usd", float("nan")) == "unknown"
    assert format_metric("error_percent", 3) == "3 %"
    assert format_metric("age_days", 12) == "12 d"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("best_val/accuracy", "best val/accuracy"),
        ("throughput_samples_per_s", "throughput"),
        ("peak_memory_bytes", "peak memory"),
        ("time_s", "time"),
        ("latency_ms", "latency"),
        ("cost_usd", "cost"),
        ("error_percent", "error"),
        ("train/samples_per_s", "train/samples per s"),
        ("steps", "steps"),
    ],
)
def test_a_label_leaves_the_unit_to_the_value(name: str, shown: str) -> None:
    assert format_metric_name(name, "loadtest") == shown


@pytest.mark.parametrize("name", ["train_loss", "my_train_acc", "val_ex_ms", "Valid/F1_score", "val/macro_f1"])
def test_what_a_task_logs_keeps_its_name(name: str) -> None:
    assert [format_metric_name(name, command) for command in ("train", "evaluate")] == [name, name]
    assert format_metric_name(f"best_{name}") == f"best {name}"
    (plot,) = build_run_plots({name: [(0, 1.0), (1, 2.0)]}, "")
    assert plot.title in name
    assert plot.series[0].name == name


@pytest.mark.parametrize("name", ["throughput_samples_per_s", "time_s", "peak_memory_bytes", "padding_percent"])
def test_what_mlscale_measures_of_a_run_is_in_words(name: str) -> None:
    assert format_metric_name(name) == format_metric_name(name, "estimate") != name


@pytest.mark.parametrize(
    ("share", "decimals", "reported"),
    [
        (0.996, 1, "99.6%"),
        (1.0, 1, "100.0%"),
        (0.0, 2, "0.00%"),
        (0.9999, 1, "99.99%"),
        (0.99998, 2, "99.998%"),
        (0.0004, 1, "0.04%"),
        (0.004, 0, "0.4%"),
        (-0.00001, 2, "-0.001%"),
        (0.9999999999, 1, ">99.999999%"),
        (1e-12, 1, "<0.000001%"),
        (1.5, 0, "150%"),
        (float("nan"), 1, "nan"),
    ],
)
def test_what_is_not_all_never_reads_as_all(share: float, decimals: int, reported: str) -> None:
    assert format_percent(share, decimals) == reported


def test_a_percentage_with_a_sign_and_another_unit() -> None:
    assert format_percent(0.0123, 2, sign="+") == "+1.23%"
    assert format_percent(0.5, unit=" %") == "50.0 %"


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (3.04, "3.0× smaller"),
        (0.9, "1.1× larger"),
        (0.25, "4.0× larger"),
        (1.02, "of the same size"),
        (0.98, "of the same size"),
    ],
)
def test_a_change_of_size_has_its_direction(ratio: float, words: str) -> None:
    assert format_size_change(ratio) == words
