"""Changes of texts: the words of another domain, and a broken encoding."""

from __future__ import annotations

import re

from mlscale.commands.lifecycle.shifts.shift import Shift

_WORD = re.compile(rb"[A-Za-z]{3,}")
_VOWELS, _CONSONANTS = "aeiou", "bcdfghjklmnpqrstvwxyz"


def list_text_shifts(name: str) -> list[list[Shift]]:
    """Return the change of texts of this name."""
    if name == "domain":
        return [[Shift(name, "all words are replaced by those of another domain", _replace_words)]]
    return [[Shift(name, "UTF-8 is read as Latin-1", _decode_wrongly)]]


def _build_letter_table() -> bytes:
    """Return the table that replaces vowels by vowels and consonants by consonants: made-up words can be read, and the
    same word has the same replacement everywhere."""
    table = bytearray(range(256))
    for letters in (_VOWELS, _CONSONANTS):
        moved = letters[len(letters) // 2 :] + letters[: len(letters) // 2]
        for before, after in zip(letters + letters.upper(), moved + moved.upper(), strict=True):
            table[ord(before)] = ord(after)
    return bytes(table)


_LETTERS = _build_letter_table()


def _replace_words(text: bytes) -> bytes:
    # Shorter words are mostly those of grammar, which domains share.
    return _WORD.sub(lambda word: word[0].translate(_LETTERS), text)


def _decode_wrongly(text: bytes) -> bytes:
    # Each byte is a character of Latin-1, so this never fails, and ASCII stays what it is.
    return text.decode("latin-1").encode()
