"""The reference profile against the same numbers, worked out in another way."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mlscale.errors import MLScaleError
from mlscale.export import reference_profile as reference
from mlscale.export.reference_profile import ABOUT, ARRAYS, ProfileBuilder, ReferenceProfile


def samples(count: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    raw = generator.integers(0, 256, (count, 3, 4, 5), dtype=np.uint8)
    probabilities = generator.dirichlet([0.3] * 4, count).astype(np.float32)
    return raw, probabilities, generator.integers(0, 4, count)


def collected(count: int, batch: int) -> ReferenceProfile:
    profile, (raw, probabilities, y) = ProfileBuilder(4), samples(count)
    for start in range(0, count, batch):
        rows = slice(start, start + batch)
        profile.add_batch(raw[rows], probabilities[rows], y[rows])
    return profile.finish(split="val", data_version="v")


def test_what_it_holds() -> None:
    raw, probabilities, y = samples(200)
    profile = collected(200, batch=64)
    arrays, predicted, confidence = profile.arrays, probabilities.argmax(1), probabilities.max(1)
    assert profile.about["samples"] == profile.about["kept_samples"] == 200
    assert profile.about["accuracy"] == (predicted == y).mean()
    np.testing.assert_allclose(arrays["sample_mean"], raw.mean((2, 3)), rtol=1e-6)
    np.testing.assert_allclose(arrays["sample_std"], raw.std((2, 3)), rtol=1e-6)
    assert arrays["sample_confidence"].tolist() == confidence.tolist()
    for channel in range(3):
        counts, edges = np.histogram(raw[:, channel], 32, (0, 256))
        assert arrays["value_counts"][channel].tolist() == counts.tolist()
        assert arrays["value_edges"][channel].tolist() == edges.tolist()
    assert arrays["class_counts"].tolist() == [int((predicted == each).sum()) for each in range(4)]
    assert arrays["label_counts"].tolist() == [int((y == each).sum()) for each in range(4)]
    np.testing.assert_allclose(arrays["probability_mean"], probabilities.mean(0), rtol=1e-5)
    inside = [(confidence >= low) & (confidence < low + 0.05) for low in np.arange(0, 1, 0.05)]
    assert arrays["confidence_counts"].sum() == 200
    np.testing.assert_allclose(arrays["confidence_counts"], [each.sum() for each in inside], atol=1)
    assert arrays["confidence_correct"].sum() == (predicted == y).sum()


def test_however_the_samples_are_batched() -> None:
    one, other = collected(200, batch=200), collected(200, batch=7)
    for name, array in one.arrays.items():
        np.testing.assert_allclose(array, other.arrays[name], rtol=1e-9, err_msg=name)


@pytest.mark.parametrize(("count", "batch"), [(100, 7), (1000, 64), (999, 1000)])
def test_kept_samples_are_few_and_spread_evenly(monkeypatch: pytest.MonkeyPatch, count: int, batch: int) -> None:
    monkeypatch.setattr(reference, "MAX_KEPT_SAMPLES", 50)
    profile = collected(count, batch)
    kept = profile.arrays["sample_confidence"].tolist()
    stride = next(stride for stride in (1, 2, 4, 8, 16, 32) if -(-count // stride) <= 50)
    assert kept == samples(count)[1].max(1)[::stride].tolist()
    assert profile.arrays["value_counts"].sum() == count * 60


def test_values_that_are_no_bytes_have_bins_around_their_mean() -> None:
    profile = ProfileBuilder(2)
    features = np.random.default_rng(0).normal([100, 0], [10, 0], (500, 2)).astype(np.float32)
    outlier = np.array([[1e6, 0]], np.float32)
    for raw in (features, outlier):
        profile.add_batch(raw, np.full((len(raw), 2), 0.5, np.float32), np.zeros(len(raw), np.int64))
    arrays = profile.finish(split="val", data_version=None).arrays
    assert arrays["value_counts"].sum(1).tolist() == [501, 501]
    assert arrays["value_counts"][0, -1] == 1  # beyond the edges
    assert 55 < arrays["value_edges"][0, 0] < 65


def test_it_comes_back_and_is_the_same_every_time(tmp_path: Path) -> None:
    profile = collected(50, 20)
    profile.save_profile(tmp_path)
    first = (tmp_path / ARRAYS).read_bytes()
    profile.save_profile(tmp_path)
    assert (tmp_path / ARRAYS).read_bytes() == first
    again = ReferenceProfile.load_profile(tmp_path)
    assert dict(again.about) == dict(profile.about)
    assert {name: array.tolist() for name, array in again.arrays.items()} == {
        name: array.tolist() for name, array in profile.arrays.items()
    }


@pytest.mark.parametrize(("name", "content"), [(ABOUT, b"{}"), (ARRAYS, b"PK"), (ARRAYS, b""), (ABOUT, b"[")])
def test_a_damaged_one_is_told(tmp_path: Path, name: str, content: bytes) -> None:
    collected(5, 5).save_profile(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MLScaleError) as caught:
        ReferenceProfile.load_profile(tmp_path)
    assert str(tmp_path / name) in caught.value.where


def merged(parts: int, count: int, batch: int) -> ReferenceProfile:
    """As ranks see them: batches in turns, a profile each."""
    profiles, (raw, probabilities, y) = [ProfileBuilder(4) for _ in range(parts)], samples(count)
    for number, start in enumerate(range(0, count, batch)):
        rows = np.arange(start, min(start + batch, count))
        profiles[number % parts].add_batch(raw[rows], probabilities[rows], y[rows], rows)
    whole = profiles[0]
    for part in profiles[1:]:
        whole.merge_counts(part)
    return whole.finish(split="val", data_version="v")


@pytest.mark.parametrize("parts", [2, 3, 8])
@pytest.mark.parametrize("kept", [10_000, 50])
def test_parts_merge_into_the_whole(parts: int, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "MAX_KEPT_SAMPLES", kept)
    whole, together = collected(331, batch=64), merged(parts, 331, batch=32)
    assert whole.about == together.about
    assert whole.arrays.keys() == together.arrays.keys()
    for name, array in whole.arrays.items():
        if name == "probability_mean":  # sums in another order
            np.testing.assert_allclose(together.arrays[name], array, rtol=1e-14)
        else:
            assert together.arrays[name].dtype == array.dtype
            assert np.array_equal(together.arrays[name], array), name


def test_a_part_with_nothing_adds_nothing_and_other_bins_are_refused() -> None:
    one, (raw, probabilities, y) = ProfileBuilder(4), samples(10)
    one.merge_counts(ProfileBuilder(4))
    one.add_batch(raw, probabilities, y)
    empty = ProfileBuilder(4)
    empty.merge_counts(one)
    assert empty.samples == 10
    floats = ProfileBuilder(4)
    floats.add_batch(raw.astype(np.float32), probabilities, y)
    with pytest.raises(ValueError, match="other bins"):
        one.merge_counts(floats)
