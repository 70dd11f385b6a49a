"""Prices of machines per hour, from a dated file, and the cost of a run."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from mlscale.errors import MLScaleError, describe_wrong_content

_OLD_DAYS = 90  # age at which prices are reported as old


@dataclass(frozen=True)
class Instance:
    """A machine that can be rented.

    Attributes:
        usd_per_hour: on-demand price; None where unknown.
        gpus: number of GPUs; 0 for none.
        gpu: their name.
        gpu_memory_gib: memory of one of them.
        source: the price's source, in words.
    """

    name: str
    usd_per_hour: float | None
    gpus: int
    gpu: str | None
    gpu_memory_gib: float | None
    source: str


@dataclass(frozen=True)
class PriceFile:
    """A price file.

    Attributes:
        snapshot: the day it was written.
        verified: true if its prices were checked with the providers on that day.
    """

    snapshot: date
    verified: bool
    instances: Mapping[str, Instance]
    path: str

    def get_age_days(self, today: date | None = None) -> int:
        """Return the days since the file was written."""
        return ((today or date.today()) - self.snapshot).days

    def find_instance(self, name: str) -> Instance:
        """Return the instance called `name`.

        Raises:
            MLScaleError: there is none; the message has the nearest names.
        """
        if name in self.instances:
            return self.instances[name]
        # The same machine without its provider ('g5.xlarge' for 'aws/g5.xlarge') is suggested before similar names.
        same = [candidate for candidate in self.instances if candidate.rpartition("/")[2] == name]
        same += [key for key, item in self.instances.items() if item.gpu and name.lower() in item.gpu.lower().split()]
        near = list(dict.fromkeys([*same, *difflib.get_close_matches(name, self.instances, n=3, cutoff=0.5)]))
        raise MLScaleError(
            f"no instance '{name}' in the price file",
            where=f"estimate.instance={name}: {self.path}",
            why=f"it has {len(self.instances)}, such as {', '.join(near[:5] or list(self.instances)[:3])}",
            fix=f"estimate.instance={near[0] if near else '<one of them>'}\nestimate.usd_per_hour=<its price>",
        )

    def format_age(self, today: date | None = None) -> str:
        """Return the age of the file as text."""
        age = self.get_age_days(today)
        words = f"prices of {self.snapshot.isoformat()}, {age} day{'s' * (age != 1)} old"
        words += ", old" if age > _OLD_DAYS else ""
        return words if self.verified else f"{words}, not verified"


def load_price_file(path: str | None = None) -> PriceFile:
    """Read the price file at `path`; without a path, the built-in one.

    Raises:
        MLScaleError: it does not exist, or is not a price file.
    """
    shipped = files("mlscale.estimate").joinpath("prices.yaml")
    label = path or "mlscale/estimate/prices.yaml"
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8") if path else shipped.read_text(encoding="utf-8")
        document = yaml.safe_load(text)
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise MLScaleError(
            f"the price file can't be read: {path}",
            where=f"estimate.prices={path}",
            why=str(error).splitlines()[0],
            fix="estimate.prices=null, for the prices that are shipped",
        ) from error
    # A user writes this file: any missing key or wrong type becomes an error that shows a correct file.
    try:
        return _parse_price_file(document, label)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MLScaleError(
            "not a price file",
            where=label,
            why=describe_wrong_content(error),
            fix="snapshot: 2026-11-24\ninstances:\n  my/machine: {usd_per_hour: 1.5, gpus: 1, gpu_memory_gib: 24}",
        ) from error


def compute_cost_usd(seconds: float, usd_per_hour: float | None) -> float:
    """Return the cost of `seconds`, USD; NaN if the time or the price is unknown."""
    return math.nan if usd_per_hour is None else seconds / 3600 * usd_per_hour


def _parse_price_file(document: Mapping[str, Any], label: str) -> PriceFile:
    snapshot = document["snapshot"]
    # YAML reads an unquoted date as one, and a quoted date as text.
    if not isinstance(snapshot, date):
        snapshot = date.fromisoformat(str(snapshot))
    sources = document.get("sources") or {}
    instances = {
        str(name): Instance(
            name=str(name),
            usd_per_hour=_parse_price(entry.get("usd_per_hour"), name),
            gpus=int(entry.get("gpus") or 0),
            gpu=entry.get("gpu"),
            gpu_memory_gib=entry.get("gpu_memory_gib"),
            source=str(sources.get(entry.get("source"), entry.get("source") or label)),
        )
        for name, entry in document["instances"].items()
    }
    # `is True`: a text such as "no" must not count as verified.
    return PriceFile(snapshot, document.get("verified") is True, instances, label)


def _parse_price(value: float | str | None, name: str) -> float | None:
    if value is None:
        return None
    price = float(value)
    # YAML has .nan and .inf, which every budget check would pass or fail silently.
    if not math.isfinite(price) or price < 0:
        raise ValueError(f"{name} costs {value}")
    return price
