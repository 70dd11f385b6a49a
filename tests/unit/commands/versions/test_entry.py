"""`mlscale versions`: what is printed, and the exit codes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mlscale.commands.completion.entry import complete_words
from mlscale.commands.versions.entry import main
from mlscale.config.schema.roots import find_roots
from mlscale.errors import Exit, MLScaleError
from mlscale.versions import open_registry
from mlscale.versions.from_servable import publish_servable
from tests.servables import altered, not_a_number, renamed_classes
from tests.unit.versions.test_from_run import trained
from tests.unit.versions.test_from_servable import servable

Versions = Callable[..., int]


@pytest.fixture
def versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Versions:
    """Run `mlscale versions …` in a folder with runs."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: main(words)


def test_from_runs_to_a_champion_and_back(
    versions: Versions, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = trained(tmp_path, "best")
    assert versions("add", first.id, "alias=champion") == 0
    assert capsys.readouterr().out.startswith("resnet:v1 is champion: ")
    second = trained(tmp_path, "best", weight=2.0, parent=first.id)
    assert versions("add", str(second.path), "alias=challenger", "alias=mine") == 0
    assert capsys.readouterr().out.startswith("resnet:v2 is challenger, mine: ")
    assert versions("add", str(second.path)) == 0
    assert "no new version is made" in capsys.readouterr().out
    assert versions("ls") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["version", "aliases", "metric", "kind", "run", "data", "size", "created"]
    assert lines[2].split()[:6] == ["resnet:v1", "champion", "val/accuracy", "0.9", "checkpoint", first.id]
    assert lines[3].split()[:3] == ["resnet:v2", "challenger", "mine"]
    monkeypatch.setenv("COLUMNS", "70")
    assert versions("ls") == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 70
    assert all("val/accuracy 0.9" in line for line in lines[2:])  # a value is never cut
    assert versions("promote", "resnet@challenger") == 0
    assert capsys.readouterr().out == "resnet:v2 is champion, v1 is previous\n"
    assert versions("rollback", "resnet") == 0
    assert capsys.readouterr().out == "resnet:v1 is champion, v2 is previous\n"
    assert versions("promote", "resnet:v2", "alias=staging") == 0
    assert capsys.readouterr().out == "resnet:v2 is staging\n"


def test_show(versions: Versions, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path, "best")
    for weight, parent in ((1.0, None), (2.0, run.id)):
        made = run if parent is None else trained(tmp_path, "best", weight=weight, parent=parent)
        versions("add", made.id, "notes=why")
    capsys.readouterr()
    assert versions("show", "resnet:v2") == 0
    reported = capsys.readouterr().out
    for words in ("parent      resnet:v1", f"run         resnet {made.id}", "data        d1", "best val/accuracy  0.9"):
        assert words in reported
    assert "every file is as it was published" in reported
    file = tmp_path / "registry/versions/resnet/v2/files/config.yaml"
    file.chmod(0o600)
    file.write_text("seed: 7\n")
    assert versions("show", "resnet:v2") == 2
    assert "corrupt\n  config.yaml was altered" in capsys.readouterr().out
    assert versions("show", "resnet:v2", "output=json") == 2
    document = json.loads(capsys.readouterr().out)
    assert (document["changed"], document["lineage"]) == (["config.yaml was altered"], ["resnet:v2", "resnet:v1"])


def test_json_everywhere(versions: Versions, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path, "best")
    commands = (
        ("add", run.id, "alias=champion"),
        ("ls",),
        ("ls", "resnet"),
        ("show", "resnet"),
        ("promote", "resnet:v1"),
    )
    for words in commands:
        assert versions(*words, "output=json", "registry.root=elsewhere") == 0
        out, err = capsys.readouterr()
        document = json.loads(out)
        if words[0] == "ls":
            (document,) = document["models"]["resnet"]["versions"]
        assert (document["ref"], document["aliases"], err) == ("resnet:v1", ["champion"], "")
    assert (tmp_path / "elsewhere").is_dir()
    assert not (tmp_path / "registry").exists()


def test_nothing_there(versions: Versions, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert versions("ls") == 0
    assert "mlscale versions add last" in capsys.readouterr().out
    for words in (("ls", "resnet"), ("show", "resnet"), ("promote", "resnet:v1"), ("rollback", "resnet")):
        with pytest.raises(MLScaleError, match="no versions found"):
            versions(*words)
    with pytest.raises(MLScaleError, match="no runs found"):
        versions("add", "last")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_record_is_reported_beside_the_others(
    versions: Versions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for weight in (1.0, 2.0):
        versions("add", trained(tmp_path, "best", weight=weight).id)
    (tmp_path / "registry/versions/resnet/v1/version.json").write_text("{")
    capsys.readouterr()
    assert versions("ls") == 0
    out, err = capsys.readouterr()
    assert "resnet:v2" in out
    assert "resnet:v1" not in out
    assert err.startswith("corrupt: ")


def test_completion(versions: Versions, tmp_path: Path) -> None:
    versions("add", trained(tmp_path, "best").id, "alias=champion")
    assert complete_words(["versions", "r"], find_roots()) == ["rollback"]
    assert complete_words(["versions", "show", "resnet"], find_roots()) == [
        "resnet", "resnet:latest", "resnet:v1", "resnet@champion",
    ]  # fmt: skip
    assert complete_words(["versions", "add", "l"], find_roots()) == ["last"]
    assert "checkpoint=" in complete_words(["versions", "add", "last", ""], find_roots())


def test_sync_without_a_mirror_and_without_a_key(
    versions: Versions, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(MLScaleError, match="has no mirror yet") as caught:
        versions("sync")
    assert caught.value.fix.startswith("mlscale versions sync project=digits")
    versions("add", trained(tmp_path, "best").id)
    with pytest.raises(MLScaleError, match="W&B has not got resnet:v1") as caught:
        versions("sync", "project=digits")
    assert (caught.value.exit, caught.value.fix) == (Exit.ENVIRONMENT, "wandb login")
    capsys.readouterr()
    assert versions("show", "resnet") == 0
    assert "W&B      waits to be sent" in capsys.readouterr().out
    assert versions("promote", "resnet:v1") == 0  # the registry knows its mirror now
    out, err = capsys.readouterr()
    assert out == "resnet:v1 is champion\n"
    assert err.startswith("W&B: resnet:v1, aliases of resnet wait (no API key)")
    assert versions("ls") == 0
    assert "W&B has not got: resnet:v1, aliases of resnet" in capsys.readouterr().err
    assert versions("ls", "output=json") == 0
    assert json.loads(capsys.readouterr().out)["waiting"] == ["resnet:v1", "aliases of resnet"]


def test_a_servable_by_its_folder_or_its_run(
    versions: Versions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(tmp_path, "best")
    servable(run.path / "servable", run)
    assert versions("add", run.id, "servable=true", "name=resnet") == 0
    assert versions("add", str(run.path / "servable"), "name=resnet") == 0
    reported = capsys.readouterr().out
    assert reported.startswith("resnet:v1: ")
    assert "resnet:v1 holds the same content" in reported
    assert versions("add", str(servable(tmp_path / "elsewhere"))) == 0  # of a run that is not here
    assert versions("show", "digits", "output=json") == 0
    document = json.loads(capsys.readouterr().out.partition("\n")[2])
    assert (document["kind"], document["run"]["id"]) == ("servable", "1s2w1ygw9f2a")
    with pytest.raises(MLScaleError, match="not a servable"):
        versions("add", trained(tmp_path, "best").id, "servable=true")


def test_what_can_not_serve_is_neither_added_nor_promoted(
    versions: Versions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = altered(tmp_path / "good")
    assert versions("add", str(good), "alias=champion") == 0
    broken = altered(tmp_path / "broken", graph=not_a_number)
    with pytest.raises(MLScaleError, match="can't serve"):
        versions("add", str(broken))
    assert versions("ls", "digits", "output=json") == 0
    assert "digits:v2" not in capsys.readouterr().out
    registry = open_registry(tmp_path / "registry")
    publish_servable(registry, broken)  # as an older mlscale, or another tool, may have done
    publish_servable(registry, altered(tmp_path / "renamed", document=renamed_classes))
    with pytest.raises(MLScaleError, match="can't serve"):
        versions("promote", "digits:v2")
    assert versions("promote", "digits:v3") == 0
    reported = capsys.readouterr()
    assert "digits:v3 is champion, v1 is previous" in reported.out
    assert "another schema than digits:v1: classes without '0' and with 'zero'" in reported.err
    registry.promote("digits:v2")
    registry.promote("digits:v1")  # the one before it is v2
    with pytest.raises(MLScaleError, match="can't serve"):
        versions("rollback", "digits")
    assert registry.get_aliases("digits").of["champion"] == 1
