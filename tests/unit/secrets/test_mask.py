"""Secrets are masked in whatever form and by whatever way they leave."""

import base64
import io
import json
import logging
import random
import sys
from urllib.parse import quote

import pytest

from mlscale.secrets.mask import MaskedStream, Masker, MaskFilter, mask_output

SECRET = 'hunt\'er "22" /é+x'


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        quote(SECRET),
        quote(SECRET, safe=""),
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        repr(SECRET),
        SECRET.replace("'", "''"),
        SECRET.encode().hex(),
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
    ],
)
def test_forms(text: str) -> None:
    assert "***" in Masker([SECRET]).mask_text(f"<{text}>")
    assert text.strip("'\"") not in Masker([SECRET]).mask_text(f"<{text}>")


@pytest.mark.parametrize("user", ["a", "an", "ana", "anna"])
def test_base64_inside_a_longer_text(user: str) -> None:
    header = base64.b64encode(f"{user}:correct-horse-battery".encode()).decode()
    assert "***" in Masker(["correct-horse-battery"]).mask_text(header)


def test_password_of_a_url_alone() -> None:
    masker = Masker(["https://ana:p%40ssw0rd@host/x"])
    assert masker.mask_text("p%40ssw0rd and p@ssw0rd") == "*** and ***"


def test_lines_of_a_long_secret() -> None:
    pem = "first-line-of-it\nsecond-line-of-it\n"
    assert Masker([pem]).mask_text("x second-line-of-it y") == "x *** y"


@pytest.mark.parametrize("value", ["", "abc", "true", "None", "localhost", "${oc.env:X}"])
def test_short_and_common_values_are_left(value: str) -> None:
    assert Masker([value]).mask_text(f"a {value} true abc b") == f"a {value} true abc b"


def test_of_a_run() -> None:
    config = {
        "api_key": "literal-1",
        "a": "${oc.env:PLAIN}",
        "root": "${oc.env:PLACE}",
        "b": "${oc.env:MLSCALE_SECRET_B_NAME}",
    }
    environ = {
        "PLAIN": "plain-value",
        "PLACE": "/",
        "HF_TOKEN": "environ-2",
        "MLSCALE_SECRET_B_NAME": "moved",
        "JOB": "1234567890",
    }
    reported = Masker.create_for_run(config, environ).mask_text("literal-1 plain-value / environ-2 moved 1234567890")
    assert reported == "*** *** / *** *** 1234567890"


def test_a_command_line_in_a_text() -> None:
    text = "no key '++optimizer.api_key=abc'; type optimizer.lr=0.1, or ~model.token and auth.x=y, password=z1"
    assert Masker().mask_text(text) == (
        "no key '++optimizer.api_key=***'; type optimizer.lr=0.1, or ~model.token and auth.x=***, password=***"
    )


def test_paths_of_the_environment_stay_readable() -> None:
    environ = {
        "PWD": "/home/ana/work",
        "OLDPWD": "/gone/away",
        "GOOGLE_APPLICATION_CREDENTIALS": "/etc",
        "DB_PWD": "hunter22",
    }
    reported = Masker.create_for_run({}, environ).mask_text("/home/ana/work /gone/away /etc/x hunter22")
    assert reported == "/home/ana/work /gone/away /etc/x ***"


def test_tree() -> None:
    tree = {"lr": 0.1, "api_key": 5, "token": 7, "auth": {"_target_": "A", "user": "ana"}, "x": ["say hunter22", None],
            "password": "${oc.env:PW}", "flag_token": True, "keys": {"tokens": ["a", "b"]},
            "api_keys": ["a", "b"]}  # fmt: skip
    assert Masker(["hunter22"]).mask_tree(tree) == {
        "lr": 0.1, "api_key": "***", "token": 7, "auth": {"_target_": "A", "user": "***"}, "x": ["say ***", None],
        "password": "${oc.env:PW}", "flag_token": True, "keys": {"tokens": ["a", "b"]}, "api_keys": ["***", "***"],
    }  # fmt: skip


def test_stream_masks_a_value_cut_anywhere() -> None:
    masker, text = Masker(["hunter22", "hunger"]), "say hunter22, hunter23 and hung up; hunter22"
    for seed in range(200):
        cuts = sorted(random.Random(seed).sample(range(len(text)), 6))
        inner = io.StringIO()
        stream = MaskedStream(inner, masker)
        for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
            assert stream.write(text[start:end]) == end - start
            stream.flush()
        stream.write_waiting()
        assert inner.getvalue() == "say ***, hunter23 and hung up; ***"


def test_stream_shows_the_rest_at_once() -> None:
    inner = io.StringIO()
    stream = MaskedStream(inner, Masker(["hunter22"]))
    stream.write("\r 50 % |##  | 12 it/s")
    assert inner.getvalue() == "\r 50 % |##  | 12 it/s"
    stream.writelines(["a\n", "b\n"])
    assert stream.isatty() is False


def test_masked_output(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("some.library")
    root, handler = logging.getLogger(), logging.StreamHandler(sys.stderr)
    root.addHandler(handler)
    try:
        before = sys.stdout
        with mask_output(Masker(["hunter22"])):
            print("key hunter22")
            print("err hunter22", file=sys.stderr)
            log.warning("with %s", "hunter22")
        assert sys.stdout is before
    finally:
        root.removeHandler(handler)
    reported = capsys.readouterr()
    assert reported.out == "key ***\n"
    assert "hunter22" not in reported.err
    assert "with ***" in reported.err


def test_log_filter_masks_tracebacks() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(MaskFilter(Masker(["hunter22"])))
    log = logging.Logger("alone")
    log.addHandler(handler)
    try:
        raise ValueError("bad hunter22")
    except ValueError:
        log.exception("failed with %s", {"api": "hunter22"}, stack_info=True)
    assert "hunter22" not in stream.getvalue().replace('"hunter22"', "")  # the line of this test's own source
    assert "ValueError: bad ***" in stream.getvalue()
