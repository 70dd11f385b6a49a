"""Drift of columns: false alarms, power, cycles, the quality of data, and the words for them."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.stats import false_discovery_control, ks_2samp

from mlscale.monitor.drift import ColumnDrift, DriftLimits, SeasonalReference, compare_columns
from mlscale.monitor.drift.category_tests import compare_category_column
from mlscale.monitor.drift.number_tests import compare_number_column
from mlscale.reference.column_sketch import ColumnSketch, build_category_sketch, build_number_sketch

UNKNOWN = np.zeros(0, "datetime64[us]")
MINUTES = np.datetime64("2026-01-05", "us") + np.arange(10_000).astype("timedelta64[s]")
Table = NDArray[np.float64]


def draw(random: np.random.Generator, n: int, rho: float = 0.0, columns: int = 10) -> Table:
    noise = random.normal(size=(n, columns))
    noise[1:] *= np.sqrt(1 - rho**2)
    return np.asarray(lfilter([1], [1, -rho], noise, axis=0))


def sketch(table: Table) -> list[ColumnSketch]:
    return [build_number_sketch(f"input.c{c}", "inputs", table[:, c], "°C") for c in range(table.shape[1])]


def columns(table: Table) -> dict[str, Any]:
    return {f"input.c{c}": table[:, c] for c in range(table.shape[1])}


def compare(sketches: list[ColumnSketch], table: Table, **more: Any) -> tuple[ColumnDrift, ...]:
    return compare_columns(sketches, columns(table), more.pop("times", UNKNOWN), DriftLimits(), **more)


def detected(results: tuple[ColumnDrift, ...]) -> list[str]:
    return [result.name for result in results if result.is_detected]


@pytest.mark.parametrize("rho", [0.0, 0.8, 0.95])
@pytest.mark.parametrize("n", [100, 1000])
def test_clean_windows_are_quiet(n: int, rho: float) -> None:
    """One percent of the looks is allowed; 5 of 40 have a chance of less than 1 in 10,000 then."""
    random = np.random.default_rng(n)
    reference = sketch(draw(random, 3000))
    assert sum(bool(detected(compare(reference, draw(random, n, rho)))) for _ in range(40)) < 5


def test_an_autocorrelated_reference_is_less_certain() -> None:
    random = np.random.default_rng(0)
    false = [bool(detected(compare(sketch(draw(random, 2000, 0.8)), draw(random, 1000, 0.8)))) for _ in range(25)]
    assert sum(false) < 4


@pytest.mark.parametrize("n", [1000, 10_000])
def test_a_small_shift_is_detected_and_is_no_alert(n: int) -> None:
    random = np.random.default_rng(n)
    reference, table = sketch(draw(random, 10_000)), draw(random, n)
    table[:, 3] += 0.2
    results = compare(reference, table)
    assert detected(results) == ["input.c3"]
    (found,) = (result for result in results if result.is_detected)
    assert found.shift == pytest.approx(0.2, abs=0.1)
    assert 0.05 < found.distance < 0.13


def test_more_extreme_values_are_detected_and_named() -> None:
    random = np.random.default_rng(0)
    reference, table = sketch(draw(random, 10_000)), draw(random, 10_000)
    table[random.permutation(10_000)[:100], 2] = 3.3  # 1 % of the values, inside the range
    results = compare(reference, table)
    assert detected(results) == ["input.c2"]
    (found,) = (result for result in results if result.is_detected)
    assert found.kind == "tails"
    assert found.format_change().startswith("c2 has more extreme values (2.0 % → 2.")
    table[:, 2] = np.where(table[:, 2] == 3.3, 9, table[:, 2])
    assert compare(reference, table)[0].format_change() == "c2 is out of the reference's range in 1.0 %, q < 1e-9"


def test_a_shift_is_one_finding_with_direction_and_size() -> None:
    random = np.random.default_rng(1)
    reference, table = sketch(draw(random, 2000) * 2 + 20), draw(random, 1000) * 2 + 20
    table[:, 0] -= 2
    results = [result for result in compare(reference, table) if result.is_detected]
    assert [result.kind for result in results] == ["distribution"]
    words = results[0].format_change()
    assert words.startswith(f"c0 lower by {abs(results[0].shift):.2g} σ (19.9 → 17.")
    assert words.endswith(" °C), q < 1e-9")


def test_distances_are_those_of_scipy() -> None:
    random = np.random.default_rng(np.random.SeedSequence().entropy)
    for _ in range(50):
        m, n = random.integers(2, 400, 2)
        digits = int(random.integers(0, 8))
        reference = random.normal(size=m).round(digits)
        sample = (random.normal(size=n) * random.uniform(0.5, 2) + random.normal()).round(digits)
        window, _ = compare_number_column(build_number_sketch("input.a", "inputs", reference), sample, "a")
        assert window is not None
        assert window.distance == pytest.approx(ks_2samp(reference, sample).statistic, abs=1e-12)


def test_the_false_discovery_rate_is_over_all_columns() -> None:
    random = np.random.default_rng(3)
    reference, table = sketch(draw(random, 2000)), draw(random, 500) + 0.1
    results = [result for result in compare(reference, table) if result.kind == "distribution"]
    assert [result.q for result in results] == pytest.approx(
        false_discovery_control([result.p for result in results]), rel=1e-9
    )


def test_a_stuck_column_comes_first() -> None:
    random = np.random.default_rng(0)
    reference, table = sketch(draw(random, 1000)), draw(random, 300)
    table[:, 5], table[:, 0] = 0.3, table[:, 0] + 3
    results = compare(reference, table)
    assert results[0].format_change() == "c5 is constant (0.3), q < 1e-9"
    constant = np.random.default_rng(0).normal(size=(1000, 1)) * 0
    assert not detected(compare(sketch(constant), constant[:100]))


def test_missing_values() -> None:
    random = np.random.default_rng(0)
    table = draw(random, 1000)
    table[::20, 1] = np.nan  # 5 % are missing as ever
    reference = sketch(table)
    later = draw(random, 500)
    later[::20, 1] = np.nan
    assert not detected(compare(reference, later))
    later[::5, 1] = np.nan
    assert compare(reference, later)[0].format_change().startswith("c1 is missing in 20 %, 5.0 % before, q ")
    later[:, 1] = np.nan
    assert [(result.kind, result.now) for result in compare(reference, later) if result.is_detected] == [("missing", 1)]


def test_absent_columns_and_other_types() -> None:
    random = np.random.default_rng(0)
    reference, table = sketch(draw(random, 1000, columns=3)), columns(draw(random, 300, columns=3))
    table["input.c1"] = np.array(["text"] * 300, object)
    del table["input.c2"]
    results = compare_columns(reference, table, UNKNOWN, DriftLimits())
    assert [result.kind for result in results] == ["type", "type", "distribution"]
    assert results[0].format_change() == "c1 is absent or of another type, q < 1e-9"


def city(random: np.random.Generator, n: int, shares: tuple[float, ...] = (0.5, 0.3, 0.2)) -> NDArray[np.object_]:
    return random.choice(np.array(["Rome", "Oslo", "Bern", "Kyiv"][: len(shares)], object), n, p=shares)


def test_categories() -> None:
    random = np.random.default_rng(0)
    reference: list[ColumnSketch] = [build_category_sketch("input.city", "inputs", city(random, 2000).tolist())]

    def look(values: NDArray[np.object_]) -> list[str]:
        results = compare_columns(reference, {"input.city": values}, UNKNOWN, DriftLimits())
        return [result.format_change().partition(", q")[0] for result in results if result.is_detected]

    assert sum(bool(look(city(random, 500))) for _ in range(40)) < 4
    assert look(city(random, 500, (0.3, 0.5, 0.2)))[0].startswith("city share of 'Oslo' higher (29 % → ")
    found = look(city(random, 500, (0.49, 0.29, 0.19, 0.03)))
    assert found[0].startswith("city has the new category 'Kyiv' (")
    missing = city(random, 500)
    missing[:100] = None
    assert look(missing) == ["city is missing in 20 %, 0 % before"]
    # Persistent: half of the events of one source, but only 25 changes.
    assert sum(bool(look(np.repeat(city(random, 25), 20))) for _ in range(20)) < 3


def cycle(random: np.random.Generator, hours: Table) -> Table:
    phase = np.arange(10) * 2
    daily = np.sin(2 * np.pi * hours[:, None] / 24 + phase)
    return np.asarray(daily + 0.7 * (hours[:, None] % 168 >= 120) + random.normal(size=(len(hours), 10)))


def draw_hours(random: np.random.Generator, end: float, span: float, n: int = 500) -> Table:
    return cycle(random, np.sort(random.uniform(end - span, end, n)))


def test_before_a_week_a_cycle_is_not_reported_from_drift() -> None:
    random = np.random.default_rng(0)
    reference = sketch(cycle(random, random.uniform(0, 168 * 4, 5000)))
    results = [compare(reference, draw_hours(random, end, 3), times=MINUTES[:500]) for end in range(800, 900, 7)]
    assert not any(map(detected, results))
    assert all(any(result.may_be_cycle for result in look) for look in results)
    gross = draw_hours(random, 800, 3)
    gross[:, 2] += 4
    assert "input.c2" in detected(compare(reference, gross, times=MINUTES[:500]))


def test_with_a_week_of_events_windows_are_compared_with_the_same_hours() -> None:
    random = np.random.default_rng(0)
    reference = sketch(cycle(random, random.uniform(0, 168 * 4, 5000)))

    def look(end: float, shift: float) -> list[str]:
        earlier = np.concatenate([draw_hours(random, end - 168 * week, 3) for week in (2, 1)])
        week = np.concatenate([draw_hours(random, end - 6 * block, 3, 100) for block in range(28, 0, -1)])
        table = draw_hours(random, end, 3)
        table[:, 7] += shift
        season = SeasonalReference(columns(earlier), columns(week))
        return detected(compare(reference, table, times=MINUTES[:500], seasonal=season))

    assert sum(bool(look(end, 0)) for end in range(800, 900, 10)) < 3
    assert sum("input.c7" in look(end, 1) for end in range(800, 900, 10)) > 4


def test_a_shift_within_the_cycle_of_a_day_is_found_by_the_hours_of_earlier_weeks() -> None:
    random = np.random.default_rng(5)
    start = np.datetime64("2026-01-05", "us")
    learned = random.normal(size=4000) + np.sin(np.linspace(0, 200, 4000))
    reference = [build_number_sketch("input.a", "inputs", learned, is_ordered=False)]

    def draw_day(shift: float) -> tuple[Any, Any]:
        hours = np.sort(random.uniform(0, 24, 400))
        values = shift + 1.2 * np.sin(hours * np.pi / 12) + 0.6 * random.normal(size=400)
        return values, start + (hours * 3.6e9).astype("timedelta64[us]")

    def look(shift: float, *, with_times: bool) -> list[str]:
        days = [draw_day(0) for _ in range(3)]
        hours, times = (np.concatenate(part) for part in zip(*days, strict=True))
        week = np.concatenate([draw_day(0)[0] for _ in range(7)])
        season = SeasonalReference({"input.a": hours}, {"input.a": week}, times[: len(times) * with_times])
        now, at = draw_day(shift)
        return detected(compare_columns(reference, {"input.a": now}, at, DriftLimits(), season))

    assert [look(0.5, with_times=True) for _ in range(5)] == [["input.a"]] * 5
    assert [look(0.5, with_times=False) for _ in range(5)] == [[]] * 5
    assert sum(bool(look(0, with_times=True)) for _ in range(20)) <= 1


def test_the_peak_of_a_cycle_is_not_another_unit() -> None:
    random = np.random.default_rng(1)
    price = [build_number_sketch("input.a", "inputs", random.lognormal(3, 0.2, 4000), is_ordered=False)]
    hours, now = (random.lognormal(3, 0.2, 500) * 2.2 for _ in range(2))
    season = SeasonalReference({"input.a": hours}, {"input.a": random.lognormal(3, 0.2, 2000)})

    def look(values: Any, season: SeasonalReference | None) -> set[str]:
        results = compare_columns(price, {"input.a": values}, UNKNOWN, DriftLimits(), season)
        return {result.kind for result in results if result.is_detected}

    assert "unit" in look(now, None)
    assert look(now, season) == set()
    calm = SeasonalReference({"input.a": random.lognormal(3, 0.2, 500)}, {"input.a": random.lognormal(3, 0.2, 2000)})
    assert "unit" in look(now, calm)


def test_a_lasting_shift_is_detected_by_its_week() -> None:
    random = np.random.default_rng(0)
    reference, shifted = sketch(draw(random, 5000)), draw(random, 4000)
    shifted[:, 4] += 0.3
    season = SeasonalReference(columns(shifted[:1000]), columns(shifted[1000:3500]))
    results = compare(reference, shifted[3500:], times=MINUTES[:500], seasonal=season)
    assert detected(results) == ["input.c4"]


SPREAD = [build_number_sketch("input.a", "inputs", np.random.default_rng(0).normal(size=2000), is_ordered=False)]


def compare_in_season(now: Any, hours: Any, week: Any) -> ColumnDrift:
    season = SeasonalReference({"input.a": np.asarray(hours)}, {"input.a": np.asarray(week)})
    (result,) = compare_columns(SPREAD, {"input.a": np.asarray(now)}, UNKNOWN, DriftLimits(), season)
    return result


def get_p(reference: ColumnSketch, values: Table) -> float:
    (result,) = compare_columns([reference], {"input.a": values}, UNKNOWN, DriftLimits())
    return result.p


def test_a_window_is_tested_against_its_hours_and_its_week_against_the_reference() -> None:
    random = np.random.default_rng(1)
    hours, week = random.normal(size=400), random.normal(size=300) + 0.15
    like_hours = build_number_sketch("input.a", "inputs", hours)
    # Unlike its hours: four fifths of the budget. 'Before' is the median of the hours.
    now = random.normal(size=300) + 0.4
    found = compare_in_season(now, hours, week)
    assert found.p == pytest.approx(get_p(like_hours, now) / 0.8)
    assert found.before == np.median(hours)
    # Like its hours, and a week that is unlike the reference: a fifth.
    later = np.random.default_rng(2).permutation(hours) + 0.5
    found = compare_in_season(later, hours + 0.5, week + 0.3)
    assert found.p == pytest.approx(get_p(SPREAD[0], week + 0.3) / 0.2)
    assert found.now == np.median(week + 0.3)
    # Like the reference: an incident of the earlier weeks makes the difference, and no drift.
    found = compare_in_season(random.normal(size=300), hours + 3, random.normal(size=300))
    assert (found.p, found.is_detected, found.before) == (1, False, np.median(hours + 3))
    # Nothing has changed since: a p-value is at most 1.
    found = compare_in_season(later, later, np.random.default_rng(0).normal(size=2000))
    assert (found.p, found.now) == (1, np.median(later))


def test_a_column_without_earlier_events_is_compared_with_the_reference() -> None:
    now, earlier = np.random.default_rng(1).normal(size=200) + 1, np.random.default_rng(2).normal(size=200)
    for hours, week in (({}, {}), ({"input.a": earlier}, {}), ({}, {"input.a": earlier})):
        (found,) = compare_columns(SPREAD, {"input.a": now}, UNKNOWN, DriftLimits(), SeasonalReference(hours, week))
        assert found.p == get_p(SPREAD[0], now)
    season = SeasonalReference({"input.a": earlier}, {"input.a": earlier})
    (found,) = compare_columns(SPREAD, {}, UNKNOWN, DriftLimits(), season)
    assert found.kind == "type"


def test_categories_have_seasons() -> None:
    random = np.random.default_rng(0)
    reference: list[ColumnSketch] = [build_category_sketch("input.a", "inputs", city(random, 2000).tolist())]
    earlier = city(random, 500, (0.2, 0.6, 0.2))
    season = SeasonalReference({"input.a": earlier}, {"input.a": city(random, 500)})
    for shares, is_detected in (((0.2, 0.6, 0.2), False), ((0.2, 0.2, 0.6), True)):
        now = city(random, 500, shares)
        results = compare_columns(reference, {"input.a": now}, UNKNOWN, DriftLimits(), season)
        assert bool(detected(results)) == is_detected
    assert results[0].before == np.mean(earlier == results[0].category)


@pytest.mark.parametrize("is_week", [False, True])
@pytest.mark.parametrize("missing", [np.full(200, np.nan), np.zeros(0), np.array(["x"] * 200, object)])
def test_without_earlier_values_a_window_is_compared_with_the_reference(is_week: bool, missing: Any) -> None:
    if is_week or missing.dtype != object:
        now, earlier = np.random.default_rng(1).normal(size=200) + 1, np.random.default_rng(2).normal(size=200)
        found = compare_in_season(now, *((earlier, missing) if is_week else (missing, earlier)))
        assert found.p == get_p(SPREAD[0], now)
        assert found.is_detected


def test_the_quality_of_the_data_comes_first_the_worst_of_a_kind_before_others() -> None:
    random = np.random.default_rng(0)
    table = draw(random, 1000, columns=6)
    later = columns(draw(random, 300, columns=6))
    for c, count in ((0, 30), (1, 90), (2, 60)):
        later[f"input.c{c}"][:count] = np.nan
    later["input.c3"] = np.full(300, 0.5)
    later["input.c4"] = later["input.c4"].astype(np.int64)
    del later["input.c5"]
    labels = {"input.c5": "height"}
    results = compare_columns(sketch(table), later, UNKNOWN, DriftLimits(), labels=labels)
    assert [(result.kind, result.label) for result in results] == [
        ("type", "height"),
        ("constant", "c3"),
        ("missing", "c1"),
        ("missing", "c2"),
        ("missing", "c0"),
        ("rounded", "c4"),
        *(("distribution", f"c{c}") for c in range(5)),
    ]
    absent = results[0]
    assert (absent.before, absent.now, absent.distance, absent.p, absent.q, absent.effective) == (0, 1, 1, 0, 0, 0)


def test_numbers_in_a_column_of_categories_are_another_type() -> None:
    cities: list[ColumnSketch] = [build_category_sketch("input.a", "inputs", ["x", "y"])]
    given: list[tuple[Any, list[str]]] = [(np.arange(3), ["type"]), (np.array(["x"], object), [])]
    for values, kinds in given:
        results = compare_columns(cities, {"input.a": values}, UNKNOWN, DriftLimits(fdr=0))
        assert [result.kind for result in results if result.kind == "type"] == kinds


def test_a_q_value_is_that_of_a_column_by_this_result_alone() -> None:
    random = np.random.default_rng(0)
    reference, table = sketch(draw(random, 1000, columns=5)), draw(random, 300, columns=5)
    for c in (0, 1, 2):
        table[: 3 + c, c] = 9  # out of range, and no other distribution
    table[:, 3] += 0.1
    results = [*compare_columns(reference, columns(table), UNKNOWN, DriftLimits(fdr=1))]
    smallest = [min(result.p for result in results if result.name == f"input.c{c}") for c in range(5)]
    assert sum(result.kind == "range" for result in results) >= 3
    for result in results:
        c = int(result.name[-1])
        alone = [*smallest[:c], result.p, *smallest[c + 1 :]]
        assert result.q == pytest.approx(false_discovery_control(alone)[c])
        assert result.is_significant


def test_no_events_are_no_drift() -> None:
    assert compare(sketch(draw(np.random.default_rng(0), 100)), np.zeros((0, 10))) == ()


@pytest.mark.parametrize(("others", "is_held_back"), [(0, False), (99, True)])
def test_what_a_cycle_explains_is_by_the_rate_of_each_column(others: int, is_held_back: bool) -> None:
    random = np.random.default_rng(0)
    table, later = draw(random, 400, columns=1 + others), draw(random, 60, columns=1 + others)
    # 44 of 60 are in the upper twentieth: by a daily cycle, eight twentieths may be.
    later[:, 0] = random.permutation(np.append(np.linspace(1.9, 2.2, 44), np.linspace(0, 1, 16)))
    (found,) = (result for result in compare(sketch(table), later, times=MINUTES[:60]) if result.name == "input.c0")
    assert found.is_significant
    assert found.may_be_cycle == is_held_back
    assert found.is_detected != is_held_back


def test_what_is_not_significant_or_broken_needs_no_cycle() -> None:
    random = np.random.default_rng(0)
    table, later = draw(random, 400, columns=3), draw(random, 100, columns=3)
    later[:, 1] = 0.5
    later[:30, 2] = np.nan
    results = compare(sketch(table), later, times=MINUTES[:100])
    assert {result.kind for result in results} == {"constant", "missing", "distribution"}
    assert not any(result.may_be_cycle for result in results if result.name != "input.c1")
    assert [result.may_be_cycle for result in results if result.kind == "constant"] == [False]


@pytest.mark.parametrize(("q", "text"), [(0.0, "< 1e-9"), (9e-10, "< 1e-9"), (1e-9, "= 1e-09"), (0.0123, "= 0.012")])
def test_the_q_value_in_words(q: float, text: str) -> None:
    from dataclasses import replace

    result = compare(sketch(draw(np.random.default_rng(0), 300)), draw(np.random.default_rng(1), 100))[0]
    assert replace(result, q=q).format_change().endswith(f", q {text}")


def test_a_column_without_a_week_is_held_back_next_to_others_that_have_one() -> None:
    random = np.random.default_rng(3)
    reference, table = sketch(draw(random, 2000, columns=2)), draw(random, 300, columns=2) + 0.6
    earlier = {"input.c0": random.normal(size=1500)}
    season = SeasonalReference(earlier, earlier)
    found, held = compare(reference, table, times=MINUTES[:300], seasonal=season)
    assert (found.is_detected, held.is_detected, held.may_be_cycle) == (True, False, True)
    # Of another version, whose column has numbers where this one has texts.
    texts = {"input.c0": np.array(["a", "b"] * 200, object)}
    (found, _) = compare(reference, table, times=UNKNOWN, seasonal=SeasonalReference(texts, texts))
    assert found.is_detected
    (held, _) = compare(reference, table, times=MINUTES[:300], seasonal=SeasonalReference(texts, texts))
    assert held.may_be_cycle


def test_a_reference_of_unknown_order_may_remember_as_much_as_its_window() -> None:
    """An export does not know the order of its samples: of 200 such columns 9 to 16 of numbers and 48 to 57 of classes
    had p < .05 when each sample of the reference counted as independent."""
    random, names = np.random.default_rng(1), np.array(["a", "b", "c"], object)
    smallest: dict[str, list[float]] = {"number": [], "class": []}
    for _ in range(200):
        before, now = np.split(draw(random, 10_200, 0.9, 1)[200:, 0], 2)
        number = build_number_sketch("input.c0", "inputs", before, is_ordered=False)
        kinds = [names[np.searchsorted([-0.5, 0.5], values)] for values in (before, now)]
        category = build_category_sketch("input.kind", "inputs", kinds[0].tolist(), is_ordered=False)
        smallest["number"].append(compare_number_column(number, now, "c0")[1][-1].p)
        smallest["class"].append(compare_category_column(category, kinds[1], "kind")[1][-1].p)
    assert {kind: sum(p < 0.05 for p in values) <= 10 for kind, values in smallest.items()} == {
        "number": True,
        "class": True,
    }
