"""Kinds of streams of events and of changes: what `bench_streams` draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.bench_drift import COLUMNS, draw_series, split_columns

Columns = dict[str, Any]
Hours = NDArray[np.float64]
Draw = Callable[[np.random.Generator, Hours], Columns]
Change = Callable[[np.random.Generator, Any], Any]
FIRST, SPEED, CLASS, CITY = "input.c0", "input.speed", "output.class", "input.city"


BEGIN = np.datetime64("2026-01-05", "us")  # hour 0


@dataclass(frozen=True)
class Kind:
    """A kind of stream, or of change.

    Attributes:
        name: in the table.
        draw: draws the columns of events at these hours.
        base: draws the reference; None: as `draw`.
        sizes: events of a window.
        samples: of the reference.
        weeks: of earlier events; None: the times are not known.
        span: hours of a window.
        is_later: the earlier events are those of another version: inputs alone.
        change: what happens to the values of a column, or to all columns.
        changed: the column; '' for all.
    """

    name: str
    draw: Draw
    base: Draw | None = None
    sizes: tuple[int, ...] = (1000,)
    samples: int = 10_000
    weeks: int | None = None
    span: float = 6.0
    is_later: bool = False
    change: Change | None = None
    changed: str = ""

    def draw_window(self, random: np.random.Generator, hours: Hours) -> Columns:
        """Draw the columns of a window, with the change."""
        window = self.draw(random, hours)
        if self.change is None:
            return window
        if not self.changed:
            return dict(self.change(random, window))
        return window | {self.changed: self.change(random, window[self.changed].copy())}

    def draw_earlier(self, random: np.random.Generator, end: float, n: int) -> Any:
        """Draw n events of the same hours of each of some earlier weeks, and the week before; None without weeks."""
        from mlscale.monitor.drift import SeasonalReference

        def draw_blocks(backs: list[int], span: float, count: int) -> tuple[Columns, Hours]:
            hours = [np.sort(random.uniform(end - b - span, end - b, count)) for b in backs]
            parts = [self.draw(random, block) for block in hours]
            names = (name for name in parts[0] if not self.is_later or name.startswith("input."))
            moved = np.concatenate([block + b for block, b in zip(hours, backs, strict=True)])
            return {name: np.concatenate([part[name] for part in parts]) for name in names}, moved

        same_hours, moved = draw_blocks([168 * week for week in range(self.weeks or 0, 0, -1)], self.span, n)
        times = BEGIN + (moved * 3.6e9).astype("timedelta64[us]")
        # As `read_earlier_events` does.
        week, _ = draw_blocks([6 * block for block in range(28, 0, -1)], 6.0, 357)
        return SeasonalReference(same_hours, week, times)


def draw_normal(random: np.random.Generator, hours: Hours, rho: float = 0.0, columns: int = COLUMNS) -> Columns:
    """Draw normal columns, autocorrelated by `rho`."""
    return split_columns(draw_series(random, len(hours), rho, columns))


def draw_long_memory(random: np.random.Generator, hours: Hours, d: float = 0.4) -> Columns:
    """Draw fractionally integrated noise, whose autocorrelations fall as lag^(2d - 1)."""
    from scipy.signal import fftconvolve

    lags = np.arange(1, 4 * len(hours))
    weights = np.cumprod(np.r_[1.0, (lags - 1 + d) / lags])
    noise = fftconvolve(random.normal(size=(5 * len(hours), COLUMNS)), weights[:, None], axes=0)
    return split_columns(noise[len(lags) + 1 : len(lags) + 1 + len(hours)] / np.sqrt(weights @ weights))


def draw_users(random: np.random.Generator, hours: Hours, users: int, burst: int = 1, known: bool = True) -> Columns:
    """Draw columns, half of whose variance is the user's own, in turns at random or in bursts."""
    groups = np.repeat(random.integers(0, users, -(-len(hours) // burst)), burst)[: len(hours)]
    columns = split_columns(np.sqrt(0.5) * (draw_series(random, users)[groups] + draw_series(random, len(hours))))
    return columns | ({"group": np.array([f"u{group}" for group in groups], object)} if known else {})


def draw_levels(random: np.random.Generator, hours: Hours, levels: int, power: float = 1.0, count: int = 3) -> Columns:
    """Draw categories whose shares fall with their rank."""
    shares, names = np.arange(1, levels + 1) ** -power, np.array([f"level {level}" for level in range(levels)], object)
    rows = (random.choice(levels, len(hours), p=shares / shares.sum()) for _ in range(count))
    return {f"input.c{column}": names[row] for column, row in enumerate(rows)}


def draw_table(random: np.random.Generator, hours: Hours) -> Columns:
    """Draw 17 numbers, a speed, a city of 500 and an answer of ten classes."""
    speed = {SPEED: np.maximum(0.0, random.normal(80, 20, len(hours)))}
    cities, classes = (draw_levels(random, hours, *of, 1)[FIRST] for of in ((500, 0.5), (10, 0.0)))
    return draw_normal(random, hours, columns=17) | speed | {CITY: cities, CLASS: classes}


def draw_with(transform: Change, random: np.random.Generator, hours: Hours) -> Columns:
    """Draw columns that are made of a table of independent normal numbers."""
    return split_columns(np.asarray(transform(random, draw_series(random, len(hours))), np.float64))


def draw_holes(random: np.random.Generator, hours: Hours, share: float) -> Columns:
    """Draw columns with missing values."""
    return draw_with(lambda _, table: np.where(random.random(table.shape) < share, np.nan, table), random, hours)


@cache
def summarize_sentences() -> Columns:
    """Return the columns of sentences of Python's docs, as a server summarises them; others gave the known words."""
    from mlscale.data.encoders.summaries.text_summary import TextSummary, WordTable
    from mlscale.data.encoders.text_encoder import TextEncoder
    from scripts.bench_document_drift import list_sentences

    texts = [sentence.encode() for sentence in list_sentences()]
    summary = TextSummary(WordTable.collect_words(texts[:1000]))
    columns = summary.summarize_samples(TextEncoder(200).pack_samples(texts[1000:]))
    return {f"input.{name}": np.asarray(values) for name, values in columns.items()}


def draw_texts(random: np.random.Generator, hours: Hours) -> Columns:
    """Draw sentences."""
    rows = random.integers(0, len(summarize_sentences()["input.length"]), len(hours))
    return {name: values[rows] for name, values in summarize_sentences().items()}


def draw_pictures(random: np.random.Generator, hours: Hours) -> Columns:
    """Draw pictures of a colour and noise, as a server summarises them."""
    from mlscale.data.encoders.encoder import EncodedSamples
    from mlscale.data.encoders.summaries.input_summary import ImageSummary

    colour, contrast = random.uniform(50, 200, (len(hours), 3, 1, 1)), random.gamma(4, 5, (len(hours), 1, 1, 1))
    pixels = np.clip(colour + contrast * random.normal(size=(len(hours), 3, 8, 8)), 0, 255).astype(np.uint8)
    columns = ImageSummary().summarize_samples(EncodedSamples({"image": pixels}, {}))
    return {f"input.{name}": np.asarray(values) for name, values in columns.items()}


def draw_cycles(random: np.random.Generator, hours: Hours) -> Columns:
    """Draw columns with a sine of a day and a step of .7 at weekends, as large as their noise."""
    daily = np.sin(2 * np.pi * hours[:, None] / 24 + np.linspace(0, 2 * np.pi, COLUMNS))
    weekend = 0.7 * ((hours[:, None] % 168) >= 120)
    return split_columns(daily + weekend + random.normal(size=(len(hours), COLUMNS)))


def list_clean_kinds() -> list[Kind]:
    """Return the kinds of stream in which nothing has changed."""
    normal, every = draw_normal, (100, 1000, 10_000)
    burst, many = partial(draw_users, users=10_000, burst=100), partial(draw_levels, levels=20_000)
    memories = [(rho, partial(draw_normal, rho=rho)) for rho in (0.5, 0.8, 0.95)]
    users = [(count, partial(draw_users, users=count)) for count in (20, 50, 100)]
    forms: list[tuple[str, Change]] = [
        ("t with 2 degrees", lambda random, table: random.standard_t(2, table.shape)),
        ("lognormal", lambda _, table: np.exp(table)),
        ("integers (Poisson, 5)", lambda random, table: random.poisson(5, table.shape)),
        ("rounded to .1", lambda _, table: np.round(table, 1)),
        ("95 % zeros", lambda random, table: table * (random.random(table.shape) < 0.05)),
        ("30 % missing", lambda random, table: np.where(random.random(table.shape) < 0.3, np.nan, table)),
    ]
    return [
        Kind("independent", normal, sizes=every),
        Kind("reference of 300", normal, samples=300, sizes=every[:2]),
        Kind("reference of 100,000", normal, samples=100_000, sizes=every[1:]),
        Kind("one column", partial(normal, columns=1)),
        Kind("200 columns", partial(normal, columns=200)),
        *(Kind(f"AR(1) {rho}", draw, normal, every) for rho, draw in memories),
        *(Kind(f"AR(1) {rho}, the reference, too", draw, sizes=every[1:]) for rho, draw in memories),
        Kind("long memory (d = .4)", draw_long_memory, normal),
        *(Kind(f"{count} users in turns, group known", draw, normal) for count, draw in users),
        *(Kind(f"{count} users in turns, group unknown", partial(draw, known=False), normal) for count, draw in users),
        Kind("bursts of 100, group known", burst, normal, every[1:]),
        Kind("bursts of 100, group unknown", partial(burst, known=False), normal, every[1:]),
        *(Kind(f"{k:,} categories (Zipf)", partial(many, levels=k), sizes=every) for k in (10, 200, 1000, 20_000)),
        Kind("20,000 categories, reference of 300", many, samples=300),
        *(Kind(name, partial(draw_with, transform)) for name, transform in forms),
        Kind("numbers, cities and classes", draw_table, sizes=every),
        Kind("texts (sentences)", draw_texts, sizes=every[:2], samples=2000),
        Kind("pictures", draw_pictures, samples=2000),
        Kind("first week", draw_table, weeks=0),
        Kind("first week of a later version", draw_table, weeks=4, is_later=True),
        Kind("four earlier weeks", draw_table, weeks=4),
        *(Kind(f"cycles, 6 h, {weeks} earlier weeks", draw_cycles, weeks=weeks) for weeks in (0, 1, 4)),
        *(Kind(f"cycles, 24 h, {weeks} earlier weeks", draw_cycles, weeks=weeks, span=24.0) for weeks in (0, 4)),
    ]


def replace_some(random: np.random.Generator, values: Any, share: float, value: Any) -> Any:
    """Replace values at random places by one value."""
    values[random.random(len(values)) < share] = value
    return values


def remove_levels(random: np.random.Generator, values: Any, levels: set[str]) -> Any:
    """Replace categories by others of the window."""
    is_gone = np.array([value in levels for value in values])
    values[is_gone] = random.choice(values[~is_gone], int(is_gone.sum()))
    return values


def correlate(_: np.random.Generator, columns: Columns) -> Columns:
    """Give the second column the order of the first, in every second event, with both distributions as they are."""
    first, second = columns[FIRST][::2], columns["input.c1"].copy()
    second[::2] = np.sort(second[::2])[first.argsort().argsort()]
    return columns | {"input.c1": second}


def add(by: float) -> Change:
    """Return a shift."""
    return lambda _, values: values + by


def multiply(by: float) -> Change:
    """Return a scaling."""
    return lambda _, values: values * by


def list_changes() -> list[Kind]:
    """Return the kinds of change."""
    third, unit, half = {f"level {level}" for level in range(0, 500, 3)}, multiply(1 / 3.6), add(0.5)
    lost = partial(remove_levels, levels={"level 3"})
    alone = partial(replace_some, share=1.0, value="level 3")
    rare, often = (partial(draw_holes, share=share) for share in (0.02, 0.1))
    rows: list[tuple[str, str, Change]] = [
        *((f"one of 20 by {by} σ", FIRST, add(by)) for by in (0.1, 0.2, 0.4, 0.5, 1)),
        *((f"deviation × {by}", FIRST, multiply(by)) for by in (1.2, 0.8)),
        ("one class of ten lost", CLASS, lost),
        ("a new class, 3 %", CLASS, partial(replace_some, share=0.03, value="new")),
        ("shares of classes, by .05", CLASS, partial(replace_some, share=0.05 / 0.9, value="level 3")),
        ("a third of 500 levels gone", CITY, partial(remove_levels, levels=third)),
        ("km/h → m/s", SPEED, unit),
        ("one class alone", CLASS, alone),
        ("stuck from the middle on", FIRST, lambda _, v: np.r_[v[: len(v) // 2], v[len(v) // 2].repeat(len(v) // 2)]),
        ("clipped at 2 σ", FIRST, lambda _, values: np.clip(values, -2, 2)),
        ("rounded to .1", FIRST, lambda _, values: np.round(values, 1)),
        ("each row ten times", "", lambda _, rows: {key: v[: len(v) // 10].repeat(10) for key, v in rows.items()}),
        ("× 12 in the first tenth", FIRST, lambda _, v: np.r_[12 * v[: len(v) // 10], v[len(v) // 10 :]]),
        ("2 % missing, none before", FIRST, partial(replace_some, share=0.02, value=np.nan)),
        ("constant", FIRST, multiply(0)),
        ("5 % at 4 σ", FIRST, partial(replace_some, share=0.05, value=4.0)),
        ("correlation of two alone", "", correlate),
    ]
    make = partial(Kind, sizes=(1000, 10_000))
    first_week = partial(make, draw=draw_table, weeks=0)
    return [
        *(make(name, draw_table, change=change, changed=of) for name, of, change in rows),
        make("10 % missing, 2 % before", often, rare, change=add(0), changed=FIRST),
        make("2 % missing, 10 % before", rare, often, change=add(0), changed=FIRST),
        make("AR(1) .8, by .5 σ", partial(draw_normal, rho=0.8), draw_normal, change=half, changed=FIRST),
        make("100 users, by 1 σ", partial(draw_users, users=100), draw_normal, change=add(1), changed=FIRST),
        make("cycles, by .5 σ", draw_cycles, weeks=4, change=add(0.5 * 1.265), changed=FIRST),  # with its cycles
        make("four earlier weeks, by .2 σ", draw_table, weeks=4, change=add(0.2), changed=FIRST),
        first_week("later version's first week, by .5 σ", weeks=4, is_later=True, change=half, changed=FIRST),
        first_week("first week, by .5 σ", change=half, changed=FIRST),
        first_week("first week, km/h → m/s", change=unit, changed=SPEED),
        first_week("first week, one class of ten lost", change=lost, changed=CLASS),
        first_week("first week, one class alone", change=alone, changed=CLASS),
    ]
