"""The Weights & Biases logger: no prompt, no hang, nothing sent that was not requested."""

from __future__ import annotations

import contextlib
import json
import os
import re
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import wandb
from lightning_fabric.loggers.logger import rank_zero_experiment
from numpy.typing import NDArray
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from mlscale.errors import Exit, MLScaleError
from mlscale.train.graceful_stop import get_received_signal

# LevelDB's log format behind a header of W&B's own: blocks with pieces of crc, length, kind and data.
_HEADER, _BLOCK, _PIECE = 7, 32768, struct.Struct("<IHB")
_WHOLE, _FIRST, _LAST = 1, 2, 4


def count_recorded_rows(folder: Path, run_id: str, *, but: Path) -> dict[Path, int]:
    """Return the rows of a run in the folders of its earlier attempts, in the order in which `wandb sync` sends them.

    Without those that have none: a client that is killed early leaves a file that it can't read itself.

    Args:
        folder: W&B's, with a folder for each attempt.
        but: the folder of the current attempt.
    """
    paths = sorted(folder.glob(f"*run-*-{run_id}/run-{run_id}.wandb"))
    rows = {path.parent: _count_rows(path) for path in paths if path.parent.name != but.name}
    return {path: count for path, count in rows.items() if count}


def _count_rows(path: Path) -> int:
    protocol: Any = import_module("wandb.proto.wandb_internal_pb2")  # generated, without types
    return sum(protocol.Record.FromString(data).WhichOneof("record_type") == "history" for data in _read_records(path))


def _read_records(path: Path) -> Iterator[bytes]:
    """Yield the whole records; what was cut off when the process was killed is not sent either."""
    log, at, pieces = path.read_bytes(), _HEADER, b""
    while at + _PIECE.size <= len(log):
        left = _BLOCK - at % _BLOCK
        if left < _PIECE.size:  # too little of the block is left for another piece
            at += left
            continue
        _, length, kind = _PIECE.unpack_from(log, at)
        at += _PIECE.size + length
        if not _WHOLE <= kind <= _LAST or at > len(log):
            return
        pieces = (b"" if kind in (_WHOLE, _FIRST) else pieces) + log[at - length : at]
        if kind in (_WHOLE, _LAST):
            yield pieces


_INIT_SECONDS = 20.0  # for the server to answer; then the run is recorded offline


class WandB(WandbLogger):
    """Lightning's WandbLogger with a run that mlscale starts.

    The run is online when there is an API key and the server responds, else offline: one line reports it, and how to
    send it later. Console output, the code, git state and diffs stay here; code is sent when `save_code` is set.

    Args:
        save_dir: the run's files go to its folder ``wandb``.
        project, entity, group, name, tags, notes: as W&B has them.
        offline: True or False to decide; None means offline without an API key.
        system_metrics: let W&B note the machine and sample its CPU, memory and GPU use.
        save_code: send the code, git's state, and the list of installed packages.
        run_id: of the run there: one that exists is continued. None for a new one.
        init_seconds: the longest that the server may take to respond.
    """

    def __init__(
        self,
        save_dir: str,
        *,
        project: str = "mlscale",
        entity: str | None = None,
        group: str | None = None,
        name: str | None = None,
        tags: Sequence[str] = (),
        notes: str = "",
        offline: bool | None = None,
        system_metrics: bool = False,
        save_code: bool = False,
        run_id: str | None = None,
        init_seconds: float = _INIT_SECONDS,
    ) -> None:
        super().__init__(name=name, save_dir=save_dir, project=project)
        self._init_arguments: dict[str, Any] = {
            "project": project,
            "entity": entity,
            "group": group,
            "name": name,
            "tags": list(tags),
            "notes": notes,
            "dir": save_dir,
            "id": _sanitize_run_id(run_id),
        }
        self._logged_rows = LoggedRows(Path(save_dir) / "wandb-rows.jsonl")
        self._rows_on_server = 0  # rows to come that the server has already
        self._next_step: int | None = None  # W&B's own number of the next row, where its client would begin at 0
        self._is_lost = False  # its process has ended, and takes no more rows
        self._offline_requested = offline
        self._system_metrics = system_metrics
        self._save_code = save_code
        self._init_seconds = init_seconds

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The `wandb.Run`, started on first use; on other ranks a dummy that ignores everything."""
        if self._experiment is None:
            self._experiment = self._start_run()
            self._experiment.define_metric("trainer/global_step")
            # Charts are over optimizer steps, in place of W&B's own count of rows.
            self._experiment.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        return self._experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        values = {name: float(value) for name, value in metrics.items()}
        self._log_row({**values, **({} if step is None else {"trainer/global_step": step})})

    @rank_zero_only
    def show_image(self, name: str, pixels: NDArray[Any], step: int) -> None:
        """Show an image, uint8 (height, width, 3) or (height, width)."""
        self._log_row({"trainer/global_step": step}, {name: wandb.Image(pixels)})

    @rank_zero_only
    def show_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Show a table."""
        cells = [list(row) for row in rows]
        try:
            table = wandb.Table(columns=list(columns), data=cells)
        except TypeError:  # numbers and texts in one column
            table = wandb.Table(columns=list(columns), data=cells, allow_mixed_types=True)
        self._log_row({"trainer/global_step": step}, {name: table})

    @rank_zero_only
    def start_over(self) -> None:
        """Forget an attempt that left no checkpoint: the rows that the server has of it are not sent again."""
        self._logged_rows.remove_rows()
        self._rows_on_server = self._count_sent_rows()

    @rank_zero_only
    def state_dict(self) -> dict[str, int]:
        """Return the number of rows; they are on the disk before a checkpoint relies on them."""
        return {"rows": self._logged_rows.save_rows()}

    @rank_zero_only
    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continue after that many rows. The server may have fewer, if its sending process was killed, too: they
        are sent now; or more, which are not sent again."""
        rows, sent = self._logged_rows.resume_rows(state_dict["rows"]), self._count_sent_rows()
        for row in rows[sent:]:
            self._send_row(row)
        self._rows_on_server = max(0, sent - state_dict["rows"])

    def _count_sent_rows(self) -> int:
        """Return the rows that the server has; offline those that it gets from the earlier attempts' files."""
        run = self.experiment
        if not run.offline:
            return int(run.starting_step)
        own = Path(run.dir).parent
        self._next_step = sum(count_recorded_rows(own.parent, run.id, but=own).values())
        return self._next_step

    def _log_row(self, row: dict[str, Any], media: Mapping[str, Any] | None = None) -> None:
        self._logged_rows.add_row(row)
        # The server has this row from the attempt before, after its checkpoint.
        if self._rows_on_server:
            self._rows_on_server -= 1
        else:
            self._send_row({**row, **(media or {})})

    def _send_row(self, row: Mapping[str, Any]) -> None:
        run = self.experiment
        if self._is_lost:
            return
        # Any error: a tracker ends no run, and the rows are kept. A scheduler's SIGTERM reaches all processes of a job,
        # W&B's among them, which ends by it while this one saves.
        try:
            run.log(row, step=self._next_step, commit=True)
            self._next_step = None  # from here on its client counts
        except Exception as error:
            self._note_loss(error)

    def _note_loss(self, error: Exception) -> None:
        if not self._is_lost:
            self._is_lost = True
            cause = f"{type(error).__name__}: {error}"
            _print_to_stderr(f"W&B: its process has ended ({cause}); rows are kept, and sent at the end or on resume")

    def finish(self, *, failed: bool = False) -> None:
        """End the run and wait until it is written, or sent. Lightning leaves this to the interpreter's exit, which
        worker processes do not reach."""
        if self._experiment is None or self._close_run(failed=failed):
            return
        # A grace period may be short: the next attempt sends what is missing.
        if get_received_signal():
            return
        self._is_lost = False
        try:
            self.load_state_dict({"rows": self._logged_rows.save_rows()})
        except Exception as error:
            self._note_loss(error)
        if self._experiment is not None:
            self._close_run(failed=failed)

    def _close_run(self, *, failed: bool) -> bool:
        """End the run in W&B's client; return False where its process has ended before."""
        run: Any = self._experiment
        self._experiment = None
        try:
            run.finish(exit_code=int(failed))
        except Exception as error:
            self._note_loss(error)
        # Waits for W&B's process: `finish` alone may return before an offline run is on the disk.
        with contextlib.suppress(Exception):
            wandb.teardown()
        if run.offline and not self._is_lost:
            own = Path(run.dir).parent
            folders = [*count_recorded_rows(own.parent, run.id, but=own), own]
            _print_to_stderr(f"W&B: recorded offline; to send it: wandb sync {' '.join(map(str, folders))}")
        return not self._is_lost

    def _start_run(self) -> Any:
        # W&B makes `dir/wandb` only where `dir` exists, else it moves to a temporary folder.
        Path(self._init_arguments["dir"]).mkdir(parents=True, exist_ok=True)
        if self._can_go_online():
            try:
                return self._init_run("online")
            except (wandb.errors.CommError, wandb.errors.AuthenticationError, wandb.errors.UsageError) as error:
                if self._offline_requested is False:
                    raise MLScaleError(
                        "W&B did not take the run",
                        where="logger.wandb.offline",
                        why=str(error),
                        fix="logger.wandb.offline=null, which records offline when that happens",
                        exit=Exit.ENVIRONMENT,
                    ) from error
                _print_to_stderr(
                    f"W&B: recording offline, the server did not take the run ({str(error).splitlines()[0]})"
                )
                wandb.teardown()  # the client that could not connect
        return self._init_run("offline")

    def _can_go_online(self) -> bool:
        if self._offline_requested or os.environ.get("WANDB_MODE", "online") != "online":
            return False
        # W&B's own look-up in the environment, its settings and netrc; it neither prompts the user nor sends a request.
        if wandb.login(prompt=False, verify=False):
            return True
        if self._offline_requested is False:
            raise MLScaleError(
                "W&B has no API key",
                where="logger.wandb.offline",
                fix="wandb login, or WANDB_API_KEY=… in the environment; logger.wandb.offline=null records offline",
                exit=Exit.ENVIRONMENT,
            )
        _print_to_stderr(
            "W&B: no API key, so this run is recorded offline; after `wandb login`, runs are recorded online"
        )
        return False

    def _init_run(self, mode: Literal["online", "offline"]) -> Any:
        settings = wandb.Settings(
            console="off",
            disable_code=not self._save_code,
            disable_git=not self._save_code,
            disable_job_creation=True,
            init_timeout=self._init_seconds,
            save_code=self._save_code,
            silent=True,
            x_disable_machine_info=not self._system_metrics,
            x_disable_meta=True,  # it holds the command line, and secrets that were typed there
            x_disable_stats=not self._system_metrics,
            x_save_requirements=self._save_code,
        )
        known = mode == "online" and self._init_arguments["id"] is not None  # offline, no run can be continued
        resume: Literal["allow"] | None = "allow" if known else None
        return wandb.init(mode=mode, settings=settings, resume=resume, **self._init_arguments)


def _sanitize_run_id(name: str | None) -> str | None:
    """Return `name` as W&B accepts it: at most 64 characters, none that its addresses use."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[-64:] if name else None


def _print_to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class LoggedRows:
    """The rows of a run, on the disk before a checkpoint relies on them.

    Args:
        path: of the file, one JSON document a line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fresh: list[str] = []
        self._count = 0  # rows of the run, on the disk or not

    def add_row(self, row: Mapping[str, Any]) -> None:
        """Add a row."""
        self._fresh.append(json.dumps(row))
        self._count += 1

    def save_rows(self) -> int:
        """Write the new rows; returns how many the run has. Where the disk is full they wait in memory."""
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            size = self._path.stat().st_size if self._path.exists() else 0
            try:
                with self._path.open("a", encoding="utf-8") as file:
                    file.writelines(f"{row}\n" for row in self._fresh)
            except OSError:
                os.truncate(self._path, size)  # some of the rows may be there: all will be written again
                raise
            self._fresh.clear()
        return self._count

    def resume_rows(self, count: int) -> list[dict[str, Any]]:
        """Keep the first `count` rows and remove those after the checkpoint; returns the kept ones."""
        lines: list[str] = []
        if self._path.is_file():
            lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)[:count]
            self._path.write_text("".join(lines), encoding="utf-8")
        self._count = count
        # A line without a line break was cut off when the process was killed.
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def remove_rows(self) -> None:
        """Remove the rows of an earlier attempt."""
        self._path.unlink(missing_ok=True)
