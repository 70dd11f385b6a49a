"""Mask secrets in all output of the process: text, logs, console, trackers, files.

A value is masked in every form that it is likely to have: unchanged, in a URL, in JSON, in YAML, and in Base64.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, TextIO
from urllib.parse import quote, quote_plus, unquote

from mlscale.secrets.config_secrets import PREFIX, find_secrets, mask_overrides, read_referenced_variables
from mlscale.secrets.secret_patterns import (
    MASK,
    find_secret_spans,
    is_harmless_value,
    is_secret_key,
    mask_spans,
    split_words,
)

SHORTEST = 4  # characters; masking shorter values would make any text unreadable and hide little
_COMMON = split_words("true false none null auto default test local localhost admin root user password secret token")
_OVERRIDE = re.compile(r"(?<![^\s'\"`])[+~-]{0,2}[A-Za-z_][\w.@/-]{0,200}=(?!<[^<>\n]{1,80}>)[^\s'\"`,;)]+")


class Masker:
    """A masker: holds the secrets of this run and replaces them in text."""

    _known_values: ClassVar[set[str]] = set()  # of all configs: an error is printed where its config is not accessible

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._forms: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self._openings: re.Pattern[str] | None = None
        self.register_values(*values)

    @classmethod
    def create_for_run(cls, config: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Masker:
        """Return the masker of a run: for secrets in its config, those it refers to, and those of the environment."""
        environment = os.environ if environ is None else environ
        values = {str(value) for value in find_secrets(config).values()}
        values |= {value for name, value in environment.items() if _is_secret_variable(name, value)}
        for name, value in read_referenced_variables(config, environment).items():
            if _is_secret_variable(name, value) or _is_possible_secret(value):
                values.add(value)
        cls._known_values |= values
        return cls(values)

    @classmethod
    def create_for_process(cls) -> Masker:
        """Return the masker for a process's final error: for secrets of all its configs and its environment."""
        return cls(cls.create_for_run({})._known_values)

    def register_values(self, *values: str) -> None:
        """Add values to mask, and secrets inside them, such as the password of a URL.

        Short or common values are not masked: almost any text contains them.
        """
        inner = [value[span.start : span.end] for value in values for span in find_secret_spans(value)]
        forms = {form for value in (*values, *inner, *map(unquote, inner)) for form in _generate_forms(value)}
        if forms - self._forms:
            self._forms |= forms
            # A regular expression takes the first alternative that fits: a shorter form would leave a rest.
            longest_first = sorted(self._forms, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, longest_first)))
            openings = sorted({re.escape(form[:SHORTEST]) for form in self._forms})
            # A lookahead matches at every position, also where two possible beginnings overlap.
            self._openings = re.compile(f"(?={'|'.join(openings)})")

    def mask_text(self, text: str) -> str:
        """Return `text` with masked secrets: registered values, well-known formats, `api_key=…` of a command line."""
        if self._pattern is not None:
            text = self._pattern.sub(MASK, text)
        text = _OVERRIDE.sub(lambda typed: mask_overrides([typed[0]])[0], text)
        return mask_spans(text, find_secret_spans(text, bare=False))

    def mask_tree(self, value: object) -> Any:
        """Return containers with masked secrets, for trackers and JSON: *** under secret-like keys, texts masked."""
        if isinstance(value, Mapping):
            return {key: self._mask_item(str(key), item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.mask_tree(item) for item in value]
        return self.mask_text(value) if isinstance(value, str) else value

    def count_held_back(self, text: str) -> int:
        """Return the number of last characters of `text` that may begin a secret which continues in the next write."""
        if self._openings is None:
            return 0
        # An incomplete secret has at least one character less than the longest form.
        tail = text[1 - max(map(len, self._forms)) :]
        starts = [match.start() for match in self._openings.finditer(tail)]
        starts += range(max(0, len(tail) - SHORTEST + 1), len(tail))
        return next((len(tail) - at for at in starts if any(f.startswith(tail[at:]) for f in self._forms)), 0)

    def _mask_item(self, key: str, item: object) -> Any:
        if is_secret_key(key) and not isinstance(item, Mapping | list | tuple) and not is_harmless_value(key, item):
            # An interpolation is shown: it names a variable, not its value.
            return item if isinstance(item, str) and re.fullmatch(r"\$\{[^{}]*\}", item) else MASK
        if is_secret_key(key) and isinstance(item, Mapping):
            return {name: v if str(name).startswith("_") else self._mask_item(key, v) for name, v in item.items()}
        if is_secret_key(key) and isinstance(item, list | tuple):
            return [self._mask_item(key, entry) for entry in item]
        return self.mask_tree(item)


class MaskFilter(logging.Filter):
    """A filter that masks log records and their tracebacks. Add it to handlers: a logger's own filters do not see the
    records of its children."""

    def __init__(self, masker: Masker) -> None:
        super().__init__()
        self.masker = masker

    def filter(self, record: logging.LogRecord) -> bool:
        # The arguments are part of the message now; with them, a handler would format it a second time.
        record.msg, record.args = self.masker.mask_text(record.getMessage()), None
        if record.exc_info and not record.exc_text:
            record.exc_text = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        if record.exc_text:
            record.exc_text = self.masker.mask_text(record.exc_text)
        if record.stack_info:
            record.stack_info = self.masker.mask_text(record.stack_info)
        return True


class MaskedStream:
    """A text stream that masks what is written to it, also secrets that are split over several writes.

    Only characters that may begin a secret wait for the next write, so prompts and progress bars appear at once. What
    is written directly to the file descriptor is not masked.
    """

    def __init__(self, stream: TextIO, masker: Masker) -> None:
        self._stream, self._masker, self._waiting = stream, masker, ""

    def write(self, text: str) -> int:
        whole = self._waiting + text
        held = self._masker.count_held_back(whole)
        self._waiting = whole[len(whole) - held :]
        self._stream.write(self._masker.mask_text(whole[: len(whole) - held]))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush what was written, except characters that may begin a secret."""
        self._stream.flush()

    def write_waiting(self) -> None:
        """Write the waiting characters, for no write follows."""
        waiting, self._waiting = self._waiting, ""
        self._stream.write(self._masker.mask_text(waiting))
        self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def mask_output(masker: Masker) -> Iterator[None]:
    """Mask stdout, stderr and the handlers of every logger during the block."""
    before = sys.stdout, sys.stderr
    out, err = MaskedStream(before[0], masker), MaskedStream(before[1], masker)
    # Replacing the streams is not enough: handlers of libraries keep the stream from the time of their import.
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in list(logging.root.manager.loggerDict))]
    log_filter, handlers = MaskFilter(masker), [handler for logger in loggers for handler in logger.handlers]
    for handler in handlers:
        handler.addFilter(log_filter)
    sys.stdout, sys.stderr = out, err
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for handler in handlers:
            handler.removeFilter(log_filter)
        out.write_waiting()
        err.write_waiting()


def _is_secret_variable(variable: str, value: str) -> bool:
    """Return True if an environment variable's name means a secret, and its value is not a path; PWD is not one."""
    if variable.startswith(PREFIX):
        return True
    return is_secret_key(variable) and variable not in ("PWD", "OLDPWD") and not _is_path(value)


def _is_path(value: str) -> bool:
    return os.sep in value and os.path.lexists(value)


def _is_possible_secret(value: str) -> bool:
    """Return True if a variable without a secret-like name may hold a secret: not a short value, a number or a path."""
    return len(value) >= 2 * SHORTEST and not value.isdigit() and not _is_path(value)


def _generate_forms(value: str) -> Iterator[str]:
    """Yield the forms of a value: unchanged, its lines, in a URL, JSON, YAML, a Python string, hex and Base64."""
    if len(value) < SHORTEST or value.lower() in _COMMON or value.startswith("${"):
        return
    yield value
    yield from (line.strip() for line in value.splitlines() if len(line.strip()) >= 2 * SHORTEST)
    yield from (quote(value, safe=""), quote(value), quote_plus(value))
    yield from (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1])
    yield value.replace("'", "''")
    raw = value.encode("utf-8", errors="surrogateescape")
    yield raw.hex()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(raw).decode().rstrip("=")
        # Inside a longer text (`user:password` of a basic authorization) the value begins at any of three places.
        for offset in range(3):
            inner = encode(b"\0" * offset + raw)[(0, 2, 3)[offset] :].decode().rstrip("=")
            inner = inner[:-1] if (len(raw) + offset) % 3 else inner  # the last character depends on what follows
            if len(inner) >= 2 * SHORTEST:
                yield inner
