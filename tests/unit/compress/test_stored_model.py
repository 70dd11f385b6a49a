"""The folder of a compressed model: a contract, of one checkpoint, whole, and believed only where its digests hold."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mlscale.compress import stored_model as stored
from mlscale.compress.stored_model import CompressedModel
from mlscale.errors import MLScaleError
from mlscale.runs.checkpoint_files.checkpoint_commit import AtomicCheckpointWriter
from mlscale.runs.checkpoint_files.checkpoint_digest import read_content_digest
from mlscale.runs.checkpoint_files.checkpoint_record import CheckpointRecord
from tests.contract.test_documents import validate
from tests.unit.compress.test_int8_verdict import BOUNDS, ERROR, GOOD

MODEL = CompressedModel(b"a model", "static", 256, False, GOOD, BOUNDS, ())


def checkpoint(path: Path, value: float = 0.0) -> Path:
    path.parent.mkdir(exist_ok=True)
    writer = AtomicCheckpointWriter(path)
    torch.save({"state_dict": {"a": torch.tensor(value)}}, writer)  # type: ignore[arg-type]
    writer.commit_checkpoint(CheckpointRecord("best", step=7, epoch=1))
    return path


@pytest.fixture
def best(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "checkpoints" / "best.ckpt")


def test_what_is_written_is_found_again_for_its_checkpoint(tmp_path: Path, best: Path) -> None:
    stored.write_compressed_model(tmp_path / "compressed", MODEL, name="resnet", checkpoint=best)
    document = json.loads((tmp_path / "compressed" / "compressed.json").read_text())
    validate("compressed", document)
    assert document["checkpoint"] == {"name": "best.ckpt", "step": 7, "sha256": read_content_digest(best)}
    assert document["figures"]["fp32_only"] == 150
    found, why = stored.find_compressed_model(tmp_path, best)
    assert found is not None
    assert (found.model, found.max_metric_drop, found.min_agreement, why) == (b"a model", 0.01, 0.95, "")
    assert (found.precision, found.about["method"]) == ("int8", "static")
    assert found.about["calibration"] == {"split": "train", "samples": 256}
    assert not list(tmp_path.rglob(".aside*"))


def test_the_bound_of_a_number_is_a_share_of_its_own_fp32_metric(tmp_path: Path, best: Path) -> None:
    number = replace(MODEL, metrics=replace(GOOD, metric=ERROR, agreement=None))
    stored.write_compressed_model(tmp_path / "compressed", number, name="regression", checkpoint=best)
    path = tmp_path / "compressed" / "compressed.json"
    document = json.loads(path.read_text())
    validate("compressed", document)
    found, _ = stored.find_compressed_model(tmp_path, best)
    assert found is not None
    assert found.max_metric_drop == pytest.approx(0.02 * 40)
    # Earlier documents have no metric: theirs is the accuracy.
    del document["figures"]["metric"]
    path.write_text(json.dumps(document))
    found, _ = stored.find_compressed_model(tmp_path, best)
    assert found is not None
    assert found.max_metric_drop == 0.01


def test_a_copy_of_the_checkpoint_is_the_same_and_another_is_not(tmp_path: Path, best: Path) -> None:
    stored.write_compressed_model(tmp_path / "compressed", MODEL, name="resnet", checkpoint=best)
    copy = tmp_path / "copy.ckpt"
    copy.write_bytes(best.read_bytes())
    assert stored.find_compressed_model(tmp_path, copy)[0] is not None
    other = checkpoint(tmp_path / "checkpoints" / "last.ckpt", 1.0)
    assert stored.find_compressed_model(tmp_path, other) == (None, "the run's is of another checkpoint than last.ckpt")
    assert stored.find_compressed_model(tmp_path / "elsewhere", best) == (None, "the run has none")


def test_what_was_not_kept_is_not_taken(tmp_path: Path, best: Path) -> None:
    slow = CompressedModel(b"a model", "dynamic", 0, True, GOOD, BOUNDS, ("slower", "worse"))
    stored.write_compressed_model(tmp_path / "compressed", slow, name="resnet", checkpoint=best)
    document = json.loads((tmp_path / "compressed" / "compressed.json").read_text())
    validate("compressed", document)
    assert (document["kept"], document["calibration"]) == (False, None)
    assert stored.find_compressed_model(tmp_path, best) == (None, "it was not kept: slower; worse")


def test_a_new_one_takes_the_place_of_the_old(tmp_path: Path, best: Path) -> None:
    stored.write_compressed_model(tmp_path / "compressed", MODEL, name="resnet", checkpoint=best)
    (tmp_path / "compressed" / "stray").write_text("of the old one")
    new = CompressedModel(b"another", "static", 256, False, GOOD, BOUNDS, ())
    stored.write_compressed_model(tmp_path / "compressed", new, name="resnet", checkpoint=best)
    assert sorted(path.name for path in (tmp_path / "compressed").iterdir()) == ["compressed.json", "model.onnx"]
    found, _ = stored.find_compressed_model(tmp_path, best)
    assert found is not None
    assert found.model == b"another"


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda folder: (folder / "model.onnx").write_bytes(b"another model"), "corrupt or altered"),
        (lambda folder: (folder / "model.onnx").unlink(), "corrupt or altered"),
        (lambda folder: (folder / "compressed.json").write_text("{"), "can't read compressed.json"),
        (lambda folder: (folder / "compressed.json").write_text("[]"), "does not hold a JSON object"),
        (lambda folder: alter(folder, "checkpoint", None), "corrupt or altered"),
        (lambda folder: alter(folder, "bounds", {}), "corrupt or altered"),
        (lambda folder: alter(folder, "files", []), "corrupt or altered"),
        (lambda folder: alter(folder, "format", "mlscale/compressed/99"), "later mlscale"),
    ],
)
def test_a_damaged_one_is_reported(tmp_path: Path, best: Path, damage: object, what: str) -> None:
    stored.write_compressed_model(tmp_path / "compressed", MODEL, name="resnet", checkpoint=best)
    damage(tmp_path / "compressed")  # type: ignore[operator]
    with pytest.raises(MLScaleError, match=what):
        stored.find_compressed_model(tmp_path, best)


def alter(folder: Path, key: str, value: object) -> None:
    document = json.loads((folder / "compressed.json").read_text())
    (folder / "compressed.json").write_text(json.dumps({**document, key: value}))
