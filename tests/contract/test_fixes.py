"""Every fix is one that works when it is typed: its form, and the commands, keys, values, extras and files it names."""

from __future__ import annotations

from pathlib import Path

import pytest

import mlscale
from mlscale.errors import MLScaleError
from tests.fixes import recorder
from tests.fixes.checks import check_fix
from tests.fixes.grammar import PLACE, parse_fix
from tests.fixes.source import Source, SourceFix

# Fixes that are sentences, because there is nothing to type, by the reason why.
PROSE = {
    "a file is corrupt or lost, and only a copy of it, or whoever wrote it, has what it held": """
        atomic_files.read_json config.composition.frozen.create_corrupt_error contracts.expect_format
        data.encoders.stored_encoder.parse_encoder data.encoders.stored_encoder.read_encoder
        data.shards.index_builder._build_corruption_error data.shards.member_digests._compare_digests
        data.shards.shard_index._check_digest data.remote.remote_shard._build_wrong_error
        data.tfrecord.record_index._build_corruption_error data.windows.window_folder.locate_window_part
        monitor.check_record.parse_document retrain.journal.parse_record versions.trained_model.find_origin
        runs.safetensors_files.list_shard_files
        runs.safetensors_files.open_safetensors
        train.initial_weights.weight_files._read_legacy_pickle
        versions.object_store.collect_sources
    """,
    "the data has to be written otherwise, and only its owner knows what it should hold": """
        data.array_data.refuse_bad_samples data.class_labels._build_negative_error data.class_labels.find_classes
        data.images.sample_probe._find_shape data.images.image_folder._hold_out
        data.images.image_folder.list_class_images
        data.images.sharded_images._read_weight_members
        data.images.sharded_images.read_members data.label_kinds.encode_multi_hot data.label_kinds.read_labels
        data.order.bad_samples._find_replacement data.order.sample_weights.check_weights
        data.order.sample_weights.read_weights_file data.shards.index_builder.scan_shard
        data.shards.sample_source._build_missing_error data.shards.sample_source._decode_sample_label
        data.shards.shard_index._read_from
        data.table_parsing.columns._build_absent_error data.table_parsing.table_files._build_too_large_error
        
        data.table_parsing.table_files.read_table
        data.tfrecord.record_index._find_all_features data.tfrecord.record_index._read_span
        data.tfrecord.record_index.scan_records
        export.servable._build_shape_error
        evaluate.servable_pass._pack_batch evaluate.servable_pass.map_truth_numbers evaluate.slices.read_csv_columns
        retrain.gate.paired_columns.check_same_names tasks.label_checks.check_labels
        data.encoders.table_encoder.fit
        data.encoders.tokenizer._find_roles data.image_tables.image_cells._build_outside_error
        data.image_tables.row_files.check_columns data.image_tables.row_files._build_unreadable_error
        data.image_tables.row_files._write_arrow data.image_tables.row_files._read_batches
        data.table_parsing.table_files.find_table_files
        data.image_tables.row_files._find_dataset_splits
        data.table_parsing.table_files.read_arrow_table data.remote.remote_index._name_address
        targets.triton.triton_target._format_labels
    """,
    "a file of the user's has to be changed, at a line that the message names": """
        config.composition.compose.load_config config.composition.user_files._count_nodes
        config.composition.user_files.check_text config.composition.user_files.create_yaml_error
        launch.kubernetes._build_start_files
    """,
    "code of the user's has to be changed": """
        data.map_dataset._read_facts estimate.step.extract_loss
        evaluate.sample_collector.compute_sample_columns
        export.onnx_export.export_onnx
        export.served_module.build_served_module export.served_module._explain_own_step
        export.own_answers.check_own_answers
        export.served_module.compute_plain_outputs
        export.served_module.require_predictions culprit.wrap_unforeseen_error
        export.validation_samples._choose_loader export.validation_samples.iterate_loader_batches
        predict.given_samples.list_scored_values
        predict.given_samples.raise_bad_samples runs.folder._resolve_inside
        task_types.task_type._create_missing_error tasks.batch.unpack_batch
        train.checkpoint.weights_only_load.load_checkpoint_file
        data.augmentations.augmentation.check_sizes data.dataset_stream.parse_pair
        data.workers.sample_executor._pickle_work data.workers.sample_executor._update_workers
    """,
    "another process has to end, or the same command has to be started again": """
        assembly.external_run._create_stop_error
        data.shards.member_digests._compute_digests data.shards.shard_index._expect_unchanged
        launch.early_stop.build_error launch.external.rank_meeting.open_store
        launch.external.rank_meeting.wait_until
        predict.part_files.lock_predictions predict.part_files.resume_predictions
        retrain.journal.lock_journal serve.protocol.labels_route._write_labels
        runs.host.processes.raise_on_terminate versions.local_registry._hold_model_lock
    """,
    "another machine, its owner or its credentials are needed": """
        data.remote.find_remote._create_store data.remote.find_remote.open_store
        data.remote.transfers._build_error
        commands.runs.entry._make_running_error commands.runs.entry._remove_folder
    """,
}


@pytest.fixture(scope="module")
def fixes() -> list[SourceFix]:
    """Every place in the source that gives a fix, with the texts that it may have."""
    return list(Source().iterate_fixes())


def test_a_fix_begins_with_something_to_type(fixes: list[SourceFix]) -> None:
    assert len(fixes) > 800
    reasons = {f"mlscale.{place}": reason for reason, places in PROSE.items() for place in places.split()}
    prose = {
        fix.place: f"{fix.place}:{fix.line}: {text}"
        for fix in fixes
        for text in fix.texts
        if text and parse_fix(text)[0].kind == "prose"
    }
    assert [text for place, text in prose.items() if place not in reasons] == []
    assert set(reasons) - set(prose) == set(), "these can be typed by now"


def test_what_a_fix_names_exists(fixes: list[SourceFix]) -> None:
    texts = {text: fix.place for fix in fixes for text in fix.texts}
    wrong = [f"{place}: {problem}" for text, place in texts.items() for problem in check_fix(text)]
    assert wrong == []
    # What only the error shows when it is raised: the rest is read from the source.
    assert sum(text == PLACE for fix in fixes for text in fix.texts) < len(fixes) / 8


@pytest.mark.parametrize(
    ("fix", "kind", "typed"),
    [
        ("trainer.devices=2, or fewer processes", "overrides", "trainer.devices=2"),
        ("runs_dir=<a folder, with free space>", "overrides", "runs_dir=PLACE"),
        ("'data.mix={a: 1, b: 2}'; or a list", "overrides", "'data.mix={a: 1, b: 2}'"),
        ("mlscale runs resume last: from its last checkpoint", "command", "mlscale runs resume last"),
        ("pip install 'mlscale[table]'", "command", "pip install 'mlscale[table]'"),
        ("raw.transpose(0, 3, 1, 2): channels come first", "python", "raw.transpose(0, 3, 1, 2)"),
        ("write `- override /model: mlp` in the file", "write", "- override /model: mlp"),
        ("leave trainer.devices out", "leave", "trainer.devices"),
        ("resnet@champion", "reference", "resnet@champion"),
        ("seed=0 or seed=1", "prose", "seed=0 or seed=1"),
        ("data=digits reads digits", "prose", "data=digits reads digits"),
        ("data.mix={a: 1, b: 2}", "prose", "data.mix={a: 1, b: 2}"),
        ("restore it from a copy", "prose", "restore it from a copy"),
    ],
)
def test_the_grammar_separates_what_is_typed_from_the_reason(fix: str, kind: str, typed: str) -> None:
    (line,) = parse_fix(fix)
    assert (line.kind, line.typed) == (kind, typed)


@pytest.mark.parametrize(
    ("fix", "problem"),
    [
        ("trainer.devcies=2", "unknown key 'trainer.devcies'"),
        ("trainer.max_epochs=many", "does not take 'many'"),
        ("model=resent", "model has no option 'resent'"),
        ("callbacks=[default,emma]", "callbacks has no option 'emma'"),
        ("data.mix=[{a:1}]", "a shell expands '{'"),
        ("'data.mix={a: 1'", "does not take '{a: 1'"),
        ("pip install 'mlscale[tabel]'", "no extra 'tabel'"),
        ("mlscale runs resmue last", "unknown word 'resmue'"),
        ("mlscale versions rollback", "name is missing"),
        ("mlscale export makes the servable again", "unknown word 'the servable again'"),
        ("mlscale evaluate last kills=3", "unknown key 'kills' of evaluate"),
        ("mlscale train --hlep", "unknown flag '--hlep'"),
        ("data=digits, see docs/dta.md", "docs/dta.md does not exist"),
        ("data._target_=mlscale.data.Dataste", "mlscale.data.Dataste does not exist"),
        ("seed=0; trainer.devcies=2 helps, too", "unknown key 'trainer.devcies' in the reason"),
    ],
)
def test_the_check_notices(fix: str, problem: str) -> None:
    assert problem in "\n".join(check_fix(fix))


def test_fixes_of_errors_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MLScaleError, "__init__", MLScaleError.__init__)  # restored afterwards
    monkeypatch.setenv(recorder.VARIABLE, str(tmp_path / "fixes.jsonl"))
    recorder.pytest_configure()
    with pytest.raises(MLScaleError):
        mlscale.compose(["+recipe=resnet", "trainer.devcies=2"])
    lines = (tmp_path / "fixes.jsonl").read_text()
    assert '"fix": "trainer.devices=2"' in lines
    assert '"place": "config/checks/refused_keys.py' in lines
    assert recorder.report_recorded(tmp_path / "fixes.jsonl") == 0
    MLScaleError("bad", fix="sede=1")
    assert recorder.report_recorded(tmp_path / "fixes.jsonl") == 1
