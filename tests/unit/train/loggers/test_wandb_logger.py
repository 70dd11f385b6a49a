"""The real W&B client, offline: no prompt, nothing captured that was not asked for, all metrics in its file."""

import contextlib
import gc
import json
import signal
import struct
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import wandb

from mlscale.errors import Exit, MLScaleError
from mlscale.train import graceful_stop, loggers


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a key, and no terminal to ask."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "home"))
    wandb.teardown()


def records(folder: Path) -> list[Any]:
    """What the client wrote into the transaction logs of all attempts, in order.

    The file is LevelDB's log format behind 7 bytes of W&B's own: blocks of 32 KiB; in them pieces of crc (4 bytes),
    length (2), kind (1: whole, 2: first, 3: middle, 4: last) and data.
    """
    protocol: Any = import_module("wandb.proto.wandb_internal_pb2")
    found = []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        log, at, pieces = path.read_bytes(), 7, b""
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


def rows_of(folder: Path) -> list[dict[str, float]]:
    """The rows in the transaction logs of all attempts, which `wandb sync` sends in this order."""
    histories = [record.history for record in records(folder) if record.WhichOneof("record_type") == "history"]
    return [
        {(item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in history.item}
        for history in histories
    ]


def kill_client(signum: signal.Signals) -> None:
    """End W&B's process, as a scheduler's signal to all processes of a job does."""
    started = [process for process in gc.get_objects() if isinstance(process, subprocess.Popen)]
    (client,) = [process for process in started if "wandb-core" in str(process.args) and process.poll() is None]
    client.send_signal(signum)
    client.wait(10)  # W&B itself does not


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

    printed = capfd.readouterr().err
    assert "no API key" in printed
    assert f"wandb sync {logs}/wandb/offline-run-" in printed


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


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_client_that_is_killed_ends_no_run_and_its_rows_are_sent_at_the_end(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], signum: signal.Signals
) -> None:
    logger = loggers.wandb(str(tmp_path), run_id="r")
    logger.log_metrics({"a": 0.0}, 0)
    kill_client(signum)
    for step in (1, 2, 3):
        logger.log_metrics({"a": float(step)}, step)
    time.sleep(1.1)  # the names of W&B's folders have seconds
    loggers.finish_loggers([logger])
    rows = rows_of(tmp_path)
    assert [row["trainer/global_step"] for row in rows] == [0, 1, 2, 3]
    assert [row["_step"] for row in rows] == [0, 1, 2, 3]
    assert capfd.readouterr().err.count("W&B: its process has ended") == 1


def test_a_client_that_is_killed_at_the_end_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    logger = loggers.wandb(str(tmp_path), run_id="r")
    logger.log_metrics({"a": 0.0}, 0)
    kill_client(signal.SIGTERM)
    monkeypatch.setattr(graceful_stop, "_received", signal.SIGTERM)
    loggers.finish_loggers([logger])
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 1  # the rest is sent on resume: the grace may be short
    assert "on resume" in capfd.readouterr().err


@pytest.mark.parametrize(("is_killed", "kept"), [(True, 5), (True, 2), (False, 5), (False, 2)])
def test_attempts_that_were_recorded_offline_are_one_run_without_a_row_twice_or_missing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], is_killed: bool, kept: int
) -> None:
    """The client has recorded more rows than the checkpoint counts, or, where it was killed, fewer. One before it has
    left a file that `wandb sync` can't read."""
    empty = tmp_path / "wandb/offline-run-20200101_000000-r/run-r.wandb"
    empty.parent.mkdir(parents=True)
    empty.write_bytes(b":W&B\xbe\xe1\0"[:7])
    first: Any = loggers.wandb(str(tmp_path), run_id="r")
    for step in range(5):
        first.log_metrics({"a": float(step)}, step)
    first.state_dict()
    if is_killed:
        kill_client(signal.SIGKILL)
        with contextlib.suppress(ConnectionError):  # its process has ended
            wandb.teardown()
    else:
        loggers.finish_loggers([first])
    time.sleep(1.1)
    capfd.readouterr()
    second: Any = loggers.wandb(str(tmp_path), run_id="r")
    second.load_state_dict({"rows": kept})
    for step in range(kept, 7):
        second.log_metrics({"a": float(step)}, step)
    loggers.finish_loggers([second])
    rows = rows_of(tmp_path)
    assert [row["trainer/global_step"] for row in rows] == list(range(7))
    assert [row["_step"] for row in rows] == list(range(7))
    sent = capfd.readouterr().err.partition("wandb sync ")[2].split()
    assert str(empty.parent) not in sent
    if not is_killed:
        assert sent == [str(path) for path in sorted(tmp_path.glob("wandb/offline-run-*-r")) if path != empty.parent]


def test_other_ranks_start_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pytorch_lightning.utilities import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = loggers.wandb(str(tmp_path / "logs"))
    logger.log_metrics({"a": 1.0}, 0)
    logger.finalize("success")
    loggers.finish_loggers([logger])
    assert not (tmp_path / "logs").exists()
