"""What can be chosen wrongly, and what is answered."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest

import mlscale.data
from mlscale.config.signatures.unpacked_keywords import inspect_signature
from mlscale.data import WebDataset
from mlscale.data.data_module import OrderedData
from mlscale.data.order import sample_weights as weights
from mlscale.data.order.policy import Policy, PolicyArguments, TolerantPolicyArguments, normalise_shares
from mlscale.errors import MLScaleError
from tests.unit.data.conftest import write_shards


@pytest.mark.parametrize(
    ("choices", "where", "what"),
    [
        ({"sampling": "random"}, "data.sampling", "data.sampling is 'random'"),
        ({"last": "keep"}, "data.last", "data.last is 'keep'"),
        ({"epoch_samples": 0}, "data.epoch_samples", "data.epoch_samples is 0"),
        ({"sampling": "weighted"}, "data.weights", "weighted sampling has no weights"),
        ({"weights": "w.csv"}, "data.weights", "data.weights has no effect with data.sampling=shuffle"),
        ({"replay": 0.0}, "data.replay", "without data.windows"),
        ({"relabelled": ["a"]}, "data.relabelled", "without data.windows"),
        ({"windows": ["w"], "replay": 1.0}, "data.replay", "data.replay is 1.0"),
        ({"windows": ["w"], "replay": -0.1}, "data.replay", "data.replay is -0.1"),
        ({"windows": ["w"], "sampling": "balanced"}, "data.sampling", "data.sampling=balanced"),
    ],
)
def test_contradictions(choices: dict[str, Any], where: str, what: str) -> None:
    with pytest.raises(MLScaleError) as caught:
        Policy(**choices)
    assert caught.value.where == where
    assert what in caught.value.what
    assert caught.value.fix


@pytest.mark.parametrize("replay", [None, 0.0, 0.99])
def test_windows_go_with_a_share_of_earlier_samples(replay: float | None) -> None:
    policy = Policy(windows=["w"], replay=replay, relabelled=["a"])
    assert 0 <= policy.replay_share < 1


@pytest.mark.parametrize(
    ("mix", "shares"),
    [
        ({"a": 0.7, "b": 0.3}, [7, 3]),
        ({"b": 1, "a": 2}, [2, 1]),
        ({"a": 0.25, "b": 5}, [1, 20]),
        ({"a": 6, "b": 9}, [2, 3]),
    ],
)
def test_shares_are_whole_numbers(mix: dict[str, float], shares: list[int]) -> None:
    assert normalise_shares(mix, {"a": None, "b": None}).tolist() == shares


@pytest.mark.parametrize(
    ("mix", "what", "fix"),
    [
        ({"a": 1}, "not those of the sources", "'data.mix={a: 1,b: 1}'"),
        ({"a": 1, "b": 2, "c": 3}, "not those of the sources", "'data.mix={a: 1,b: 2}'"),
        ({"a": 0.0, "b": 1.0}, "the share of 'a' is 0.0", "data.mix.a=1"),
        ({"a": 0.33333333, "b": 0.66666667}, "parts of 100,000,000", "'data.mix={a: 33,b: 67}'"),
    ],
)
def test_shares_that_are_wrong(mix: dict[str, float], what: str, fix: str) -> None:
    with pytest.raises(MLScaleError) as caught:
        normalise_shares(mix, {"a": None, "b": None})
    assert what in caught.value.what
    assert caught.value.fix.startswith(fix)


@pytest.mark.parametrize(
    ("kwargs", "what", "where"),
    [
        ({"mix": {"a": 1}}, "data.train names no sources", "data.mix"),
        ({"train": {"a": "t", "b": "t"}}, "without their shares", "data.mix"),
        ({"train": {"a": "t"}, "mix": {"a": 1}, "sampling": "balanced"}, "by share and not by", "data.sampling"),
        ({"train": {"a": "t", "b": "gone"}, "mix": {"a": 1, "b": 1}}, "does not exist", "data.train.b"),
    ],
)
def test_sources_that_are_wrong(tmp_path: Path, kwargs: dict[str, Any], what: str, where: str) -> None:
    write_shards(tmp_path / "t", 12)
    if isinstance(train := kwargs.get("train"), dict):
        kwargs = {**kwargs, "train": {name: tmp_path / path for name, path in train.items()}}
    with pytest.raises(MLScaleError) as caught:
        WebDataset(**{"train": tmp_path / "t", "val": tmp_path / "t", **kwargs}).facts()
    assert what in caught.value.what
    assert caught.value.where == where


def test_sources_keep_their_shares_and_names(tmp_path: Path) -> None:
    """Two sources whose shards have the same names."""
    for name, count in (("a", 30), ("b", 12)):
        write_shards(tmp_path / name, count)
    sources = {name: tmp_path / name for name in ("a", "b")}
    data = WebDataset(sources, tmp_path / "a", batch_size=10, mix={"a": 0.7, "b": 0.3})
    assert data.facts().train_samples == 42
    for batch in data.train_dataloader():
        assert sorted(key.split("/")[0] for key in batch["key"]) == ["a"] * 7 + ["b"] * 3


KEYS = ["0.tar/0", "0.tar/1", "0.tar/2"]


@pytest.mark.parametrize(
    "text", ["key,weight\n0.tar/2,3\n0.tar/0,1\n0.tar/1,0\n", "0.tar/0,1\n0.tar/1,0\n\n0.tar/2,3\nx,9\n"]
)
def test_weights_from_a_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "w.csv"
    path.write_text(text)
    assert np.array_equal(weights.read_weights_file(str(path), KEYS), [1, 0, 3])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("0.tar/0,1\n0.tar/1,2\n", "1 of 3 training samples have no weight"),
        ("", "3 of 3 training samples have no weight"),
        ("0.tar/0,1\n0.tar/1\n", "line 2 of"),
        ("0.tar/0,1\n0.tar/1,-1\n0.tar/2,1\n", "the weight of sample 0.tar/1 is -1"),
        ("0.tar/0,1\n0.tar/1,nan\n0.tar/2,1\n", "the weight of sample 0.tar/1 is nan"),
        ("0.tar/0,0\n0.tar/1,0\n0.tar/2,0\n", "no sample has a weight above 0"),
        (None, "cannot be read"),
    ],
)
def test_weights_that_are_wrong(tmp_path: Path, text: str | None, what: str) -> None:
    path = tmp_path / "w.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(MLScaleError) as caught:
        weights.read_weights_file(str(path), KEYS)
    assert what in caught.value.what
    assert caught.value.where == "data.weights"


def test_members_that_are_no_weights(tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "t", 12)
    for member, what in (("weight", "no '.weight' member"), ("png", "is not a number")):
        data = WebDataset(shards, shards, batch_size=4, sampling="weighted", weights=member)
        with pytest.raises(MLScaleError) as caught:
            data.train_dataloader()
        assert what in caught.value.what


def test_the_arguments_of_a_data_class_are_the_fields_of_the_policy() -> None:
    """Both are listed: a type checker takes no keywords from a dataclass."""
    fields = get_type_hints(Policy)
    assert get_type_hints(TolerantPolicyArguments) == fields
    assert get_type_hints(PolicyArguments) == {name: kind for name, kind in fields.items() if name != "on_bad_sample"}


def test_no_data_class_lists_them() -> None:
    """Each key can be set all the same, and none of another name."""
    for name in mlscale.data.__all__:
        kind = getattr(mlscale.data, name)
        # A base class takes the policy as an object.
        if isinstance(kind, type) and issubclass(kind, OrderedData) and name != "ImageData":
            assert not set(inspect.signature(kind).parameters) & set(get_type_hints(Policy)), name
            assert set(get_type_hints(PolicyArguments)) <= set(inspect_signature(kind).parameters), name


def test_a_policy_answers_what_loaders_ask() -> None:
    default = Policy()
    assert (default.pad, default.skip) == (False, False)
    assert (Policy(last="pad").pad, Policy(on_bad_sample="skip").skip) == (True, True)
    assert Policy(epoch_samples=1).epoch_samples == 1
    assert Policy(sampling="weighted", weights="w.csv").weights == "w.csv"
    assert Policy(sampling="balanced").sampling == "balanced"
    with pytest.raises(MLScaleError) as caught:
        Policy(on_bad_sample="ignore")
    assert caught.value.fix == "data.on_bad_sample=fail"


@pytest.mark.parametrize("share", [True, "1", float("inf"), float("nan"), -1])
def test_a_share_is_a_finite_number_above_0(share: Any) -> None:
    with pytest.raises(MLScaleError) as caught:
        normalise_shares({"a": share, "b": 1}, {"a": None, "b": None})
    assert caught.value.where == "data.mix.a"


def test_shares_have_ten_thousand_parts_at_most() -> None:
    assert normalise_shares({"a": 0.9999, "b": 0.0001}, {"a": None, "b": None}).tolist() == [9999, 1]
    with pytest.raises(MLScaleError) as caught:
        normalise_shares({"a": 2, "b": 20_000}, {"a": None, "b": None})
    assert "parts of 10,001" in caught.value.what
    assert caught.value.fix == "'data.mix={a: 1,b: 100}'"
    assert normalise_shares({"a": 2, "b": 19_998}, {"a": None, "b": None}).tolist() == [1, 9999]
    assert normalise_shares({"a": 5}, {"a": None}).tolist() == [1]


def test_sources_without_a_share_and_shares_without_a_source_are_both_named() -> None:
    with pytest.raises(MLScaleError) as caught:
        normalise_shares({"a": 3, "c": 1, "d": 1}, {"a": None, "b": None})
    assert caught.value.why == "without a share: b; no source of that name: c, d"
    assert caught.value.fix == "'data.mix={a: 3,b: 1}'"


@pytest.mark.parametrize(
    ("text", "is_file"),
    [("w.csv", True), ("folder/w", True), ("there", True), ("weight", False), ("csv", False)],
)
def test_a_weights_file_is_reported_from_a_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, is_file: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").touch()
    assert weights.is_weights_file(text) is is_file


def test_what_is_wrong_with_a_weights_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "w.csv").write_text('"0.tar/0",1\n 0.tar/1 ,2\n0.tar/2, 3\n', newline="")
    assert weights.read_weights_file("~/w.csv", KEYS).tolist() == [1, 2, 3]
    why = {"": "holds no weight at all", "x,1\ny,2\n": "its first key is 'x'"}
    for text, part in why.items():
        (tmp_path / "w.csv").write_text(text)
        with pytest.raises(MLScaleError) as caught:
            weights.read_weights_file("~/w.csv", KEYS)
        assert part in caught.value.why
        assert "no line for '0.tar/0'" in caught.value.why
    for text, line in (("heading\n0.tar/0,one\n", 2), ("0.tar/0,1\n\n0.tar/1,1,1\n", 3)):
        (tmp_path / "w.csv").write_text(text)
        with pytest.raises(MLScaleError, match=f"line {line} of") as caught:
            weights.read_weights_file("~/w.csv", KEYS)
        assert caught.value.fix == "write `0.tar/0,1.0`"
    (tmp_path / "w.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(MLScaleError, match="cannot be read") as caught:
        weights.read_weights_file("~/w.csv", KEYS)
    assert "decode" in caught.value.why
    with pytest.raises(MLScaleError, match="cannot be read") as caught:
        weights.read_weights_file("gone.csv", KEYS)
    assert caught.value.why == "No such file or directory"


def test_weights_of_members() -> None:
    assert weights.parse_weight_members([b"1", b" 2.5\n", b"0"], ".weight member", str).tolist() == [1, 2.5, 0]
    with pytest.raises(MLScaleError) as caught:
        weights.parse_weight_members([b"1", b"x" * 50], ".weight member", lambda sample: f"key {sample}")
    assert caught.value.what == "the weight of sample key 1 is not a number"
    assert caught.value.why == f"its .weight member begins {b'x' * 40!r}"
    with pytest.raises(MLScaleError, match="the weight of sample 1 is -2"):
        weights.parse_weight_members([b"1", b"-2", b"-3"], "weight", str)
    with pytest.raises(MLScaleError, match="the weight of sample 0 is inf"):
        weights.parse_weight_members([b"inf", b"1"], "weight", str)
    with pytest.raises(MLScaleError, match="add up to infinity"), np.errstate(over="ignore"):
        weights.check_weights(np.array([1e308, 1e308]), str)
    with pytest.raises(MLScaleError, match="no sample has a weight above 0"):
        weights.check_weights(np.zeros(2), str)
