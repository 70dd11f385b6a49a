"""The tour of other data than images; in a file of its own, since a file is the work of one test process."""

from pathlib import Path

import pytest

from tests.e2e.test_lifecycle import TITLES, check_end, take_tour

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.mark.parametrize(
    "words", [("+recipe=tabular",), ("+recipe=text", "trainer.max_epochs=4", "lifecycle.retrain_passes=5")]
)
def test_rows_and_texts(folder: Path, words: tuple[str, ...]) -> None:
    printed, err = take_tour(*words, "lifecycle.probe_seconds=0.5")
    check_end(folder, printed, err, TITLES)
    figures = printed["metrics"]
    assert figures["drifted_inputs"] > 0
    assert figures["shifted_accuracy_before"] < figures["served_accuracy"] - 0.07
    assert figures["shifted_accuracy"] > figures["shifted_accuracy_before"]
