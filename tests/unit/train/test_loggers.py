"""The trackers: one file of CSV, an extra that is named when it is missing."""

import csv
import resource
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from mlscale.errors import Exit, MLScaleError
from mlscale.train import loggers
from mlscale.train.csv_logger import CSV


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


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
    before, content = resource.getrlimit(resource.RLIMIT_FSIZE), (tmp_path / "metrics.csv").read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) + 5, before[1]))
    try:
        for step in range(1, 50):
            logger.log_metrics({"b" if wider else "a": 2.0}, step)
            logger.flush()
        if not wider:
            assert (tmp_path / "metrics.csv").read_bytes() == content
        assert logger.state_dict() == {"rows": 50}
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [row["step"] for row in rows(tmp_path)] == ["0"]
    logger.finalize("success")
    assert [row["step"] for row in rows(tmp_path)] == [str(step) for step in range(50)]
    assert rows(tmp_path)[49]["b" if wider else "a"] == "2.0"
    assert capsys.readouterr().err.count("no room for") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


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
    monkeypatch.setattr("mlscale.export.needs.find_spec", lambda name: None)
    with pytest.raises(MLScaleError, match="not installed") as caught:
        loggers.tensorboard(str(tmp_path))
    assert "pip install 'mlscale[tensorboard]'" in caught.value.fix
    assert caught.value.exit is Exit.ENVIRONMENT
