"""How documents fill sequences."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from mlscale.data.text.packing import BlockPacking, Packing, check_packing, pack_documents
from mlscale.errors import MLScaleError


def make_ends(count: int, mean: float = 40.0) -> NDArray[np.int64]:
    sizes = np.random.default_rng(0).exponential(mean, count).astype(np.int64) + 1
    return np.cumsum(sizes)


def count_uses(packing: Packing, total: int) -> NDArray[np.int64]:
    uses = np.zeros(total, np.int64)
    for sequence in range(len(packing)):
        for start, stop in packing.list_pieces(sequence):
            uses[start:stop] += 1
    return uses


@pytest.mark.parametrize("length", [1, 7, 32, 1000])
def test_every_token_is_predicted_once(length: int) -> None:
    ends = make_ends(300)
    for packing in (pack_documents(ends, length, kind) for kind in ("documents", "none")):
        assert (count_uses(packing, int(ends[-1])) == 1).all()
        assert 1 <= packing.count_tokens().min() <= packing.count_tokens().max() <= length
        assert packing.padding_share == pytest.approx(1 - ends[-1] / (len(packing) * length))


def test_blocks_of_all_text_are_full() -> None:
    ends = make_ends(50)
    packing = BlockPacking(int(ends[-1]), 16, 12)
    assert len(packing) == (ends[-1] - 17) // 12 + 1
    assert packing.padding_share == 0
    assert packing.list_pieces(2) == [(25, 41)]


def test_a_sequence_of_several_has_beginnings_of_documents_alone() -> None:
    ends = make_ends(300)
    begins = {0, *ends.tolist()}
    packing = pack_documents(ends, 32, "documents")
    several = [pieces for pieces in map(packing.list_pieces, range(len(packing))) if len(pieces) > 1]
    assert len(several) > 20
    assert all(start in begins for pieces in several for start, _ in pieces)


def test_documents_fill_sequences_better_than_one_in_each() -> None:
    ends = make_ends(3000)
    shares = {kind: pack_documents(ends, 128, kind).padding_share for kind in ("documents", "none")}
    assert shares["documents"] < 0.01 < 0.5 < shares["none"]
    # Not better than the fewest sequences that hold all tokens.
    assert len(pack_documents(ends, 128, "documents")) >= -(-ends[-1] // 128)


def test_each_piece_is_where_it_fits_best() -> None:
    # The pieces of 7, 6, 4 and 3 places: 7 with 3, and 6 with 4, in sequences of 10.
    packing = pack_documents(np.cumsum([3, 7, 4, 6]), 10, "documents")
    assert [sorted(stop - start for start, stop in packing.list_pieces(row)) for row in range(2)] == [[3, 7], [4, 6]]


def test_equal_documents_are_packed_equally() -> None:
    ends = make_ends(500)
    first, second = (pack_documents(ends, 64, "documents") for _ in range(2))
    assert np.array_equal(first.starts, second.starts)
    # Golden: what a checkpoint has been trained on must not depend on the version of numpy.
    assert first.starts[:8].tolist() == [96, 267, 382, 446, 510, 578, 642, 734]


def test_nothing_makes_no_sequence() -> None:
    assert len(BlockPacking(0, 8, 8)) == 0
    for kind in ("documents", "none"):
        assert len(pack_documents(np.zeros(0, np.int64), 8, kind)) == 0


def test_an_unknown_packing() -> None:
    with pytest.raises(MLScaleError, match=r"data\.packing is 'bfd'") as caught:
        check_packing("bfd")
    assert caught.value.fix == "data.packing=documents"
