"""Documents and tables on streams of any encoding: readable where it has the letters, else the same document."""

import contextlib
import io
import json

import numpy as np
import pytest

from mlscale.contracts.output_document import print_document
from mlscale.json_text import format_json
from mlscale.log_lines import JsonLineStream
from mlscale.report.terminal import replace_unprintable_letters
from mlscale.serve.http.exchange import create_encoder, encode_document
from mlscale.serve.protocol.json_numbers import parse_document


def open_stream(encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)


def read_bytes(stream: io.TextIOWrapper) -> bytes:
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue()


@pytest.mark.parametrize(
    ("encoding", "text", "written"),
    [
        ("utf-8", "größe 東", "größe 東"),
        ("UTF8", "größe 東", "größe 東"),
        ("utf-8", "\udcff", r"\udcff"),  # of a name of a file that is not UTF-8
        ("latin-1", "größe", r"gr\u00f6\u00dfe"),  # programs read JSON as UTF-8
        ("ascii", "größe 東", r"gr\u00f6\u00dfe \u6771"),
    ],
)
def test_a_document_is_one_in_utf8_whatever_the_encoding_of_the_stream(
    encoding: str, text: str, written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, log = open_stream(encoding), open_stream(encoding)
    monkeypatch.setattr("sys.stdout", out)
    print_document("error", {"what": text})
    # The log passes objects of other programs, and makes some itself.
    JsonLineStream(log).write(f"{text}\n{format_json({'what': text}, io.StringIO())}\n")
    assert f'"what": "{written}"'.encode() in read_bytes(out)
    assert json.loads(read_bytes(out)) == {"format": "mlscale/error/1", "what": text}
    message, passed = (json.loads(line) for line in read_bytes(log).splitlines())
    assert (message["message"], passed) == (text, {"what": text})


def test_tables_are_written_in_any_encoding() -> None:
    stream = open_stream("ascii")
    replace_unprintable_letters(stream)
    print("──  größe, …", file=stream)
    assert read_bytes(stream) == b"--  gr\\xf6\\xdfe, ...\n"


def test_responses_have_letters_as_they_are_and_half_a_surrogate_pair_escaped() -> None:
    assert encode_document({"error": "größe", "n": float("nan")}) == '{"error":"größe","n":NaN}'.encode()
    assert encode_document("\udcff") == b'"\\udcff"'
    with pytest.raises(ValueError, match="not JSON compliant"):
        create_encoder(allow_nan=False)(float("nan"))


@pytest.mark.parametrize("allow_nan", [True, False])
def test_responses_are_read_as_what_was_written_whichever_package_writes_them(allow_nan: bool) -> None:
    rng = np.random.default_rng(0)
    numbers = (rng.normal(size=2_000) * 10.0 ** rng.integers(-300, 300, 2_000)).tolist()
    single = rng.random(50, np.float32).tolist()
    texts = ['"quoted"', "größe 東 \u2028 \x7f \x00", "null", "</script>", ""]
    for document in (
        {"values": [*numbers, *single, 0.1, -0.0, 1e16, 1e-7, 5e-324, 2**63, -(2**63)], "texts": texts[:2]},
        {"values": [10**30, None, True], "texts": texts},  # which only `json` writes
    ):
        written = create_encoder(allow_nan=allow_nan)(document)
        assert repr(json.loads(written)) == repr(document)
        assert "größe".encode() in written


@pytest.mark.parametrize(
    "body",
    [
        *(b"[%b]" % number for number in (b"-0", b"1e400", b"NaN", b"-Infinity", b"0.1", b"1e2", b"01", b".5", b"1.")),
        *(str(number + edge).encode() for number in (2**53, 2**63, -(2**63), 2**64, 10**30) for edge in (-1, 0, 1)),
        *(b'"%b"' % text for text in (b"\\ud800", b"\\ud83d\\ude00", b"\t", "größe".encode(), b"\\u0000", b"\xff")),
        *(b'{"a": 1, "a": 2}', b"\xef\xbb\xbf[1]", "[1]".encode("utf-16"), b"", b"[1]x", b"[1,]", b"[" * 5_000),
    ],
)
def test_a_request_is_read_as_the_standard_library_reads_it(body: bytes) -> None:
    expected: object = ValueError
    with contextlib.suppress(ValueError, RecursionError):
        expected = json.loads(body)
    try:
        read = parse_document(body)
    except ValueError:
        read = ValueError
    assert repr(read) == repr(expected)
