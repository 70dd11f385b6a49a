"""The registry in a folder: what is published stays, what is called moves, what is damaged is told."""

import json
import os
from pathlib import Path

import pytest

from mlscale.atomic_files import ASIDE
from mlscale.errors import Exit, MLScaleError
from mlscale.versions import LocalRegistry
from mlscale.versions.version_record import RECORD, read_version
from tests.conftest import NoPrivileges
from tests.unit.versions.conftest import Publish

CHALLENGE = "mlscale versions promote resnet:v1 alias=challenger"


def alter(path: Path, content: bytes) -> None:
    """Change a file that is read only, in place: whatever is linked to it changes, too."""
    path.chmod(0o600)
    path.write_bytes(content)


def test_versions_count_up_and_keep_what_is_known(registry: LocalRegistry, publish: Publish) -> None:
    publish("one", metrics={"accuracy": 0.5}, run={"id": "r1"}, data_version="d1", notes="first")
    second = publish("two", metrics={"accuracy": float("nan")}, parent="resnet:v1")
    publish("one", "other")
    assert registry.list_model_names() == ["other", "resnet"]
    one, two = registry.list_versions("resnet")
    assert (one.ref, one.metrics, one.run, one.data_version, one.notes) == (
        "resnet:v1", {"accuracy": 0.5}, {"id": "r1"}, "d1", "first",
    )  # fmt: skip
    assert (two.ref, two.metrics, two.parent) == ("resnet:v2", {"accuracy": None}, "resnet:v1")
    assert (one.payload / "model.ckpt").read_text() == "one"
    assert second.path == two.path
    assert registry.find_version_of_run("r1") == one
    assert registry.find_version_of_run("r2") is None


def test_the_same_content_is_the_same_version(registry: LocalRegistry, publish: Publish, tmp_path: Path) -> None:
    first = publish("one", metrics={"accuracy": 0.5})
    record = (first.path / RECORD).read_bytes()
    (tmp_path / "again").write_text("one")
    again = registry.publish(
        "resnet", {"model.ckpt": tmp_path / "again"}, kind="checkpoint", metrics={"accuracy": 0.1}, aliases=["best"]
    )
    assert (again.new, again.version) == (False, registry.resolve_version("resnet:v1"))
    assert (first.path / RECORD).read_bytes() == record
    assert registry.get_aliases("resnet").of == {"best": 1}
    elsewhere = registry.publish("resnet", {"weights.ckpt": tmp_path / "again"}, kind="checkpoint")
    assert elsewhere.version.number == 2  # another path is other content


def test_a_folder_is_published_as_it_is(registry: LocalRegistry, tmp_path: Path) -> None:
    folder = tmp_path / "servable"
    (folder / "reference" / "deep").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"\0" * 3_000_000)
    (folder / "reference" / "deep" / "profile.json").write_text("{}")
    (folder / "empty").write_bytes(b"")
    version = registry.publish("resnet", folder, kind="servable").version
    assert sorted(version.files) == ["empty", "model.onnx", "reference/deep/profile.json"]
    assert version.bytes == 3_000_002
    assert (version.payload / "model.onnx").read_bytes() == b"\0" * 3_000_000
    (folder / "link").symlink_to(folder / "empty")
    with pytest.raises(MLScaleError, match="not links"):
        registry.publish("resnet", folder, kind="servable")


def test_later_changes_of_the_source_do_not_reach_the_version(
    registry: LocalRegistry, publish: Publish, tmp_path: Path
) -> None:
    publish("one")
    with (tmp_path / "source").open("r+") as file:  # in place: not a new file
        file.write("ONE")
    version = registry.fetch("resnet:v1")
    assert (version.payload / "model.ckpt").read_text() == "one"


def test_equal_files_lie_there_once(registry: LocalRegistry, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 10_000)
    for number in (1, 2):
        (tmp_path / "small").write_text(str(number))
        registry.publish("resnet", {"big": tmp_path / "big", "small": tmp_path / "small"}, kind="servable")
    first, second = (version.payload / "big" for version in registry.list_versions("resnet"))
    assert first.stat().st_ino == second.stat().st_ino
    assert len(list(registry.root.glob("objects/*/*"))) == 3


def test_what_nobody_needs_is_tidied_up(registry: LocalRegistry, publish: Publish, tmp_path: Path) -> None:
    publish("one")
    left = [registry.root / "objects" / name for name in (f"{ASIDE}1", "ab/abc", "cd/cde", f"{ASIDE}2")]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    for path in [*left[:2], *registry.root.glob("objects/*/*")]:
        if path != left[2]:
            os.utime(path, (0, 0))
    publish("two")
    assert [path.exists() for path in left] == [False, False, True, True]  # the others are new: somebody is at work
    assert [registry.find_changed_files(version) for version in registry.list_versions("resnet")] == [[], []]
    assert len(list(registry.root.glob("objects/*/*"))) == 3


def test_a_file_system_without_links_gets_copies(
    registry: LocalRegistry, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    version = publish("one")
    assert registry.find_changed_files(version) == []
    assert (version.payload / "model.ckpt").stat().st_nlink == 1
    assert (version.payload / "model.ckpt").stat().st_mode & 0o777 == 0o400


def test_references(registry: LocalRegistry, publish: Publish) -> None:
    for content in "abc":
        publish(content)
    assert registry.resolve_version("resnet").number == 3  # the latest, as long as there is no champion
    registry.promote("resnet:v2")
    found = {
        ref: registry.resolve_version(ref).number for ref in ("resnet", "resnet:v1", "resnet:latest", "resnet@champion")
    }
    assert found == {"resnet": 2, "resnet:v1": 1, "resnet:latest": 3, "resnet@champion": 2}
    assert set(registry.list_references()) >= set(found)


@pytest.mark.parametrize(
    ("ref", "what", "fix"),
    [
        ("resnet:v4", "resnet has no version v4", "mlscale versions ls resnet"),
        ("resent", "no model 'resent'", "resnet"),
        ("resent:v1", "no model 'resent'", "resnet:v1"),
        ("resnet@champoin", "no version of resnet is champoin", "resnet@champion"),
        ("resnet@previous", "no version of resnet is previous", "mlscale versions ls"),
        ("resnet@challenger", "no version of resnet is challenger", CHALLENGE),
    ],
)  # fmt: skip
def test_what_is_not_there(registry: LocalRegistry, publish: Publish, ref: str, what: str, fix: str) -> None:
    publish("one", aliases=["champion"])
    with pytest.raises(MLScaleError) as caught:
        registry.resolve_version(ref)
    assert (caught.value.what, caught.value.fix, caught.value.exit) == (what, fix, Exit.USER)


def test_the_name_of_all_versions_is_not_promoted(registry: LocalRegistry, publish: Publish) -> None:
    publish("one")
    with pytest.raises(MLScaleError, match="'resnet' does not name the version to promote") as caught:
        registry.promote("resnet", "challenger")
    assert caught.value.fix == "mlscale versions promote resnet:latest alias=challenger"


def test_nothing_is_made_by_looking(registry: LocalRegistry) -> None:
    assert registry.list_model_names() == []
    assert registry.list_versions("resnet") == []
    with pytest.raises(MLScaleError, match="no versions found"):
        registry.resolve_version("resnet")
    with pytest.raises(MLScaleError, match="no versions found"):
        registry.rollback("resnet")
    assert not registry.root.exists()


def test_a_champion_has_one_before_it(registry: LocalRegistry, publish: Publish) -> None:
    publish("a", aliases=["champion"])
    with pytest.raises(MLScaleError, match="no earlier champion"):
        registry.rollback("resnet")
    publish("b", aliases=["challenger"])
    assert registry.promote("resnet@challenger").number == 2
    assert registry.get_aliases("resnet").of == {"champion": 2, "previous": 1}
    registry.promote("resnet:v2")  # it is: nothing moves
    assert registry.get_aliases("resnet").of == {"champion": 2, "previous": 1}
    assert registry.rollback("resnet").number == 1
    assert registry.get_aliases("resnet").of == {"champion": 1, "previous": 2}
    assert registry.rollback("resnet").number == 2
    registry.promote("resnet:v1", "staging")
    registry.promote("resnet:latest", "staging")
    assert registry.get_aliases("resnet").of == {"champion": 2, "previous": 1, "staging": 2}
    reported = [(move.act, move.alias, move.before, move.after) for move in registry.get_aliases("resnet").moves]
    assert reported == [
        ("publish", "champion", None, 1),
        ("publish", "challenger", None, 2),
        ("promote", "champion", 1, 2),
        ("promote", "previous", None, 1),
        ("promote", "challenger", 2, None),
        ("rollback", "champion", 2, 1),
        ("rollback", "previous", 1, 2),
        ("rollback", "champion", 1, 2),
        ("rollback", "previous", 2, 1),
        ("promote", "staging", None, 1),
        ("promote", "staging", 1, 2),
    ]


def test_who_compared_with_an_old_champion_does_not_replace_the_new_one(
    registry: LocalRegistry, publish: Publish
) -> None:
    for content in "abc":
        publish(content)
    registry.promote("resnet:v1")
    registry.promote("resnet:v2", replacing="resnet:v1")
    with pytest.raises(MLScaleError, match="resnet@champion is not resnet:v1 any more") as caught:
        registry.promote("resnet:v3", replacing="resnet:v1")
    assert "v2" in caught.value.why
    assert registry.resolve_version("resnet@champion").number == 2


@pytest.mark.parametrize("damage", ["altered", "same size", "gone", "added"])
def test_damage_is_found_by_digest(registry: LocalRegistry, publish: Publish, damage: str) -> None:
    version = publish("one" * 100)
    publish("two")
    file = version.payload / "model.ckpt"
    if damage == "altered":
        alter(file, b"one" * 99)
    elif damage == "same size":
        alter(file, b"one" * 99 + b"onf")
    elif damage == "gone":
        file.unlink()
    else:
        (version.payload / "more").write_text("x")
    assert registry.resolve_version("resnet:v1") == version  # its record is whole
    for act in (registry.fetch, registry.promote):
        with pytest.raises(MLScaleError, match="resnet:v1 is corrupt") as caught:
            act("resnet:v1")
        assert caught.value.why.split()[0] == ("more" if damage == "added" else "model.ckpt")
    assert registry.get_aliases("resnet").of == {}
    assert registry.fetch("resnet:v2").number == 2


@pytest.mark.parametrize("damage", ["altered", "gone"])
def test_publishing_the_same_content_mends(registry: LocalRegistry, publish: Publish, damage: str) -> None:
    version = publish("one")
    if damage == "altered":
        alter(version.payload / "model.ckpt", b"eno")  # the object is the same file: it is altered, too
    else:
        (version.payload / "model.ckpt").unlink()
    assert publish("one").ref == "resnet:v1"
    assert (registry.fetch("resnet:v1").payload / "model.ckpt").read_text() == "one"


def test_no_rollback_to_a_damaged_version(registry: LocalRegistry, publish: Publish) -> None:
    first = publish("a", aliases=["champion"])
    publish("b", aliases=["champion"])
    alter(first.payload / "model.ckpt", b"z")
    with pytest.raises(MLScaleError, match="resnet:v1 is corrupt"):
        registry.rollback("resnet")
    assert registry.get_aliases("resnet").of == {"champion": 2, "previous": 1}


def test_an_altered_record_is_refused_and_the_others_still_read(registry: LocalRegistry, publish: Publish) -> None:
    first = publish("a", metrics={"accuracy": 0.5})
    publish("b")
    record = json.loads((first.path / RECORD).read_text())
    record["metrics"]["accuracy"] = 0.9
    (first.path / RECORD).write_text(json.dumps(record))
    with pytest.raises(MLScaleError, match="was altered"):
        registry.resolve_version("resnet:v1")
    assert [version.number for version in registry.list_versions("resnet")] == [2]
    assert list(registry.find_corrupted_versions("resnet")) == [first.path]
    assert publish("a").number == 3  # nothing is known of v1 any more, and its number is taken


def test_a_record_that_leads_out_of_its_folder_is_refused(registry: LocalRegistry, publish: Publish) -> None:
    version = publish("a")
    file = version.files["model.ckpt"]
    for name in ("../../../x", "/etc/passwd", "a/../../b", "."):
        forged = type(version)(**{**vars(version), "files": {name: file}})
        (version.path / RECORD).write_text(json.dumps(forged.build_version_record()))
        with pytest.raises(MLScaleError, match="does not fit its place"):
            read_version(version.path)
        with pytest.raises(MLScaleError, match="not a path inside a version"):
            registry.publish("resnet", {name: version.payload / "model.ckpt"}, kind="checkpoint")


@pytest.mark.parametrize("damaged", ['{"format": "mlscale/aliases/1", "aliases": []}', '{"format": "mlscale/ali', ""])
def test_damaged_aliases_are_reported_and_a_promotion_starts_them_anew(
    registry: LocalRegistry, publish: Publish, damaged: str
) -> None:
    version = publish("a", aliases=["champion"])
    file = version.path.parent / "aliases.json"
    file.write_text(damaged)
    with pytest.raises(MLScaleError, match="aliases of a model are corrupt") as caught:
        registry.resolve_version("resnet@champion")
    assert caught.value.fix.startswith("mlscale versions promote resnet:v")
    assert registry.resolve_version("resnet:v1").number == 1
    registry.promote("resnet:v1")
    assert registry.resolve_version("resnet@champion").number == 1
    assert file.with_suffix(".corrupt").read_text() == damaged


def test_aliases_of_a_later_format_are_kept(registry: LocalRegistry, publish: Publish) -> None:
    file = publish("a", aliases=["champion"]).path.parent / "aliases.json"
    file.write_text(later := '{"format": "mlscale/aliases/99", "aliases": {"champion": 1}}')
    with pytest.raises(MLScaleError, match="written by a later mlscale"):
        registry.promote("resnet:v1")
    assert file.read_text() == later


def test_a_folder_that_cannot_be_written(
    registry: LocalRegistry, publish: Publish, no_privileges: NoPrivileges, tmp_path: Path
) -> None:
    (tmp_path / "source").write_text("one")
    with no_privileges(tmp_path, read_only=tmp_path), pytest.raises(MLScaleError) as caught:
        registry.publish("resnet", {"a": tmp_path / "source"}, kind="checkpoint")
    assert caught.value.exit == Exit.ENVIRONMENT
    assert "registry.root=" in caught.value.fix
    assert not registry.root.exists()


def test_what_is_published_is_for_its_owner_alone(registry: LocalRegistry, publish: Publish) -> None:
    publish("a", aliases=["champion"])
    modes = {path.name: path.stat().st_mode & 0o777 for path in registry.root.rglob("*")}
    assert all(mode & 0o077 == 0 for mode in modes.values()), modes
    assert modes["model.ckpt"] == 0o400


def test_aliases_are_set_aside_by_a_person_alone_and_only_where_they_are_corrupt(
    registry: LocalRegistry, publish: Publish
) -> None:
    publish("a", aliases=["champion"])
    publish("b")
    file = publish("c").path.parent / "aliases.json"
    whole = file.read_text()
    file.write_text(whole[:30])
    with pytest.raises(MLScaleError, match="aliases of a model are corrupt"):
        registry.promote("resnet:v2", replacing="resnet:v1")
    assert file.read_text() == whole[:30]
    file.unlink()
    file.mkdir()  # can't be read, and is not corrupt
    with pytest.raises(MLScaleError, match=r"can't read aliases\.json"):
        registry.promote("resnet:v2")
    assert file.is_dir()
