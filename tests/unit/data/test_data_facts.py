"""What data is, in words."""

from dataclasses import asdict
from typing import Any

import pytest

from mlscale.data.data_facts import DataFacts, describe_facts

SIZES: dict[str, Any] = {"train_samples": 4, "val_samples": 2, "version": "0"}


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (DataFacts(sample=(3, 24, 32), num_classes=7, **SIZES), "3×24×32, 7 classes"),
        (DataFacts(sample=(13,), num_classes=3, **SIZES), "13 values, 3 classes"),
        (DataFacts(sample=(30,), features=30, num_classes=2, **SIZES), "30 features, 2 classes"),
        (DataFacts(sample=(10,), features=10, targets=1, **SIZES), "10 features, 1 target"),
        (
            DataFacts(sample=(256,), dtype="int64", length=256, vocab_size=257, **SIZES),
            "sequences of 256, 257 tokens",
        ),
    ],
)
def test_words(facts: DataFacts, words: str) -> None:
    assert describe_facts(asdict(facts)) == words
