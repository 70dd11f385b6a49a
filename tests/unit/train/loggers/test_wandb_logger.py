"""The real W&B client, offline: no prompt, nothing captured that was not asked for, all metrics in its file."""

import json
import struct
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from mlscale.errors import Exit, MLScaleError
from mlscale.train import loggers


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a key, and no terminal to ask."""
    import wandb

    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "home"))
    wandb.teardown()


def records(folder: Path) -> list[Any]:
    """What the client wrote into its transaction log, in order.

    The file is LevelDB's log format behind 7 bytes of W&B's own: blocks of 32 KiB; in them pieces of crc (4 bytes),
    length (2), kind (1: whole, 2: first, 3: middle, 4: last) and data.
    """
    protocol: Any = import_module("wandb.proto.wandb_internal_pb2")
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    log, at, pieces, found = path.read_bytes(), 7, b"", []
    while at + 7 <= len(log):
        if 32768 - at % 32768 < 7:  # too little of the block is left for another piece
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack_from("<HB", log, at + 4)
        pieces += log[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            found.append(protocol.Record.FromString(pieces))
            pieces = b""
    return found


def test_without_a_key_the_run_is_recorded_offline(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    logs = tmp_path / "logs"
    logger = loggers.wandb(str(logs), project="p", group="g", name="n", tags=["a", "b"], notes="why", entity="me")
    logger.log_hyperparams({"seed": 7})
    logger.log_metrics({"val/loss": 0.25, "epoch": 1}, 12)
    print("a secret on the console")
    loggers.finish_loggers([logger])

    found = records(logs)
    run = next(record.run for record in found if record.WhichOneof("record_type") == "run")
    assert (run.project, run.run_group, run.display_name, list(run.tags)) == ("p", "g", "n", ["a", "b"])
    assert (run.entity, run.notes, run.git.commit) == ("me", "why", "")
    (history,) = [record.history for record in found if record.WhichOneof("record_type") == "history"]
    items = {(item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in history.item}
    assert items.items() >= {"val/loss": 0.25, "epoch": 1, "trainer/global_step": 12}.items()
    assert not [record for record in found if record.WhichOneof("record_type") in ("output", "output_raw")]
    assert not list(logs.rglob("*.patch"))

    said = capfd.readouterr().err
    assert "no API key" in said
    assert f"wandb sync {logs}/wandb/offline-run-" in said


def test_a_column_of_a_table_may_hold_numbers_and_texts(tmp_path: Path) -> None:
    logger = loggers.wandb(str(tmp_path / "logs"))
    rows = [("a", 1.5), ("b", "unreadable"), (3, None)]
    loggers.log_table([logger], "val/worst", ("key", "loss"), rows, 3)
    loggers.finish_loggers([logger])
    (path,) = tmp_path.rglob("*.table.json")
    assert json.loads(path.read_text())["data"] == [list(row) for row in rows]


def test_online_without_a_key_is_an_error_not_a_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(MLScaleError, match="no API key") as caught:
        loggers.wandb(str(tmp_path), offline=False).log_metrics({"a": 1.0}, 0)
    assert caught.value.exit is Exit.ENVIRONMENT


@pytest.mark.slow
def test_a_server_that_does_not_answer_costs_some_seconds_and_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from mlscale.train.loggers.wandb_logger import WandB

    monkeypatch.setenv("WANDB_API_KEY", "local-" + "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    logger = WandB(str(tmp_path), init_seconds=2)
    logger.log_metrics({"a": 1.0}, 0)
    logger.finish()
    assert any(record.WhichOneof("record_type") == "history" for record in records(tmp_path))
    assert "recording offline, the server did not take the run" in capfd.readouterr().err


def test_other_ranks_start_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pytorch_lightning.utilities import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = loggers.wandb(str(tmp_path / "logs"))
    logger.log_metrics({"a": 1.0}, 0)
    logger.finalize("success")
    loggers.finish_loggers([logger])
    assert not (tmp_path / "logs").exists()
