"""JPEG is decoded strictly; deviations that do no harm are tolerated, and reported."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import simplejpeg

from mlscale.data.decoding.image_decoder import decode_image
from tests import awkward
from tests.awkward import RESTARTS, encoded, photo

_LARGE = photo(240, 320, zoom=3)
FILES = tuple(
    encoded(_LARGE, "JPEG", **options)
    for options in ({"quality": 90}, {"progressive": True}, {"restart_marker_rows": 1}, {"optimize": True})
)
Corrupt = Callable[[bytes, np.random.Generator], bytes]


@pytest.mark.parametrize("name", awkward.DEVIATIONS)
def test_harmless_deviations_are_tolerated_and_reported(name: str) -> None:
    content = awkward.DEVIATIONS[name](RESTARTS)
    with pytest.raises(ValueError, match=r"\w") as strict:
        simplejpeg.decode_jpeg(content)
    reported: list[str] = []
    found = decode_image(content, None, report=reported.append)
    assert np.array_equal(found, decode_image(RESTARTS, None))
    assert reported == [str(strict.value)]


def test_nothing_is_reported_of_what_is_intact() -> None:
    reported: list[str] = []
    for name, content in awkward.INTACT.items():
        if name != "sampling_410.jpg":
            decode_image(content, None, report=reported.append)
    assert not reported
    decode_image(awkward.INTACT["sampling_410.jpg"], None, report=reported.append)
    assert reported == ["its rare sampling of colours can only be decoded without strict checks"]


@pytest.mark.parametrize("name", awkward.DEVIATIONS)
def test_a_harmless_deviation_hides_no_corruption(name: str) -> None:
    """A decoder names its first warning alone."""
    rejected = 0
    for start in np.linspace(0.3, 0.8, 20):
        holed = awkward.holed(RESTARTS, float(start), 100)
        try:
            simplejpeg.decode_jpeg(holed)
        except ValueError:
            rejected += 1
            with pytest.raises(ValueError, match=r"\w"):
                decode_image(awkward.DEVIATIONS[name](holed), None)
    assert rejected >= 10


def _cut(content: bytes, random: np.random.Generator) -> bytes:
    return content[: int(random.integers(700, len(content) - 2))]


def _hole(content: bytes, random: np.random.Generator) -> bytes:
    return awkward.holed(content, float(random.uniform(0.3, 0.8)), 300)


def _swap(content: bytes, random: np.random.Generator) -> bytes:
    one, two = sorted(int(place) for place in random.choice(np.arange(700, len(content) - 400, 300), 2, replace=False))
    blocks = content[two : two + 300] + content[one + 300 : two] + content[one : one + 300]
    return content[:one] + blocks + content[two + 300 :]


def _flip(content: bytes, random: np.random.Generator) -> bytes:
    place = int(random.integers(700, len(content)))
    return content[:place] + bytes([content[place] ^ 1 << int(random.integers(8))]) + content[place + 1 :]


@pytest.mark.parametrize("corrupt", [_cut, _hole, _swap, _flip])
def test_what_the_strict_decoder_rejects_is_rejected(corrupt: Corrupt) -> None:
    random, rejected = np.random.default_rng(20261125), 0
    for content in FILES * 25:
        corrupted, reported = corrupt(content, random), list[str]()
        try:
            strict = simplejpeg.decode_jpeg(corrupted)
        except ValueError:
            with pytest.raises((ValueError, OSError)):
                decode_image(corrupted, None, report=reported.append)
            rejected += 1
        else:
            assert np.array_equal(decode_image(corrupted, None, report=reported.append), strict.transpose(2, 0, 1))
        assert not reported
    assert rejected >= (100 if corrupt is _cut else 10 if corrupt is _flip else 60)
