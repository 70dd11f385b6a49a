"""Types from the text of annotations and from comments."""

from __future__ import annotations

import pytest

from mlscale.config.schema.value_types import extract_type_word, infer_from_default, parse_annotation, parse_type_word


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        ("int", [1, -1], [1.5, "1", True, None]),
        ("float", [1.5, 1], ["1", True, None]),
        ("bool", [True], [1, "true"]),
        ("str", ["x"], [1, None]),
        ("'int'", [1], ["x"]),
        ("Optional[int]", [1, None], ["x"]),
        ("int | None", [1, None], ["x"]),
        ("typing.Union[int, str]", [1, "x"], [1.5, None]),
        ("Literal['a', 1, None]", ["a", 1, None], ["b", True]),
        ("list[int]", [[1], []], [1, ["x"]]),
        ("Sequence[float]", [[1, 0.5]], [["x"], "abc"]),
        ("tuple[float, float]", [[1, 2]], [[1], [1, "x"], 1]),
        ("tuple[int, ...]", [[1, 2, 3]], [["x"]]),
        ("dict[str, int]", [{"a": 1}], [[1], 1]),
        ("Path", ["x"], [1]),
        ("str | os.PathLike[str] | None", ["x", None], [1]),
        ("Annotated[int, 'note']", [1], ["x"]),
    ],
)
def test_annotations(annotation: str, good: list[object], bad: list[object]) -> None:
    kind = parse_annotation(annotation)
    assert kind is not None
    assert [value for value in good if not kind.accepts(value)] == []
    assert [value for value in bad if kind.accepts(value)] == []


@pytest.mark.parametrize("annotation", ["Tensor", "Union[float, Tensor]", "Any", "Callable[[int], int]", "not valid("])
def test_what_is_not_understood_is_not_checked(annotation: str) -> None:
    assert parse_annotation(annotation) is None


@pytest.mark.parametrize(
    ("comment", "expected"),
    [
        ("int: global, over all devices", "int"),
        ("float", "float"),
        ("list[str]: free words", "list[str]"),
        ("int or auto: threads", "int or auto"),
        ("str or list: shards", "str or list"),
        ("integers are fine", ""),
        ("the same", ""),
        ("a folder: of files", ""),
    ],
)
def test_the_word_that_opens_a_comment(comment: str, expected: str) -> None:
    assert extract_type_word(comment) == expected


def test_words() -> None:
    kind = parse_type_word("int or auto")
    assert kind is not None
    assert kind.accepts(3)
    assert kind.accepts("auto")
    assert not kind.accepts("atuo")
    assert parse_type_word("") is None


def test_defaults() -> None:
    values: tuple[object, ...] = (1, 0.5, True, "x", [], None)
    assert [kind.text if (kind := infer_from_default(value)) else None for value in values] == [
        "int", "float", "bool", "str", "list", None,
    ]  # fmt: skip
