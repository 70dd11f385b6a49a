"""Passages of documents: whole sentences of all lengths, each group apart."""

from itertools import pairwise

import numpy as np

from mlscale.data.text.passages import cut_passages


def write_sentences(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(["Word"] * int(rng.integers(5, 30))) + f" {number}." for number in range(count)]


def test_a_short_document_is_one_passage_as_it_is() -> None:
    documents = [f"{sentence}\n".encode() for sentence in write_sentences(30)]
    passages = cut_passages(documents, lambda size: 1)
    assert sorted(passage.text for passage in passages) == sorted(documents)
    assert len({passage.group for passage in passages}) == 30


def test_passages_begin_and_end_with_sentences() -> None:
    for joined in (" ", "\n"):
        sentences = write_sentences(400)
        passages = cut_passages([joined.join(sentences).encode()], lambda size: 1)
        known, lengths = set(sentences), [len(passage.text) for passage in passages]
        for passage in passages:
            parts = passage.text.decode().replace(". ", ".\n").split("\n")
            assert set(parts) <= known
        # Of every octave some: a client may send a sentence or a page.
        assert {length.bit_length() for length in lengths} >= {6, 7, 8, 9, 10}


def test_one_document_has_sixteen_groups_that_share_nothing() -> None:
    text = " ".join(write_sentences(400)).encode()
    passages = cut_passages([text], lambda size: 1)
    spans: dict[int, tuple[int, int]] = {}
    for passage in passages:
        start = text.index(passage.text)
        low, high = spans.get(passage.group, (start, start))
        spans[passage.group] = min(low, start), max(high, start + len(passage.text))
    assert 14 <= len(spans) <= 16
    assert all(before[1] <= after[0] for before, after in pairwise(sorted(spans.values())))


def test_wrapped_prose_is_not_cut_at_its_lines() -> None:
    text = b"A sentence of many words that is\nwrapped at some width.\nAnother one follows, as long\nas the first."
    assert {passage.text for passage in cut_passages([text], lambda size: 1)} >= {
        b"A sentence of many words that is\nwrapped at some width.",
        b"Another one follows, as long\nas the first.",
    }


def test_text_without_sentences_is_cut_between_characters() -> None:
    text = "é".encode() * 4000
    passages = cut_passages([text], lambda size: 1)
    assert len(passages) > 20
    assert all(passage.text.decode() for passage in passages)


def test_what_the_model_computes_is_bounded() -> None:
    documents = [" ".join(write_sentences(300, seed)).encode() for seed in range(20)]
    passages = cut_passages(documents, lambda size: 1 + size // 64)
    octaves: dict[int, int] = {}
    for passage in passages:
        octave = len(passage.text).bit_length()
        octaves[octave] = octaves.get(octave, 0) + 1 + len(passage.text) // 64
    assert max(octaves.values()) <= 2 * 256
    assert len({passage.group for passage in passages}) == 20
