"""Tokenizers of the package tokenizers, and the encoders that have them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlscale.data.encoders.document_encoder import SCORED
from mlscale.data.encoders.encoder import INPUT
from mlscale.data.encoders.stored_encoder import parse_encoder
from mlscale.data.encoders.summaries.text_summary import create_summary
from mlscale.data.encoders.text_encoder import TextEncoder
from mlscale.data.encoders.token_encoders import TokenDocumentEncoder, TokenTextEncoder
from mlscale.data.encoders.tokenizer import Tokenizer
from mlscale.errors import MLScaleError
from tests.tokenizer_files import TEXTS, save_bpe, save_words

CONTENTS = [text.encode() for text in TEXTS]


@pytest.fixture
def bpe(tmp_path: Path) -> Tokenizer:
    return Tokenizer.load_file(save_bpe(tmp_path / "bpe.json"), None, where="data.tokenizer")


@pytest.fixture
def words(tmp_path: Path) -> Tokenizer:
    return Tokenizer.load_file(save_words(tmp_path / "words.json"), None, where="data.tokenizer")


def test_ids_are_those_of_the_package(tmp_path: Path, bpe: Tokenizer) -> None:
    import tokenizers

    saved = tokenizers.Tokenizer.from_file(str(tmp_path / "bpe.json"))
    assert bpe.encode_texts(CONTENTS) == [saved.encode(text).ids for text in TEXTS]
    assert bpe.decode_rows(bpe.encode_texts(CONTENTS)) == CONTENTS
    assert bpe.size == saved.get_vocab_size()


def test_the_digest_is_that_of_the_content(tmp_path: Path, bpe: Tokenizer) -> None:
    document = json.loads((tmp_path / "bpe.json").read_text())
    # What a use of the file has left in it, and how it is written, changes no token.
    document["truncation"] = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    document["model"]["dropout"] = 0.5
    other = tmp_path / "other.json"
    other.write_text(json.dumps(document, indent=3))
    same = Tokenizer.load_file(other, None, where="data.tokenizer")
    assert same.digest == bpe.digest
    assert same.encode_texts(CONTENTS) == bpe.encode_texts(CONTENTS)
    assert Tokenizer.load_file(save_bpe(other, size=330), None, where="data.tokenizer").digest != bpe.digest


def test_special_tokens_are_found_by_their_usual_names(bpe: Tokenizer, words: Tokenizer) -> None:
    assert dict(bpe.roles) == {"eos": "<|endoftext|>"}
    assert dict(words.roles) == {"pad": "[PAD]", "unk": "[UNK]"}
    assert (bpe.get_id("eos"), words.get_id("pad"), words.get_id("eos")) == (0, 0, None)


def test_a_word_is_not_the_unknown_token(tmp_path: Path) -> None:
    """A tokenizer without one may have a token that is written None, as Python's null is."""
    path = Path(save_bpe(tmp_path / "bpe.json"))
    document = json.loads(path.read_text())
    document["model"]["vocab"]["None"] = 320
    path.write_text(json.dumps(document))
    assert Tokenizer.load_file(path, None, where="data.tokenizer").get_id("unk") is None


def test_special_tokens_of_a_text_are_plain_text(bpe: Tokenizer) -> None:
    (ids,) = bpe.encode_texts([b"a<|endoftext|>b"])
    assert bpe.get_id("eos") not in ids
    assert bpe.decode_rows([ids]) == [b"a<|endoftext|>b"]


@pytest.mark.parametrize("kind", ["Unigram", "WordLevel", "WordPiece", "BPE"])
def test_special_tokens_in_the_vocabulary_of_a_model_are_plain_text_too(tmp_path: Path, kind: str) -> None:
    """Models that are trained with special tokens have them as words: the `</s>` of HTML must not end a document."""
    import tokenizers
    from tokenizers import models, pre_tokenizers, trainers

    special = ["<pad>", "<unk>", "</s>"]
    unknown: dict[str, Any] = {"unk_token": "<unk>"}
    kinds: dict[str, tuple[Any, Any]] = {
        "Unigram": (models.Unigram, partial(trainers.UnigramTrainer, **unknown)),
        "WordLevel": (partial(models.WordLevel, **unknown), trainers.WordLevelTrainer),
        "WordPiece": (partial(models.WordPiece, **unknown), trainers.WordPieceTrainer),
        # Whole words are looked up in the vocabulary before they are merged.
        "BPE": (partial(models.BPE, **unknown, ignore_merges=True), trainers.BpeTrainer),
    }
    model, trainer = kinds[kind]
    saved = tokenizers.Tokenizer(model())
    saved.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainer(special_tokens=special, show_progress=False, vocab_size=90)
    saved.train_from_iterator([*TEXTS, "< / s > p a d u n k"] * 20, trainer)
    saved.save(str(tmp_path / "t.json"))
    tokenizer = Tokenizer.load_file(tmp_path / "t.json", None, where="data.tokenizer")
    ids = {role: tokenizer.get_id(role) for role in ("pad", "unk", "eos")}
    assert list(ids.values()) == [0, 1, 2]
    # Without a quote nothing changes, ids of unknown words included.
    plain = "The quick fox\u4e00 jumps"
    assert tokenizer.encode_texts([plain.encode()]) == [saved.encode(plain, add_special_tokens=False).ids]
    (quoted,) = tokenizer.encode_texts([b"The </s> fox <pad> jumps </s>"])
    assert not {0, 2} & set(quoted)
    # What serves a model reads the same tokens.
    assert Tokenizer.parse_settings(tokenizer.describe_settings()).encode_texts([b"a </s>"]) == (
        tokenizer.encode_texts([b"a </s>"])
    )
    assert (tokenizer.size, tokenizer.digest) == (saved.get_vocab_size(), tokenizer.digest)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "Expecting property name"),
        ("[]", "it has no 'model'"),
        ('{"model": {"type": "Novel"}}', "the package tokenizers refuses it"),
        ('{"version": "1.0", "model": {"type": "WordLevel", "vocab": {}, "unk_token": "x"}}', "it has no tokens"),
    ],
)
def test_a_file_that_is_no_tokenizer(tmp_path: Path, content: str, why: str) -> None:
    pytest.importorskip("tokenizers")
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(MLScaleError, match="can't be read") as caught:
        Tokenizer.load_file(tmp_path / "t.json", None, where="data.tokenizer")
    assert why in caught.value.why
    assert caught.value.where == "data.tokenizer"


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MLScaleError, match=r"'.*none\.json' can't be read") as caught:
        Tokenizer.load_file(tmp_path / "none.json", None, where="data.tokenizer")
    assert caught.value.why == "No such file or directory"


def test_special_tokens_that_it_lacks(tmp_path: Path) -> None:
    path = save_bpe(tmp_path / "bpe.json")
    with pytest.raises(MLScaleError, match=r"no token '</s>', the eos of data\.special_tokens") as caught:
        Tokenizer.load_file(path, {"eos": "</s>"}, where="data.tokenizer")
    assert caught.value.why == "its special tokens are: <|endoftext|>"
    assert caught.value.fix == "'data.special_tokens={eos: \"<|endoftext|>\"}'"
    with pytest.raises(MLScaleError, match="unknown role of a special token: 'mask'"):
        Tokenizer.load_file(path, {"mask": "x"}, where="data.tokenizer")


def test_encoders_are_stored_and_read_again(bpe: Tokenizer, words: Tokenizer) -> None:
    for encoder in (TokenTextEncoder(6, words), TokenTextEncoder(6, bpe), TokenDocumentEncoder(6, bpe)):
        document = json.loads(json.dumps(encoder.to_document()))
        read = parse_encoder(document, where="servable.yaml")
        assert (read, read.digest) == (encoder, encoder.digest)
        for name, rows in encoder.pack_samples(CONTENTS).tensors.items():
            assert np.array_equal(read.pack_samples(CONTENTS).tensors[name], rows)


def test_an_edited_tokenizer_is_refused(words: Tokenizer) -> None:
    document = TokenTextEncoder(6, words).to_document()
    document["settings"]["tokenizer"]["content"] = document["settings"]["tokenizer"]["content"].replace("fox", "cat")
    with pytest.raises(MLScaleError, match="not the one that was written"):
        parse_encoder(document, where="servable.yaml")
    # The digest of the whole was changed, too.
    document["digest"] = TokenTextEncoder(6, words).digest
    document["settings"] = {**document["settings"], "unit": "token"}
    with pytest.raises(MLScaleError, match="the encoder"):
        parse_encoder(document, where="servable.yaml")


def test_texts_are_cut_within_their_template(words: Tokenizer) -> None:
    encoder = TokenTextEncoder(5, words)
    around = [words.encode_texts([b"x"], length=5)[0][place] for place in (0, -1)]
    tokens = encoder.encode_texts([b"the quick brown fox jumps", b"fox", b"FOX zebra"])
    assert encoder.offset == 0
    assert tokens[:, 0].tolist() == [around[0]] * 3
    assert tokens[0, -1] == around[1]
    assert tokens[1].tolist() == [around[0], words.encode_texts([b"fox"])[0][0], around[1], 0, 0]
    assert tokens[2, 2] == words.get_id("unk")
    assert encoder.vocabulary == words.size


def test_padding_is_nothing_but_padding(bpe: Tokenizer) -> None:
    """Token 0 of this tokenizer is another one, so that ids are one more."""
    encoder = TokenTextEncoder(30, bpe)
    assert (encoder.offset, encoder.vocabulary) == (1, bpe.size + 1)
    tokens = encoder.encode_texts(CONTENTS)
    for row, ids in zip(tokens, bpe.encode_texts(CONTENTS), strict=True):
        assert row[: len(ids)].tolist() == [one + 1 for one in ids][:30]
        assert not row[len(ids) :].any()
    assert encoder.decode_tokens(tokens)[0] == CONTENTS[0][: len(encoder.decode_tokens(tokens)[0])]


def test_samples_that_cannot_be_read(words: Tokenizer, bpe: Tokenizer) -> None:
    packed = TokenTextEncoder(4, bpe).pack_samples(["", "a", "\ud800", 3])  # type: ignore[list-item]
    assert set(packed.bad) == {0, 2, 3}
    assert packed.facts is not None
    assert packed.facts["length"].tolist() == [0, 1, 0, 0]
    encoder = TokenDocumentEncoder(4, bpe)
    assert encoder.pack_samples(["", "abc"]).bad == {0: "it is empty"}
    rows = np.array([[1, 2, bpe.size, 4, 5], [1, 2, 3, 4, 5]])
    assert encoder.find_bad_rows({INPUT: rows, SCORED: np.array([[0, 4], [0, 4]])}) == {
        0: f"it has the token {bpe.size}, and ids are 0 to {bpe.size - 1}"
    }


def test_a_document_is_read_in_windows(bpe: Tokenizer) -> None:
    """Every token and the end count once, after half of the context at least."""
    encoder = TokenDocumentEncoder(8, bpe)
    content = b"".join(CONTENTS)
    (ids,) = bpe.encode_texts([content])
    packed = encoder.pack_samples([content])
    assert packed.counts is not None
    assert packed.counts.tolist() == [encoder.count_windows(len(ids))]
    scored = packed.tensors[SCORED]
    own = [row[1 + first : 1 + last] for row, (first, last) in zip(packed.tensors[INPUT], scored, strict=True)]
    assert np.concatenate(own).tolist() == [*ids, 0]
    assert encoder.end == 0


def test_a_summary_is_that_of_the_text(bpe: Tokenizer) -> None:
    """Byte-level tokens decode to the text, so that the columns are those of a model of bytes."""
    from mlscale.data.encoders.document_encoder import DocumentEncoder

    for tokens, in_bytes in (
        (TokenTextEncoder(200, bpe), TextEncoder(200)),
        (TokenDocumentEncoder(16, bpe), DocumentEncoder(16)),
    ):
        sides = []
        for encoder in (tokens, in_bytes):
            packed = encoder.pack_samples(CONTENTS)
            summary = create_summary(encoder)
            sides.append(summary.summarize_samples(packed))
            assert summary.write_samples(packed, [2]) == [CONTENTS[2]]
        assert sides[0].keys() == sides[1].keys()
        for name, values in sides[0].items():
            assert np.array_equal(
                np.asarray(values, np.float64), np.asarray(sides[1][name], np.float64), equal_nan=True
            )
