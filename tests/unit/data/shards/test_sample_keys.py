"""Keys in one block: they are those that a tuple of texts would have."""

from __future__ import annotations

import numpy as np
import pytest

from mlscale.data.shards.index_files import SampleKeys

KEYS = ("a", "", "d/b", "ü", "\udcff", "last")  # the fifth is a byte that is not UTF-8


def test_keys_are_those_of_a_tuple() -> None:
    keys = SampleKeys.join_texts(KEYS)
    assert keys == KEYS
    assert [keys[number] for number in range(-len(KEYS), len(KEYS))] == [*KEYS, *KEYS]
    assert (len(keys), keys[1:4], keys[::-2], "ü" in keys, "x" in keys) == (6, KEYS[1:4], KEYS[::-2], True, False)
    for number in (6, -7):
        with pytest.raises(IndexError):
            keys[number]
    assert keys != KEYS[:5]
    assert keys != SampleKeys.join_texts(KEYS[:5])
    assert hash(keys) == hash(SampleKeys(keys.joined, 6))


@pytest.mark.parametrize("texts", [(), ("",), ("", ""), ("a",), ("a", "")])
def test_few_and_empty_keys(texts: tuple[str, ...]) -> None:
    keys = SampleKeys.join_texts(texts)
    assert (tuple(keys), [keys[number] for number in range(len(keys))]) == (texts, list(texts))


def test_parts_are_joined_and_samples_selected() -> None:
    parts = [SampleKeys.join_texts(KEYS[:2]), SampleKeys.join_texts(()), SampleKeys.join_texts(KEYS[2:])]
    keys = SampleKeys.join_parts(parts)
    assert keys == KEYS
    kept = np.array([True, True, False, True, False, False])
    assert keys.select_samples(kept) == ("a", "", "ü")
    assert keys.select_samples(~kept).joined == SampleKeys.join_texts(["d/b", "\udcff", "last"]).joined
    assert len(keys.select_samples(np.zeros(6, bool))) == 0


def test_a_block_of_another_number_of_keys_is_refused() -> None:
    for joined, count in ((b"a\0b", 3), (b"a\0b", 1), (b"a", 0)):
        with pytest.raises(ValueError, match="keys in place of"):
            SampleKeys(joined, count)
