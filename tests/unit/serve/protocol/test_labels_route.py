"""Labels of every task type, and the quota of one source; without a server."""

import json
import time
from typing import Any

import pytest

from mlscale.serve.http.request_error import Refused
from mlscale.serve.protocol import labels_route
from mlscale.serve.protocol.labels_route import LabelQuota, parse_labels
from mlscale.task_types.event_forms import AnswerNames
from mlscale.task_types.registry import get_task_type

NAMES = AnswerNames(("cat", "dog"))


def parse(kind: str, label: Any) -> list[Any]:
    body = json.dumps({"id": "a", "label": label}).encode()
    return list(parse_labels(get_task_type(kind), NAMES, body).values)


def test_a_label_has_the_form_of_the_task_type() -> None:
    assert parse("classification", 1) == ["dog"]
    assert parse("multilabel", ["dog", "cat"]) == [["cat", "dog"]]
    assert parse("regression", 3) == [3.0]


@pytest.mark.parametrize(
    ("kind", "label", "why"),
    [
        ("classification", "cow", "'cow' is not a class"),
        ("multilabel", "cat", "a label is a list of names"),
        ("regression", "cat", "a label is a finite number"),
        ("segmentation", 3, "a label is a PNG"),
        ("segmentation", "AAAA", "it is not a PNG, or its header is corrupt; it begins b'.x00.x00.x00'$"),
        ("language", "cat", "takes no labels"),
    ],
)
def test_others_are_refused_with_the_form(kind: str, label: Any, why: str) -> None:
    with pytest.raises(Refused, match=why):
        parse(kind, label)


def test_what_is_not_json_is_refused_in_plain_words() -> None:
    for body, why in (
        (b"\x80[", r"it is binary, not UTF-8 text \(byte 1\)$"),
        (b"[" * 10_000, "it is nested too deep$"),
    ):
        with pytest.raises(Refused, match=f"the body is not JSON: {why}"):
            parse_labels(get_task_type("classification"), NAMES, body)
    # Python converts no whole number of so many digits.
    with pytest.raises(Refused, match="this label is not a class"):
        parse_labels(get_task_type("classification"), NAMES, b'{"id": "a", "label": ' + b"9" * 5000 + b"}")


def test_one_source_can_not_send_all_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    quota, now = LabelQuota(10), [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    quota.count_labels("10.0.0.7", 8)
    quota.count_labels("10.0.0.8", 10)
    with pytest.raises(Refused, match="more than 10 labels of one address in an hour") as refused:
        quota.count_labels("10.0.0.7", 3)
    assert refused.value.status == 429
    assert b"Retry-After: 3" in refused.value.headers
    now[0] += 3601
    quota.count_labels("10.0.0.7", 10)
    LabelQuota(None).count_labels("10.0.0.7", 10**9)


def test_sources_without_end_share_a_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels_route, "_MAX_SOURCES", 2)
    quota = LabelQuota(1)
    for source in ("a", "b", "c"):
        quota.count_labels(source, 1)
    with pytest.raises(Refused, match="of one address"):
        quota.count_labels("d", 1)
