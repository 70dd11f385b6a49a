"""The shipped YAML as documentation."""

from __future__ import annotations

from pathlib import Path

from mlscale.config.schema.documented_fields import get_shipped_fields, read_option_files


def test_a_field_is_its_comment() -> None:
    field = get_shipped_fields().find_field("data.batch_size", "mlscale.data.Digits")
    assert field is not None
    assert (field.word, field.text, field.default) == ("int", "global, over all devices and accumulation", 64)
    seed = get_shipped_fields().top["seed"]
    assert (seed.word, seed.default) == ("int from 0 to 4294967295", 0)


def test_a_field_of_another_target_is_another_field() -> None:
    assert get_shipped_fields().find_field("data.val_fraction", "mlscale.data.Digits") is None
    assert get_shipped_fields().find_field("data.val_fraction", "mlscale.data.ImageFolder") is not None
    assert get_shipped_fields().find_field("data.batch_size", "my_package.Data") is None


def test_a_field_of_several_files() -> None:
    field = get_shipped_fields().find_field("precision.memory_format")
    assert field is not None
    assert field.word == "one of channels_last, channels_last_3d"


def test_every_shipped_file_says_what_it_is_for() -> None:
    options = get_shipped_fields().options
    assert len(options) > 30
    assert [f"{option.group}/{option.name}" for option in options if not option.summary] == []


def test_every_own_key_of_a_shipped_file_that_is_no_interpolation_names_its_type() -> None:
    def plain(default: object) -> bool:
        return default == "???" or default is None or isinstance(default, (bool, int, float, list))

    bare = [
        field.path
        for option in get_shipped_fields().options
        if option.target and option.target.startswith("mlscale.")
        for field in option.fields
        if plain(field.default) and field.type is None
    ]
    assert bare == []


def test_null_is_valid_wherever_a_comment_gives_it_a_meaning() -> None:
    fields = [field for option in get_shipped_fields().options for field in option.fields]
    explained = [field for field in fields if "null for" in field.text and field.type and field.word != "dict"]
    assert len(explained) > 50
    assert [field.path for field in explained if field.type and not field.type.accepts(None)] == []


def test_reading(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "mine.yaml").write_text(
        "# @package model\n# My net,\n# twice.\n_target_: my.Net\nsize: 3   # int: how big\n"
        "inner:\n  a: x#y  # str: with a hash\nother: ???  # the same\nfree: 1\nlist: [1, 2]  # list[int]\n"
    )
    (folder / "broken.yaml").write_text("a: [")
    (option,) = read_option_files([tmp_path]).options
    assert (option.group, option.name, option.package, option.target) == ("model", "mine", "model", "my.Net")
    assert option.summary == "My net, twice."
    found = {field.path: (field.word, field.text, field.default) for field in option.fields}
    assert found == {
        "model.size": ("int", "how big", 3),
        "model.inner.a": ("str", "with a hash", "x#y"),
        "model.other": ("int", "how big", "???"),
        "model.free": ("", "", 1),
        "model.list": ("list[int]", "", [1, 2]),
    }
