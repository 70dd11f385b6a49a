"""A seal that follows what a verb replaces, and nothing else."""

from pathlib import Path

from mlscale.runs.amend import update_manifest
from mlscale.runs.folder import RunFolder


def sealed(tmp_path: Path) -> RunFolder:
    run = RunFolder.create(tmp_path / "runs", "a", command="train", config_yaml="a: 1", seed=0)
    (run.path / "compressed").mkdir()
    (run.path / "compressed" / "model.onnx").write_text("old")
    (run.path / "compressed" / "gone").write_text("old")
    (run.path / "logs" / "log").write_text("old")
    run.seal_run()
    return run


def test_what_was_replaced_is_listed_anew(tmp_path: Path) -> None:
    run = sealed(tmp_path)
    (run.path / "compressed" / "model.onnx").write_text("new")
    (run.path / "compressed" / "gone").unlink()
    (run.path / "compressed" / "more").write_text("new")
    assert run.find_changed_artefacts() == ["compressed/gone", "compressed/model.onnx"]
    update_manifest(run.path, "compressed")
    assert run.find_changed_artefacts() == []
    listed = (run.manifest or {})["artefacts"]
    assert {name for name in listed if name.startswith("compressed")} == {"compressed/model.onnx", "compressed/more"}


def test_what_is_altered_beside_it_stays_altered(tmp_path: Path) -> None:
    run = sealed(tmp_path)
    (run.path / "logs" / "log").write_text("new")
    update_manifest(run.path, "compressed", "compressed/model.onnx")
    assert run.find_changed_artefacts() == ["logs/log"]


def test_a_verbs_own_addition_belongs_to_no_seal(tmp_path: Path) -> None:
    run = sealed(tmp_path)
    run.write_json("results/compress.json", {"verb": "compress"})
    before = run.manifest
    update_manifest(run.path, "results/compress.json", "results")
    assert "results/compress.json" not in (run.manifest or {})["artefacts"]
    assert run.manifest == before


def test_an_unsealed_run_has_nothing_to_amend(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "runs", "a", command="train", config_yaml="a: 1", seed=0)
    update_manifest(run.path, "compressed")
    assert run.manifest is None
