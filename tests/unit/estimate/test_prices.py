"""The price file: the one that is shipped, one's own, and what is no price file."""

import math
from datetime import date, timedelta
from pathlib import Path

import pytest

from mlscale.errors import MLScaleError
from mlscale.estimate.prices import PriceFile, compute_cost_usd, load_price_file

OWN = """
snapshot: 2026-01-10
verified: true
instances:
  mine/box: {usd_per_hour: 1.5, gpus: 1, gpu: L4, gpu_memory_gib: 24, source: the bill}
  mine/free: {usd_per_hour: null}
"""


@pytest.fixture
def own(tmp_path: Path) -> PriceFile:
    path = tmp_path / "prices.yaml"
    path.write_text(OWN)
    return load_price_file(str(path))


def test_what_is_shipped_is_dated_sourced_and_says_that_it_is_not_verified() -> None:
    prices = load_price_file()
    assert len(prices.instances) == 33
    assert prices.find_instance("aws/g5.xlarge").usd_per_hour == 1.006
    assert all(each.usd_per_hour and each.gpus and each.gpu_memory_gib for each in prices.instances.values())
    assert all("/" in name and len(each.source) > 10 for name, each in prices.instances.items())
    assert "not verified" in prices.format_age()


def test_ones_own(own: PriceFile) -> None:
    box = own.find_instance("mine/box")
    assert (box.usd_per_hour, box.gpus, box.gpu_memory_gib, box.source) == (1.5, 1, 24, "the bill")
    assert own.find_instance("mine/free").usd_per_hour is None
    assert own.format_age(date(2026, 1, 11)) == "prices of 2026-01-10, 1 day old"
    assert own.format_age(own.snapshot + timedelta(days=200)).endswith("200 days old, old")


def test_cost() -> None:
    assert compute_cost_usd(1800, 3.0) == 1.5
    assert math.isnan(compute_cost_usd(1800, None))
    assert math.isnan(compute_cost_usd(math.nan, 3.0))


@pytest.mark.parametrize(("name", "nearest"), [("g5.xlarge", "aws/g5.xlarge"), ("aws/g5.xlrge", "aws/g5.xlarge")])
def test_an_unknown_instance_names_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(MLScaleError) as caught:
        load_price_file().find_instance(name)
    assert caught.value.fix.startswith(f"estimate.instance={nearest}\n")


@pytest.mark.parametrize(
    "text",
    [
        "instances: {}",
        "- 1",
        "snapshot: soon\ninstances: {}",
        "snapshot: 2026-01-10\ninstances: {a: {usd_per_hour: -1}}",
        "snapshot: 2026-01-10\ninstances: {a: {usd_per_hour: .nan}}",
        "snapshot: 2026-01-10\ninstances: [a]",
        "a: [",
    ],
)
def test_what_is_no_price_file(text: str, tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    with pytest.raises(MLScaleError) as caught:
        load_price_file(str(path))
    assert str(path) in caught.value.where


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(MLScaleError, match=r"can't be read: nowhere\.yaml"):
        load_price_file("nowhere.yaml")
