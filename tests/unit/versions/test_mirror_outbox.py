"""What a mirror has not got: the registry less what was signed for."""

import json
import os
from pathlib import Path

import pytest

from mlscale.errors import MLScaleError
from mlscale.versions import LocalRegistry, WandbRegistry, open_registry
from mlscale.versions.mirror_outbox import MirrorOutbox, MirrorReceipt
from tests.unit.versions.conftest import Publish


def waiting(outbox: MirrorOutbox) -> list[str]:
    """In words."""
    return [str(item) for item in outbox.list_pending()]


def test_what_is_not_signed_for_waits(registry: LocalRegistry, publish: Publish) -> None:
    outbox = MirrorOutbox(registry.root)
    assert waiting(outbox) == []
    publish("a")
    publish("b", aliases=["champion"])
    publish("c", "other")
    assert waiting(outbox) == ["other:v1", "resnet:v1", "resnet:v2", "aliases of resnet"]
    outbox.start_mirroring("p", None)
    (outbox.folder / "sent").mkdir()
    outbox.write_receipt("resnet", MirrorReceipt({1: "e/p/resnet:v0", 2: "e/p/resnet:v1"}, {"champion": 2}))
    assert waiting(outbox) == ["other:v1"]
    registry.promote("resnet:v1")
    assert waiting(outbox) == ["other:v1", "aliases of resnet"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"versions": []}', '{"versions": {"x": 1}, "aliases": {}}'])
def test_a_receipt_that_cannot_be_read_counts_as_none(registry: LocalRegistry, publish: Publish, text: str) -> None:
    publish("a")
    outbox = MirrorOutbox(registry.root)
    (outbox.folder / "sent").mkdir(parents=True)
    (outbox.folder / "sent" / "resnet.json").write_text(text)
    assert waiting(outbox) == ["resnet:v1"]


def test_one_place(registry: LocalRegistry) -> None:
    outbox = MirrorOutbox(registry.root)
    place = outbox.start_mirroring("p", "team")
    assert outbox.start_mirroring("p", "team") == outbox.mirror_project == place
    with pytest.raises(MLScaleError, match="mirrored to team/p already") as caught:
        outbox.start_mirroring("p", None)
    assert "registry.project=p registry.entity=team" in caught.value.fix
    (outbox.folder / "mirror.json").write_text("{}")
    with pytest.raises(MLScaleError, match="can't read where"):
        open_registry(registry.root)


def test_a_registry_knows_its_mirror(tmp_path: Path) -> None:
    assert type(open_registry(tmp_path / "registry")) is LocalRegistry
    MirrorOutbox(tmp_path / "registry").start_mirroring("p", "team")
    mirrored = open_registry(tmp_path / "registry")
    assert isinstance(mirrored, WandbRegistry)
    assert mirrored.outbox.start_mirroring("p", "team").entity == "team"


def test_after_a_failure_nothing_is_sent_unasked_for_a_while(
    registry: LocalRegistry, publish: Publish, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publish("a")
    monkeypatch.setenv("WANDB_API_KEY", "local-" + "a" * 40)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    mirrored = WandbRegistry(registry.root, project="p")
    mirrored.outbox.start_mirroring("p", None)
    mirrored.outbox.record_failure("it was down")
    mirrored.promote("resnet:v1")
    reported = capsys.readouterr().err
    assert "W&B: resnet:v1, aliases of resnet wait (it was down, 0 s ago); to send: mlscale versions sync" in reported
    assert json.loads((registry.root / "versions/resnet/aliases.json").read_text())["aliases"] == {"champion": 1}
    os.utime(mirrored.outbox.folder / "failure.txt", (0, 0))
    assert mirrored.outbox.explain_pause() == ""
