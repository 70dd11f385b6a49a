"""A reference of passages: documents are compared with those that are as long."""

import numpy as np
import pytest

from mlscale.reference.column_sketch import ScoreReference
from mlscale.reference.passage_rows import UNKNOWN_WORDS, PassageRows, compute_effective_size


def build_rows(m: int = 400, seed: int = 0) -> PassageRows:
    """Passages of 16 to 4,096 bytes, whose loss falls with their length."""
    rng = np.random.default_rng(seed)
    lengths = np.exp2(rng.uniform(4, 12, m)).round()
    loss = 2 + 20 / lengths + rng.normal(0, 0.05, m)
    gave_words = rng.random(m) < 0.5
    columns = {"input.spaces": rng.normal(0.16, 0.3 / np.sqrt(lengths)), "output.loss": loss}
    columns[UNKNOWN_WORDS] = np.where(gave_words, 0.0, 0.1)
    return PassageRows(lengths, np.arange(m), gave_words, columns, loss)


def test_a_document_is_compared_with_passages_of_its_length() -> None:
    rows = build_rows()
    weights = rows.weigh_by_length(np.full(100, 64.0))
    assert weights.sum() == 100 * 50
    assert (rows.lengths[weights > 0].min(), rows.lengths[weights > 0].max()) == (43, 104)
    names = {sketch.name: sketch for sketch in rows.build_sketches(weights)}
    assert names["output.loss"].median == pytest.approx(2 + 20 / 64, abs=0.05)
    assert names["output.loss"].group == "outputs"
    # Of half of them, the known words show nothing.
    assert names[UNKNOWN_WORDS].values.tolist() == [0.1] * names[UNKNOWN_WORDS].known
    assert names[UNKNOWN_WORDS].missing == 0


def test_documents_of_two_lengths_weigh_both() -> None:
    rows = build_rows()
    lengths = np.concatenate([np.full(300, 32.0), np.full(100, 2048.0), [np.nan, 0.0]])
    weights = rows.weigh_by_length(lengths)
    assert weights[rows.lengths < 200].sum() == 3 * weights[rows.lengths > 200].sum()
    score = ScoreReference("nats_per_token", False, "nats", False, False, 9.0, 400, rows.scores)
    mean = rows.build_score(score, weights).mean
    assert mean == pytest.approx(0.75 * (2 + 20 / 32) + 0.25 * (2 + 20 / 2048), abs=0.05)


def test_documents_of_many_lengths_are_compared_with_the_same_lengths() -> None:
    # The share of full stops is one by the length: passages of other lengths would be called drift.
    rows = build_rows(1000)
    lengths = np.random.default_rng(1).uniform(24, 160, 300)
    weights = rows.weigh_by_length(lengths)
    drawn = np.repeat(rows.lengths, weights.astype(int))
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):
        assert np.quantile(drawn, share) == pytest.approx(np.quantile(lengths, share), rel=0.05)


def test_without_lengths_all_passages_count_alike() -> None:
    rows = build_rows()
    assert rows.weigh_by_length(np.array([np.nan])).tolist() == [1.0] * 400
    assert len(rows.build_sketches(np.ones(400), {"input.spaces"})) == 1


def test_missing_values_keep_their_share() -> None:
    rows = build_rows()
    rows.columns["input.spaces"][::4] = np.nan
    (sketch,) = rows.build_sketches(np.ones(400), {"input.spaces"})
    assert (sketch.known, sketch.missing) == (300, 100)
    rows.columns["input.spaces"][:] = np.nan
    (sketch,) = rows.build_sketches(np.ones(400), {"input.spaces"})
    assert (sketch.known, sketch.missing, sketch.effective) == (0, 400, 0.0)


def test_passages_of_one_document_are_worth_fewer() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 25)
    alone, alike = rng.normal(size=1000), np.repeat(rng.normal(size=40), 25) + 0.1 * rng.normal(size=1000)
    weights = np.ones(1000)
    assert compute_effective_size(alone, weights, groups) > 300
    assert 15 < compute_effective_size(alike, weights, groups) < 60
    # Of equal values, or of one document, nothing shows more than the number of documents.
    assert compute_effective_size(np.ones(1000), weights, groups) == pytest.approx(40)
    assert compute_effective_size(alone, weights, np.zeros(1000, np.int64)) == pytest.approx(1)


def test_uneven_weights_are_worth_fewer() -> None:
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=1000), np.concatenate([np.full(10, 1000.0), np.ones(990)])
    assert compute_effective_size(values, weights, np.arange(1000)) < 15


def test_arrays_of_a_profile_are_read_back() -> None:
    rows = build_rows(50)
    names = list(rows.columns)
    arrays = rows.to_arrays(names)
    back = PassageRows.parse_arrays(arrays, names)
    assert back is not None
    assert all((back.columns[name] == rows.columns[name]).all() for name in names)
    assert (back.groups == rows.groups).all()
    assert PassageRows.parse_arrays({}, names) is None
    for broken in ({"passage_groups": rows.groups[1:]}, {"passage_columns": np.ones((2, 50))}):
        with pytest.raises(ValueError, match="do not fit each other"):
            PassageRows.parse_arrays({**arrays, **broken}, names)
