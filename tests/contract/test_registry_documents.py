"""The documents of the registry: what is written validates, what was stored still reads, and means the same."""

import json
from pathlib import Path

import pytest

from mlscale.errors import MLScaleError
from mlscale.versions import LocalRegistry
from mlscale.versions.aliases import FILE, Aliases
from mlscale.versions.version_record import RECORD, read_version
from tests.contract.test_documents import validate

EXAMPLES = Path(__file__).parent / "examples"


def test_what_is_written_validates(tmp_path: Path) -> None:
    registry = LocalRegistry(tmp_path / "registry")
    for content in "ab":
        (tmp_path / "model.ckpt").write_text(content)
        registry.publish(
            "resnet",
            {"model.ckpt": tmp_path / "model.ckpt", "a/ü.txt": tmp_path / "model.ckpt"},
            kind="servable",
            metrics={"accuracy": 1.0, "loss": float("nan")},
            run={"id": "x", "metric": None},
            aliases=["champion"],
        )
    registry.rollback("resnet")
    for version in registry.list_versions("resnet"):
        validate("version", json.loads((version.path / RECORD).read_text()))
    validate("aliases", json.loads((registry.root / "versions/resnet" / FILE).read_text()))


def test_a_stored_version_still_reads(tmp_path: Path) -> None:
    text = (EXAMPLES / "version-1.json").read_text()
    (tmp_path / "v7").mkdir()
    (tmp_path / "v7" / RECORD).write_text(text)
    version = read_version(tmp_path / "v7")
    assert (version.ref, version.value, version.parent) == ("resnet:v7", 0.9917, "resnet:v6")
    assert version.build_version_record() == json.loads(text)  # the seal and the digest of the content, too


def test_a_later_format_is_reported(tmp_path: Path) -> None:
    document = json.loads((EXAMPLES / "version-1.json").read_text())
    (tmp_path / "v7").mkdir()
    (tmp_path / "v7" / RECORD).write_text(json.dumps({**document, "format": "mlscale/version/2"}))
    with pytest.raises(MLScaleError, match="later mlscale"):
        read_version(tmp_path / "v7")


def test_stored_aliases_still_read(tmp_path: Path) -> None:
    text = (EXAMPLES / "aliases-1.json").read_text()
    (tmp_path / FILE).write_text(text)
    aliases = Aliases.read_aliases(tmp_path)
    assert aliases.of == {"champion": 7, "previous": 6}
    assert aliases.build_aliases_document() == json.loads(text)
