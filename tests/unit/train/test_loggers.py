"""The trackers: one file of CSV, an extra that is named when it is missing."""

import contextlib
import csv
import resource
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlscale.errors import Exit, MLScaleError
from mlscale.report import curves
from mlscale.train import loggers
from mlscale.train.loggers.csv_logger import CSV
from mlscale.train.loggers.wandb_logger import LoggedRows


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@contextlib.contextmanager
def a_full_disk(beyond: int) -> Iterator[None]:
    """No file grows beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (beyond, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_metrics_that_come_later_widen_the_file(tmp_path: Path) -> None:
    logger = CSV(str(tmp_path / "logs"))
    assert not (tmp_path / "logs").exists()
    logger.log_metrics({"train/loss": 2.0}, 0)
    logger.flush()
    logger.log_metrics({"train/loss": 1.0}, 1)
    logger.log_metrics({"val/loss": 1.5}, 1)
    logger.finalize("success")
    assert rows(tmp_path / "logs") == [
        {"step": "0", "train/loss": "2.0", "val/loss": ""},
        {"step": "1", "train/loss": "1.0", "val/loss": ""},
        {"step": "1", "train/loss": "", "val/loss": "1.5"},
    ]
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["metrics.csv"]


@pytest.mark.parametrize("junk", [b"\xff\xfe\xfa", b"\x00\x00", b'"', b"1,2,3,4,5,6", b"", b"\n\n", b'"' * 200_001])
@pytest.mark.parametrize("row", [1, 3, 4])
def test_a_damaged_row_keeps_its_place_and_the_file_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], junk: bytes, row: int
) -> None:
    logger = CSV(str(tmp_path))
    for step in range(5):
        logger.log_metrics({"train/loss": step / 2}, step)
    state = logger.state_dict()
    assert state == {"rows": 5}
    lines = (tmp_path / "metrics.csv").read_bytes().splitlines(keepends=True)
    lines[row] = junk + lines[row] if junk != b"1,2,3,4,5,6" else junk + b"\r\n"
    (tmp_path / "metrics.csv").write_bytes(b"".join(lines))
    before = (tmp_path / "metrics.csv").read_bytes()
    second = CSV(str(tmp_path))
    second.load_state_dict({"rows": 5})
    second.log_metrics({"train/loss": 9.0, "new": 1.0}, 9)
    second.finalize("success")
    kept = [each["train/loss"] for each in rows(tmp_path)]
    if junk == b"":
        assert kept == ["0.0", "0.5", "1.0", "1.5", "2.0", "9.0"]
        return
    assert kept[-1] == "9.0"
    assert set(kept) >= {str(step / 2) for step in range(5) if step != row - 1} - (
        {"1.5", "2.0"} if b"\n" in junk else set()
    )
    assert len(kept) == 6
    assert (tmp_path / "metrics.csv.damaged").read_bytes() == before
    assert capsys.readouterr().err.count("is corrupt") == 1


def test_a_damaged_header_begins_the_file_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "metrics.csv").write_bytes(b"st\xffep,train/loss\r\n0,1.0\r\n")
    logger = CSV(str(tmp_path))
    logger.load_state_dict({"rows": 1})
    logger.log_metrics({"train/loss": 2.0}, 1)
    logger.finalize("success")
    assert rows(tmp_path) == [{"step": "1", "train/loss": "2.0"}]
    assert (tmp_path / "metrics.csv.damaged").exists()
    assert "is restarted" in capsys.readouterr().err


def test_a_deleted_file_is_reported_on_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = CSV(str(tmp_path))
    logger.load_state_dict({"rows": 3})
    assert capsys.readouterr().err == f"warning   {tmp_path}/metrics.csv: 3 of 3 earlier rows are gone\n"
    logger.log_metrics({"train/loss": 1.0}, 3)
    assert logger.state_dict() == {"rows": 1}, "a later resume counts what is there"
    logger.load_state_dict({"rows": 1})
    assert capsys.readouterr().err == ""


def test_rows_that_the_disk_never_took_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = CSV(str(tmp_path))
    with a_full_disk(5):
        logger.log_metrics({"train/loss": 2.0}, 1)
        logger.finalize("success")
    assert "disk full: 1 rows of" in capsys.readouterr().err


def test_curves_leave_out_what_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_bytes(b'step,train/loss\n0,1.0\n1,\xff\n2,0.5\n\x00\x01\n"3,4\n4,0.25\n')
    assert curves.read_metric_points(tmp_path / "metrics.csv") == {"train/loss": [(0, 1.0), (2, 0.5), (4, 0.25)]}


def test_a_second_attempt_goes_on_in_the_same_file(tmp_path: Path) -> None:
    for step in range(2):
        logger = CSV(str(tmp_path))
        logger.log_metrics({"b" if step else "a": 1.0}, step)
        logger.finalize("success")
    assert [row["step"] for row in rows(tmp_path)] == ["0", "1"]
    assert set(rows(tmp_path)[0]) == {"step", "a", "b"}


def test_entries_are_written_in_batches(tmp_path: Path) -> None:
    logger = CSV(str(tmp_path))
    for step in range(100):
        logger.log_metrics({"a": 1.0}, step)
        logger.save()
    assert not (tmp_path / "metrics.csv").exists()
    logger._written -= 3600
    logger.save()
    assert len(rows(tmp_path)) == 100


@pytest.mark.parametrize("wider", [False, True])
def test_without_room_entries_wait(tmp_path: Path, capsys: pytest.CaptureFixture[str], wider: bool) -> None:
    logger = CSV(str(tmp_path))
    logger.log_metrics({"a": 1.0}, 0)
    logger.flush()
    content = (tmp_path / "metrics.csv").read_bytes()
    with a_full_disk(len(content) + 5):
        for step in range(1, 50):
            logger.log_metrics({"b" if wider else "a": 2.0}, step)
            logger.flush()
        if not wider:
            assert (tmp_path / "metrics.csv").read_bytes() == content
        assert logger.state_dict() == {"rows": 50}
    assert [row["step"] for row in rows(tmp_path)] == ["0"]
    logger.finalize("success")
    assert [row["step"] for row in rows(tmp_path)] == [str(step) for step in range(50)]
    assert rows(tmp_path)[49]["b" if wider else "a"] == "2.0"
    assert capsys.readouterr().err.count("disk full: ") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_pictures_and_tables_without_room_are_left_out_and_end_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = CSV(str(tmp_path))
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    with a_full_disk(100):
        loggers.log_image([logger], "val/sheet", pixels, 3)
        loggers.log_table([logger], "val/worst", ("key",), [["a" * 1000]], 3)
    reported = capsys.readouterr().err
    assert "disk full: val/sheet is missing in csv" in reported
    assert "disk full: val/worst" in reported
    loggers.log_image([logger], "val/sheet", pixels, 4)
    assert [path.name for path in tmp_path.rglob("*.png")] == ["4.png"]


def test_rows_that_found_no_room_are_there_once_later(tmp_path: Path) -> None:
    reported = LoggedRows(tmp_path / "rows.jsonl")
    reported.add_row({"step": 0})
    assert reported.save_rows() == 1
    for step in range(1, 4000):
        reported.add_row({"step": step})
    with a_full_disk(20_000):  # more than what Python's buffer holds back
        assert reported.save_rows() == 4000
    assert reported.save_rows() == 4000
    assert LoggedRows(tmp_path / "rows.jsonl").resume_rows(4000) == [{"step": step} for step in range(4000)]


def test_only_rank_0_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pytorch_lightning.utilities import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = loggers.csv(str(tmp_path))
    logger.log_metrics({"a": 1.0}, 0)
    logger.finalize("success")
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_writes_event_files_into_the_folder(tmp_path: Path) -> None:
    reader: Any = import_module("tensorboard.backend.event_processing.event_accumulator")
    logger = loggers.tensorboard(str(tmp_path))
    logger.log_metrics({"val/loss": 0.5}, 3)
    logger.finalize("success")
    events = reader.EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("val/loss")] == [(3, 0.5)]


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlscale.export.required_extras.find_spec", lambda name: None)
    with pytest.raises(MLScaleError, match="not installed") as caught:
        loggers.tensorboard(str(tmp_path))
    assert "pip install 'mlscale[tensorboard]'" in caught.value.fix
    assert caught.value.exit is Exit.ENVIRONMENT


def test_what_only_a_tracker_has_is_reported_with_the_logger_that_has_it(tmp_path: Path) -> None:
    logger = CSV(str(tmp_path))
    assert not hasattr(logger, "experiment")
    with pytest.raises(MLScaleError, match="'experiment'") as caught:
        logger.experiment.add_image("x", None, 0)
    assert caught.value.fix.startswith("logger=tensorboard")
