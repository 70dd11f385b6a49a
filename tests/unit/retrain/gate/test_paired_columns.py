"""Samples that both models predict: which are left out, whose fault it is, and the rows of the others."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import nn

from mlscale.data.encoders.token_encoders import TokenDocumentEncoder
from mlscale.data.encoders.tokenizer import Tokenizer
from mlscale.errors import MLScaleError
from mlscale.export.servable import Servable
from mlscale.retrain.gate.overall_change import compare_overall
from mlscale.retrain.gate.paired_columns import PairedColumns, check_same_names, collect_paired_columns
from mlscale.task_types.task_type import AnswerNames
from mlscale.tasks import Language
from tests.task_servables import TaskExample, draw_documents, write_example
from tests.tokenizer_files import save_bpe
from tests.unit.retrain.gate.fake_servables import make_servable

LABELS = ("no", "yes")
BAD = np.zeros(3, np.float32)
"""A sample of another shape, which no model takes."""


def model(threshold: float, broken: float = 9, labels: tuple[str, ...] = LABELS) -> Servable:
    """'yes' above a threshold; not a number for the value `broken`."""

    def compute_logits(x: NDArray[Any]) -> dict[str, NDArray[Any]]:
        logits = np.concatenate([np.zeros_like(x), x - np.float32(threshold)], 1)
        return {"logits": np.where(x == np.float32(broken), np.float32(np.nan), logits)}

    return make_servable(compute_logits, labels=labels)


def sample(*values: float | None) -> list[NDArray[np.float32]]:
    return [BAD if value is None else np.array([value], np.float32) for value in values]


def collect(champion: Servable, challenger: Servable, *batches: tuple[list[Any], list[int]]) -> PairedColumns:
    columns = collect_paired_columns(champion, challenger, [(raw, np.array(truth)) for raw, truth in batches])
    assert columns is not None
    return columns


def test_both_predict_the_same_samples() -> None:
    columns = collect(model(0.5), model(0.7), (sample(0.1, 0.6), [0, 1]), (sample(0.8, 0.65, 0.4), [1, 0, 1]))
    assert columns.first["truth"].tolist() == columns.second["truth"].tolist() == [0, 1, 1, 0, 1]
    assert columns.first["predicted"].tolist() == [0, 1, 1, 1, 0]
    assert columns.second["predicted"].tolist() == [0, 0, 1, 0, 0]
    assert columns.rows.tolist() == [0, 1, 2, 3, 4]
    assert (len(columns), columns.left_out, columns.not_finite) == (5, 0, 0)
    # Columns that grow with the number of classes are not kept.
    assert {"loss", "confidence"} <= set(columns.first)
    assert "probabilities" not in columns.first


def test_samples_that_a_model_does_not_take_are_left_out() -> None:
    batches = (sample(0.6, None, 0.9), [1, 0, 1]), (sample(None, None), [0, 0]), (sample(None, 0.2, 0.8), [0, 0, 1])
    columns = collect(model(0.5), model(0.7), *batches)
    assert columns.rows.tolist() == [0, 2, 6, 7]
    assert columns.first["truth"].tolist() == [1, 1, 0, 1]
    assert columns.first["predicted"].tolist() == [1, 1, 0, 1]
    assert columns.second["predicted"].tolist() == [0, 1, 0, 1]
    assert (columns.left_out, columns.not_finite) == (4, 0)


def test_only_the_challengers_own_failures_count_against_it() -> None:
    # Both fail at 3, the champion alone at none; the challenger alone at 4.
    def fail(*values: float) -> Servable:
        def compute_logits(x: NDArray[Any]) -> dict[str, NDArray[Any]]:
            return {"logits": np.where(np.isin(x, values), np.float32(np.nan), np.concatenate([-x, x], 1))}

        return make_servable(compute_logits, labels=LABELS)

    raw = [*sample(1, 3, 4, 5), *sample(None, 2, 4, 4)]
    columns = collect(fail(3, 5), fail(3, 4), (raw, [1, 0, 0, 0, 0, 1, 0, 0]))
    assert columns.rows.tolist() == [0, 5]
    assert (columns.left_out, columns.not_finite) == (3, 3)


def test_nothing_to_compare_is_none() -> None:
    assert collect_paired_columns(model(0.5), model(0.7), []) is None
    assert collect_paired_columns(model(0.5), model(0.7), [(sample(None, None), np.zeros(2, int))]) is None
    assert collect_paired_columns(model(0.5), model(0.5, broken=1), [(sample(1), np.zeros(1, int))]) is None


def test_classes_can_be_left_out() -> None:
    columns = collect(model(0.5), model(0.7, broken=4), (sample(0.1, None, 0.6, 0.8, 4), [0, 0, 1, 1, 0]))
    without = columns.select_classes(np.array([0]), model(0.5))
    assert (without.rows.tolist(), without.first["truth"].tolist(), without.second["predicted"].tolist()) == (
        [2, 3],
        [1, 1],
        [0, 1],
    )
    assert (without.left_out, without.not_finite) == (1, 1)
    assert columns.select_classes(np.array([], np.int64), model(0.5)) is columns


@pytest.mark.parametrize(
    ("labels", "listed"),
    [((), "no classes"), (tuple("abcdefgh"), "a, b, c, d, e, f, g, h"), (tuple("abcdefghi"), "h, …")],
)
def test_models_of_other_classes_are_refused(labels: tuple[str, ...], listed: str) -> None:
    check_same_names(model(0.5), model(0.7))
    with pytest.raises(MLScaleError, match="champion and challenger do not predict the same") as caught:
        check_same_names(model(0.5), model(0.5, labels=labels))
    assert caught.value.why is not None
    assert caught.value.why.startswith("classification of no, yes; classification of ")
    assert caught.value.why.endswith(listed)
    with pytest.raises(MLScaleError, match="champion and challenger do not predict the same"):
        check_same_names(model(0.5), make_servable(lambda x: {}, "multilabel", labels=LABELS))


def test_bits_per_byte_count_the_bytes_of_texts(tmp_path: Path) -> None:
    """A token of a tokenizer stands for several bytes: bits for each token would be another unit."""
    path = save_bpe(tmp_path / "t.json")
    encoder = TokenDocumentEncoder(8, Tokenizer.load_file(path, None, where="data.tokenizer"))
    model = nn.Sequential(nn.Embedding(encoder.vocabulary, 6), nn.Linear(6, encoder.vocabulary))
    example = TaskExample(Language(model=model), encoder, AnswerNames(), draw_documents)
    servable = write_example(example, tmp_path / "servable")
    texts = ["The quick brown fox", "naïve, 東京".encode(), "", "a"]
    columns = collect_paired_columns(servable, servable, [(texts, np.zeros(4, np.int64))])
    assert columns is not None
    nats = servable.compute_samples(servable.pack_samples([texts[0], texts[1], texts[3]]))["nats"]
    change = compare_overall(servable.task_type, columns, alpha=0.05, tolerance=0.1)
    assert (change.metric.name, columns.rows.tolist()) == ("bits_per_byte", [0, 1, 3])
    # Each with its end.
    assert change.first == pytest.approx(float(nats.sum()) / (20 + 15 + 2) / np.log(2))
