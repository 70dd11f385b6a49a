"""A tokenizer of the package `tokenizers`: between texts and token ids, by the JSON file that the package saves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mlscale.errors import Exit, MLScaleError

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


ROLES: Mapping[str, tuple[str, ...]] = {
    "eos": ("<|endoftext|>", "</s>", "<eos>", "<|end_of_text|>", "[EOS]", "<|eos|>"),
    "bos": ("<|startoftext|>", "<s>", "<bos>", "<|begin_of_text|>", "[BOS]", "<|bos|>"),
    "pad": ("<pad>", "[PAD]", "<|pad|>", "<|padding|>", "<|finetune_right_pad_id|>"),
    "unk": ("<unk>", "[UNK]", "<|unk|>"),
}
"""The special tokens by role, each with the names that it usually has."""
MOST_BYTES = 1 << 26
"""Of a file: the largest vocabularies in use, of 260,000 tokens, take half of it."""
_LISTED = 12


@dataclass(frozen=True)
class Tokenizer:
    """From texts to token ids, and back.

    Args:
        content: the JSON of the file, without what it has of cutting, padding and dropout, keys sorted.
        roles: the name of the token of each role that it has, in the order of `ROLES`.
    """

    content: str
    roles: tuple[tuple[str, str], ...]

    @classmethod
    def load_file(cls, path: str | Path, special_tokens: Mapping[str, str] | None, *, where: str) -> Tokenizer:
        """Return the tokenizer of a file.

        Args:
            path: `tokenizer.json`, as `tokenizers` and `transformers` save it.
            special_tokens: the name of a token by role; those that are not in it have one of the usual names, or none.
            where: the key path of the file, for errors; that of the special tokens is next to it.

        Raises:
            MLScaleError: it can't be read, is not a tokenizer, or lacks a token that is named.
        """
        file = Path(path).expanduser()
        try:
            if file.stat().st_size > MOST_BYTES:
                raise ValueError(f"it is over {MOST_BYTES:,} bytes")
            document = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(document, dict) or not isinstance(document.get("model"), dict):
                raise ValueError("it is not a tokenizer: it has no 'model'")
        except (OSError, ValueError) as error:
            raise _build_read_error(str(file), getattr(error, "strerror", None) or str(error), where) from error
        # Not as it is in the file: spaces, and what an earlier use has left there, are no part of the tokenizer.
        content = _write_content(document)
        # First without roles: they are looked up among its tokens.
        plain = cls(content, ())
        try:
            names = plain._names
        except ValueError as error:
            raise _build_read_error(str(file), str(error), where) from error
        return cls(
            content, _find_roles(names, document, special_tokens or {}, where.replace("tokenizer", "special_tokens"))
        )

    @classmethod
    def parse_settings(cls, settings: Mapping[str, Any]) -> Tokenizer:
        """Return the tokenizer of `describe_settings`.

        Raises:
            ValueError: it is not one, or has not the digest that is stated.
        """
        roles = tuple((str(role), str(name)) for role, name in settings["special_tokens"].items())
        parsed = cls(str(settings["content"]), roles)
        if parsed.digest != settings["digest"]:
            raise ValueError(f"a tokenizer of the digest {parsed.digest}, not {settings['digest']}")
        if unknown := [name for _, name in roles if name not in parsed._names]:
            raise ValueError(f"a tokenizer without the token {unknown[0]!r}")
        return parsed

    def describe_settings(self) -> dict[str, Any]:
        """Return all that defines the tokenizer, as JSON values."""
        return {"digest": self.digest, "special_tokens": dict(self.roles), "content": self.content}

    @cached_property
    def digest(self) -> str:
        """The digest of the content: spaces and the order of keys in the file do not change it."""
        return hashlib.sha256(self.content.encode()).hexdigest()[:16]

    @cached_property
    def size(self) -> int:
        """The rows of an embedding of all tokens: the largest id and one; ids may have gaps."""
        return max(self._names.values()) + 1

    @cached_property
    def has_template(self) -> bool:
        """True if the file has a template that puts special tokens around a text, such as [CLS] and [SEP]."""
        return self.count_template_tokens() > 0

    def count_template_tokens(self) -> int:
        """Return the tokens that the template adds to a text."""
        return int(self._engine.num_special_tokens_to_add(False))

    def get_id(self, role: str) -> int | None:
        """Return the id of the token of a role; None where it has none."""
        name = dict(self.roles).get(role)
        return None if name is None else self._names[name]

    def encode_texts(self, texts: Sequence[bytes], *, length: int | None = None) -> list[list[int]]:
        """Return the ids of each text; bytes that are not UTF-8 become �, special tokens in a text are plain text.

        Args:
            texts: UTF-8.
            length: with the template's tokens around each text, and cut to so many; None: all of the text, without.
        """
        engine = self._engine
        self._limit_length(length)
        decoded = [text.decode("utf-8", "replace") for text in texts]
        # `fast` leaves out the offsets of tokens, which nothing here reads.
        encodings = engine.encode_batch_fast(decoded, add_special_tokens=length is not None)
        return [encoding.ids for encoding in encodings]

    def decode_rows(self, rows: Sequence[Sequence[int]]) -> list[bytes]:
        """Return the texts of ids, without special tokens; some tokenizers lose spaces or case."""
        texts = self._stored_engine.decode_batch([list(row) for row in rows], skip_special_tokens=True)
        return [text.encode() for text in texts]

    def _limit_length(self, length: int | None) -> None:
        if length != (self._engine.truncation or {}).get("max_length"):
            # An encoder has one length, so that this is set once and not while another thread encodes.
            if length is None:
                self._engine.no_truncation()
            else:
                self._engine.enable_truncation(length)

    @cached_property
    def _names(self) -> Mapping[str, int]:
        # With the added tokens, special ones among them, whose ids come after those of the model.
        names: Mapping[str, int] = self._stored_engine.get_vocab(with_added_tokens=True)
        if not names:
            raise ValueError("it has no tokens")
        return names

    @cached_property
    def _stored_engine(self) -> Any:
        """The tokenizer as it is in the file, for names and decoding."""
        return _load_engine(self.content)

    @cached_property
    def _engine(self) -> Any:
        """The tokenizer that encodes: no text makes a special token of it, which would end a document."""
        hidden = hide_special_tokens(json.loads(self.content))
        engine = self._stored_engine if hidden is None else _load_engine(json.dumps(hidden))
        engine.encode_special_tokens = True
        return engine


def check_has_tokenizer(tokenizer: str | None, special_tokens: Mapping[str, str] | None) -> None:
    """Raise an error if special tokens are named and no tokenizer is.

    Raises:
        MLScaleError: they are.
    """
    if tokenizer is None and special_tokens:
        raise MLScaleError(
            "data.special_tokens has no effect without data.tokenizer",
            where="data.special_tokens",
            why="they are tokens of a tokenizer",
            fix="data.tokenizer=tokenizer.json",
        )


def _write_content(document: Mapping[str, Any]) -> str:
    """Return the JSON of a tokenizer without what its file keeps of an earlier use."""
    model = dict(document["model"])
    if model.get("dropout"):
        # Dropout draws merges at random: training, serving and a resumed run would read a text differently.
        model["dropout"] = None
    plain = {**document, "model": model, "truncation": None, "padding": None}
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _find_roles(
    names: Mapping[str, int], document: Mapping[str, Any], given: Mapping[str, str], where: str
) -> tuple[tuple[str, str], ...]:
    if unknown := [role for role in given if role not in ROLES]:
        raise MLScaleError(
            f"unknown role of a special token: {unknown[0]!r}",
            where=where,
            why=f"the roles are {', '.join(ROLES)}",
            fix=f"'{where}={{eos: \"</s>\"}}'",
        )
    special = [str(token["content"]) for token in document.get("added_tokens") or ()]
    for role, name in given.items():
        if name not in names:
            raise MLScaleError(
                f"the tokenizer has no token {name!r}, the {role} of {where}",
                where=f"{where}.{role}",
                why=f"its special tokens are: {', '.join(special[:_LISTED]) or 'none'}",
                fix=f"'{where}={{{role}: \"{special[0]}\"}}'" if special else "train or save it with that token",
            )
    # The model of a tokenizer states its own unknown token, whatever it is called.
    stated = document["model"].get("unk_token")
    usual = {**ROLES, "unk": (*((stated,) if isinstance(stated, str) else ()), *ROLES["unk"])}
    by_name = {role: next((name for name in usual[role] if name in names), None) for role in ROLES}
    chosen = {role: given.get(role) or by_name[role] for role in ROLES}
    return tuple((role, name) for role, name in chosen.items() if name is not None)


def _build_read_error(path: str, why: str, where: str) -> MLScaleError:
    return MLScaleError(
        f"the tokenizer {path!r} can't be read",
        where=where,
        why=why,
        fix=f"{where}=<tokenizer.json>, as tokenizer.save('tokenizer.json') writes it",
    )


def _load_engine(content: str) -> Any:
    tokenizers = import_tokenizers()
    try:
        return tokenizers.Tokenizer.from_str(content)
    # The package raises a bare Exception for every fault of a file.
    except Exception as error:
        raise ValueError(f"the package tokenizers refuses it: {' '.join(str(error).split())}") from error


def import_tokenizers() -> Any:
    """Return the package.

    Raises:
        MLScaleError: it is not installed.
    """
    try:
        import tokenizers
    except ImportError as error:
        raise MLScaleError(
            "the package tokenizers is not installed",
            where="data.tokenizer",
            why="the texts of this data or model are read by it",
            fix="pip install 'mlscale[tokenizers]'",
            exit=Exit.ENVIRONMENT,
        ) from error
    return tokenizers
