"""Special tokens that the model of a tokenizer has among its words: out of reach of texts that quote them.

`encode_special_tokens` of the package keeps special tokens from being looked for before the model reads a text. But the
vocabulary of the model has them, too, where it was trained with them: Unigram prefers a whole `</s>` to its
characters, and WordLevel and WordPiece take it as a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_PREFIX = "\U0010fffe\U0010ffff"
"""Two code points that no text has, since they are no characters."""


def hide_special_tokens(document: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a tokenizer whose model has its special tokens under names that no text has; None where it has none.

    Ids are the same. It is for encoding alone: the names are others.

    Args:
        document: of a tokenizer.
    """
    added = document.get("added_tokens") or []
    special = {token["content"] for token in added if token.get("special")}
    model = dict(document["model"])
    vocabulary = model.get("vocab") or {}
    # Pairs of a piece and its score in Unigram, names with their ids in the others.
    is_scored = isinstance(vocabulary, list)
    shared = special & ({piece for piece, _ in vocabulary} if is_scored else vocabulary.keys())
    if not shared or not _takes_whole_words(model):
        return None
    names = {name: _PREFIX + name for name in shared}
    model["vocab"] = (
        [[names.get(piece, piece), score] for piece, score in vocabulary]
        if is_scored
        else {names.get(name, name): number for name, number in vocabulary.items()}
    )
    # By name in all but Unigram, which has its number.
    if isinstance(unknown := model.get("unk_token"), str):
        model["unk_token"] = names.get(unknown, unknown)
    # An added token that the model has under another name would get a new id.
    return {**document, "model": model, "added_tokens": [token for token in added if token["content"] not in shared]}


def _takes_whole_words(model: Mapping[str, Any]) -> bool:
    """Return False where tokens are made by merges alone, of which none makes a special one."""
    return model.get("type") != "BPE" or bool(model.get("ignore_merges"))
