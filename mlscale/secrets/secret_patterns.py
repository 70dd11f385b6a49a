"""Patterns of secrets: the names of keys that hold one, and the formats of well-known API keys.

Used for configs, overrides, logs and code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

MASK = "***"


def split_words(text: str) -> frozenset[str]:
    """Return the words of `text` as a set: long lists are easier to read as plain lines."""
    return frozenset(text.split())


# Words of a key that mean a secret at any position, unless the last word is in `_ABOUT`.
_SECRET_WORDS = split_words(
    "password passwords passwd pwd passphrase secret secrets credential credentials apikey apikeys accesskey secretkey "
    "privatekey authtoken accesstoken bearer authorization dsn connectionstring webhook apprise cookie cookies htpasswd"
)
_LAST_WORDS = split_words("auth pass token")  # a secret as the last word: `db_pass`, `hf_token`
_PHRASES = re.compile(
    r"\b(api|access|private|secret|ssh|signing|encryption|account|license|client|shared|master|deploy|service) keys?\b"
    r"|\baccess key id\b|\bconnection string\b|\b(api|access|auth|bearer|refresh|session|id|personal) tokens?\b"
)
# `pad_token` is a word of a vocabulary, `num_tokens` a number, `key_path` and `token_url` are locations.
_HARMLESS_TOKEN = split_words(
    "pad eos bos mask cls unk sep image text prompt stop start end num max min per special class reg register new "
    "audio video user assistant system first last next out in n"
)
_ABOUT = split_words(
    "file path dir folder name env var variable size sizes length len type types dim format regex pattern prefix count "
    "num required enabled timeout ttl expiry expires age policy strength manager provider field column index"
)

_FORMATS = re.compile(
    r"""
    (?<![A-Za-z0-9])(?:
        (?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])                                   # AWS access key id
      | gh[pousr]_[A-Za-z0-9]{30,255} | github_pat_[A-Za-z0-9_]{22,255}         # GitHub
      | glpat-[A-Za-z0-9_-]{20,64}                                              # GitLab
      | hf_[A-Za-z0-9]{30,64}                                                   # Hugging Face
      | sk-[A-Za-z0-9_-]{20,256}                                                # OpenAI, Anthropic and others
      | xox[abeoprs]-[A-Za-z0-9-]{10,255}                                       # Slack
      | AIza[A-Za-z0-9_-]{35}                                                   # Google
      | pypi-[A-Za-z0-9_-]{50,}                                                 # PyPI
      | local-[0-9a-f]{40}(?![0-9a-f])                                          # a W&B server of one's own
      | eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}           # JSON web token
    )
    | -----BEGIN\ (?:[A-Z0-9]+\ )*PRIVATE\ KEY(?:\ BLOCK)?-----(?:[^-]|-(?!----END))*(?:-----END\ [A-Z0-9\ ]+-----)?
    """,
    re.VERBOSE,
)
# A cheap test first: a text without any of these holds no well-known format.
_HINTS = re.compile(r"AKIA|ASIA|gh[pousr]_|github_pat_|glpat-|hf_|sk-|xox[abeoprs]-|AIza|pypi-|local-|eyJ|PRIVATE KEY")
_USERINFO = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s/:@'\"{}$<>]{0,256}:(?P<value>[^\s/@'\"{}<>]{1,256})@")
# The signature of an address that is signed for a time: AWS, Google, Azure, CloudFront.
_SIGNED = re.compile(
    r"(?i)[?&](?:x-amz-(?:signature|credential|security-token)|x-goog-(?:signature|credential)|signature|sig|"
    r"awsaccesskeyid)=(?P<value>[^\s&'\"{}$<>#]{4,2048})"
)
# A digit is required, so that prose such as "basic requirements" does not match.
_HEADER = re.compile(r"(?i)\b(?:bearer|basic)\s+(?P<value>(?=[^\s\d]{0,64}\d)[A-Za-z0-9._~+/=-]{8,})")
# `key = "literal"`, `key: "literal"`, `"key": "literal"`, `KEY=literal`, `key: literal`.
# The key's length is bounded, and not tried again shorter: a long line of one word would take quadratic time.
# `==` compares or pins a version (`google-auth==2.63.0`); what follows an arrow is a type, or new code, not a key.
_ASSIGNED = re.compile(
    r"""(?<![A-Za-z0-9_.-])(?<!->\ )(?P<key>[A-Za-z_][A-Za-z0-9_.-]{1,80}+)['"]?\]?\s{0,8}
        (?::\s{0,8}str\s{0,8})?(?:=(?!=)|:)\s{0,8}
        (?: [rbuf]?(?P<quote>['"])(?P<quoted>(?:\\.|(?!(?P=quote))[^\\\n])*)(?P=quote)
        | (?P<bare>[^\s'"#,;(){}\[\]]+) )""",
    re.VERBOSE,
)
_KEY_HINTS = re.compile(
    r"(?i)pass|pwd|secret|credential|token|auth|api|key|bearer|dsn|webhook|apprise|cookie|connection"
)
# A key of W&B is 40 hex digits, as a git commit is: it counts only near one of these words.
_WANDB_NEAR = re.compile(r"(?i)(?:wandb|api.?key|token)[^\n]{0,80}?(?<![0-9a-f])(?P<value>[0-9a-f]{40})(?![0-9a-f])")
# `id-token: write` is a permission; `user:pass@host` is how documents write an address;
# `f"Bearer {key}"` holds the name of a variable.
_PLACEHOLDER = re.compile(
    r"(?i)^(?:(?:bearer|basic)\s+)?(?:\*+|x+|\.+|read|write|<.*>|\$\{.*|\$\(.*|\$[a-z_]+|%\(.*|\{.*\}|null|none|true|false|\?\?\?|"
    r"str|int|bool|bytes|optional.*|pass|password|change.?me|your[-_ ].*|self\..*|os\..*|args\..*|cfg\..*|config\..*)$"
)


class SecretSpan(NamedTuple):
    """The position of a secret in a text: `text[start:end]`."""

    start: int
    end: int


@lru_cache(maxsize=4096)
def split_key_words(key: str) -> tuple[str, ...]:
    """Return the words of a key, in lower case: `wandbAPIKey` and `wandb-api_key` are both wandb, api, key."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", key)
    return tuple(re.findall(r"[a-z0-9]+", spaced.lower()))


@lru_cache(maxsize=4096)
def is_secret_key(key: str) -> bool:
    """Return True if a key's name means a secret: not `tokenizer`, `max_tokens`, `key_size`, `image_key`."""
    words = split_key_words(key)
    if not words or words[-1] in _ABOUT:
        return False
    if words[-1] == "token" and len(words) > 1 and words[-2] in _HARMLESS_TOKEN:
        return False
    return bool(_SECRET_WORDS & set(words)) or words[-1] in _LAST_WORDS or bool(_PHRASES.search(" ".join(words)))


def is_harmless_value(key: str, value: object) -> bool:
    """Return True if `value` can't be a secret even under a secret-like key: empty, a bool, or a number named token."""
    if value is None or isinstance(value, bool) or value == "":
        return True
    return isinstance(value, int | float) and split_key_words(key)[-1:] in (("token",), ("pass",))


def find_secret_spans(text: str, *, bare: bool = True) -> list[SecretSpan]:
    """Return likely secrets in any text: code, a diff, YAML, a log line.

    Args:
        text: any text.
        bare: also take values without quotes after a secret-like key, as in YAML and .env files. Off for code, where
            `token = make_token` names a variable.

    Returns:
        Their positions, sorted, without overlaps.
    """
    return _merge_spans(_scan_text(text, bare))


def mask_spans(text: str, spans: list[SecretSpan]) -> str:
    """Return `text` with each position in `found`, a result of `find_secret_spans`, replaced by ***."""
    # From the end: a replacement changes the positions of all that follows.
    for start, end in reversed(spans):
        text = text[:start] + MASK + text[end:]
    return text


def has_known_format(value: str) -> bool:
    """Return True for a value in a well-known format, or a URL with a password: a secret under any key."""
    return bool(list(_match_formats(value)))


def _match_formats(text: str) -> Iterator[SecretSpan]:
    if _HINTS.search(text):
        yield from (SecretSpan(*match.span()) for match in _FORMATS.finditer(text))
    if "://" in text:
        for match in _USERINFO.finditer(text):
            if not _PLACEHOLDER.match(match["value"]):
                yield SecretSpan(*match.span("value"))
        yield from (SecretSpan(*match.span("value")) for match in _SIGNED.finditer(text))


def _scan_text(text: str, bare: bool) -> Iterator[SecretSpan]:
    yield from _match_formats(text)
    for pattern in (_HEADER, _WANDB_NEAR):
        yield from (SecretSpan(*match.span("value")) for match in pattern.finditer(text))
    for match in _ASSIGNED.finditer(text):
        group = "quoted" if match["quote"] else "bare"
        if group == "bare" and not bare:
            continue
        value = match[group]
        if not _KEY_HINTS.search(match["key"]) or not is_secret_key(match["key"].rsplit(".", 1)[-1]):
            continue
        if len(value) >= 4 and not _PLACEHOLDER.match(value) and not _repeats_key(match["key"], value):
            yield SecretSpan(*match.span(group))


def _repeats_key(key: str, value: str) -> bool:
    """Return True if a value has the words of its key alone, such as `TOKEN = "token"`, which is a name."""
    words = split_key_words(value)
    return bool(words) and set(words) <= set(split_key_words(key))


def _merge_spans(spans: Iterator[SecretSpan]) -> list[SecretSpan]:
    merged: list[SecretSpan] = []
    for span in sorted(spans):
        if merged and span.start < merged[-1].end:
            merged[-1] = SecretSpan(merged[-1].start, max(merged[-1].end, span.end))
        else:
            merged.append(span)
    return merged
