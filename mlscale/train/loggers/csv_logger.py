"""Metrics as one CSV file, written in batches."""

import contextlib
import csv
import os
import shutil
import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only
from tqdm import tqdm

from mlscale.errors import MLScaleError
from mlscale.runs.checkpoint_files.checkpoint_commit import DISK_FULL_ERRORS
from mlscale.train.loggers.media import write_png, write_table_csv

_WRITE_INTERVAL_SECONDS = 5.0  # between two writes


class NoExperiment(MLScaleError, AttributeError):  # noqa: N818 - hasattr(logger, "experiment") must be False
    """The error for code that uses what only a tracker has, such as TensorBoard's `add_image`, with the CSV file."""


class CSV(Logger):
    """The CSV file of metrics, a row per entry: ``step``, then every metric so far, empty where an entry lacks it.

    Lightning's CSVLogger opens the file at every entry, deletes the one of an earlier attempt, and puts it two folders
    deeper. Here entries are kept for some seconds, and an existing file is continued.

    Args:
        save_dir: the folder of ``metrics.csv``; made when the first entry is written.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self.path = Path(save_dir) / "metrics.csv"
        self._rows: list[dict[str, Any]] = []
        self._count = 0  # rows of the run, written or not
        self._columns: list[str] = []
        self._written = time.monotonic()
        self._warned = False

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    @property
    def experiment(self) -> Any:
        raise NoExperiment(
            "logger=csv has no 'experiment'",
            where="self.logger.experiment in the module, or in a callback",
            why="it is a file; what is written through 'experiment' is a tracker's",
            fix="logger=tensorboard, for add_image and the like; or logger=wandb, logger=mlflow for theirs",
        )

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: object, **kwargs: object) -> None:
        """Do nothing: the run folder holds the whole configuration."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._rows.append({"step": "" if step is None else step, **metrics})
        self._count += 1

    @rank_zero_only
    def show_image(self, name: str, pixels: NDArray[Any], step: int) -> None:
        """Keep an image as ``media/<name>/<step>.png``, uint8 (height, width, 3) or (height, width)."""
        write_png(self.path.parent / "media" / name / f"{step}.png", pixels)

    @rank_zero_only
    def show_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Keep a table as ``media/<name>/<step>.csv``."""
        write_table_csv(self.path.parent / "media" / name / f"{step}.csv", columns, rows)

    @rank_zero_only
    def start_over(self) -> None:
        """Forget the rows of an attempt that left no checkpoint."""
        self.path.unlink(missing_ok=True)

    @rank_zero_only
    def state_dict(self) -> dict[str, int]:
        """Return the number of rows, after writing them: a checkpoint relies on them."""
        self.flush()
        return {"rows": self._count}

    @rank_zero_only
    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continue after that many rows: rows from after the checkpoint will be logged again."""
        self._columns, rows = self._read_rows()
        self._count = min(state_dict["rows"], len(rows))
        if lost := state_dict["rows"] - self._count:
            tqdm.write(f"warning   {self.path}: {lost} of {state_dict['rows']} earlier rows are gone", file=sys.stderr)
        if self._columns:
            self._write_rows(rows[: self._count])

    @rank_zero_only
    def save(self) -> None:
        """Write if the last write is some seconds ago; Lightning calls this at every entry."""
        if time.monotonic() - self._written >= _WRITE_INTERVAL_SECONDS:
            self.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.flush()
        if self._rows:
            count = len(self._rows)
            with contextlib.suppress(OSError):
                tqdm.write(f"warning   disk full: {count} rows of {self.path} are lost", file=sys.stderr)

    def flush(self) -> None:
        """Write now. Where the disk is full the entries are kept for the next time: training continues."""
        self._written = time.monotonic()
        if not self._rows:
            return
        columns = list(self._columns)
        try:
            self._append_rows()
        except OSError as error:
            if error.errno not in DISK_FULL_ERRORS:
                raise
            self._columns = columns
            self._warn_disk_full(error)
            return
        self._rows.clear()

    def _append_rows(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # The file of an earlier attempt of this run: its columns come first.
        if not self._columns and self.path.exists():
            self._columns = self._read_rows()[0]
        known = list(self._columns)
        self._columns += [name for name in dict.fromkeys(n for row in self._rows for n in row) if name not in known]
        if self._columns != known:  # the file is new, or becomes wider
            self._write_rows(self._read_rows()[1])
        size = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self._columns).writerows(self._rows)
        except OSError:
            os.truncate(self.path, size)  # half of a row may be there
            raise

    def _warn_disk_full(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            with contextlib.suppress(OSError):  # standard error may be a file on the same disk
                tqdm.write(f"warning   disk full: {self.path} waits in memory: {error.strerror}", file=sys.stderr)

    def _read_rows(self) -> tuple[list[str], list[dict[str, str]]]:
        """Return the columns and the rows of the file; an unfinished row of a run that was killed is left out."""
        if not self.path.exists():
            return [], []
        # After the last line break there is nothing, or an unfinished row. Bytes, since a torn file may not be UTF-8.
        lines = self.path.read_bytes().split(b"\n")[:-1]
        if not lines:
            return [], []
        header = _parse_fields(lines[0])
        if header is None or header[:1] != ["step"]:
            self._keep_corrupt_copy("its header can't be read, so it is restarted")
            self.path.unlink()
            return [], []
        read = [_parse_fields(line) for line in lines[1:]]
        whole = [fields if fields is not None and len(fields) == len(header) else None for fields in read]
        if lost := whole.count(None):
            self._keep_corrupt_copy(f"{lost} of its {len(whole)} rows can't be read and are left blank")
        blank = [""] * len(header)  # a corrupt row keeps its position: checkpoints count rows
        return header, [dict(zip(header, fields or blank, strict=True)) for fields in whole]

    def _keep_corrupt_copy(self, what: str) -> None:
        """Copy the file to another name before it is replaced, and report it; once, so that the first copy stays."""
        backup = self.path.with_name(f"{self.path.name}.damaged")
        if not backup.exists():
            shutil.copyfile(self.path, backup)
            tqdm.write(f"warning   {self.path} is corrupt: {what}; a copy: {backup.name}", file=sys.stderr)

    def _write_rows(self, rows: list[dict[str, str]]) -> None:
        """Replace the file: written aside, then renamed."""
        aside = self.path.with_suffix(".csv.tmp")
        try:
            with aside.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self._columns)
                writer.writeheader()
                writer.writerows(rows)
            aside.replace(self.path)
        except OSError:
            aside.unlink(missing_ok=True)
            raise


def _parse_fields(line: bytes) -> list[str] | None:
    """Return the fields of one line; None where it can't be read. A metric's name and value hold no line break."""
    if b"\0" in line:  # a block that never reached the disk
        return None
    try:
        return next(csv.reader([line.decode("utf-8").rstrip("\r")], strict=True), [])
    except (UnicodeDecodeError, csv.Error):
        return None
