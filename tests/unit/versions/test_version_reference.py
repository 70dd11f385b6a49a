"""What names a version, and what does not."""

import pytest

from mlscale.errors import MLScaleError
from mlscale.versions.version_reference import VersionReference, check_alias, check_model_name, parse_reference


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("resnet", VersionReference("resnet")),
        ("resnet:v7", VersionReference("resnet", number=7)),
        ("resnet:v10", VersionReference("resnet", number=10)),
        ("resnet:latest", VersionReference("resnet", alias="latest")),
        ("resnet@latest", VersionReference("resnet", alias="latest")),
        ("resnet@champion", VersionReference("resnet", alias="champion")),
        ("res.net-50_x@my-own", VersionReference("res.net-50_x", alias="my-own")),
    ],
)
def test_references(text: str, meant: VersionReference) -> None:
    assert parse_reference(text) == meant


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("resnet:7", "resnet:v7"),
        ("resnet:champion", "resnet@champion"),
        ("resnet:", "mlscale versions ls"),
        ("resnet@Champion", "resnet@champion"),
        ("resnet@a b", "mlscale versions ls"),
        ("resnet:v0", "resnet@v0"),
        ("resnet:v1@champion", "mlscale versions ls"),
        ("", "mlscale versions ls"),
        ("../x:v1", "mlscale versions ls"),
        (".hidden", "mlscale versions ls"),
        ("a/b", "mlscale versions ls"),
    ],
)
def test_what_names_nothing_is_reported_with_the_remedy(text: str, fix: str) -> None:
    with pytest.raises(MLScaleError) as caught:
        parse_reference(text)
    assert (caught.value.fix, caught.value.where) == (fix, f"ref={text}")


def test_names() -> None:
    assert check_model_name("resnet-50.v2") == "resnet-50.v2"
    for wrong, fix in (("my model", "name=my-model"), ("..", "name=resnet"), ("a" * 81, "name=" + "a" * 80)):
        with pytest.raises(MLScaleError) as caught:
            check_model_name(wrong)
        assert (caught.value.fix, caught.value.where) == (fix, f"name={wrong}")


@pytest.mark.parametrize(
    ("alias", "fix"),
    [
        ("previous", "mlscale versions rollback <name>"),
        ("latest", "alias=champion"),
        ("v7", "alias=champion"),
        ("Champion", "alias=champion"),
        ("2 Best one!", "alias=best-one"),
        ("", "alias=champion"),
        ("7", "alias=champion"),
        ("A" * 50, "alias=" + "a" * 40),
    ],
)
def test_aliases_that_are_not_given(alias: str, fix: str) -> None:
    with pytest.raises(MLScaleError) as caught:
        check_alias(alias)
    assert (caught.value.fix, caught.value.where) == (fix, f"alias={alias}")
    if fix != "mlscale versions rollback <name>":
        assert check_alias(fix.removeprefix("alias="))


@pytest.mark.parametrize("text", ["resnet", "resnet:v7", "resnet:latest", "resnet@champion"])
def test_a_reference_is_renamed(text: str) -> None:
    assert parse_reference(text).rename("vit") == text.replace("resnet", "vit")
