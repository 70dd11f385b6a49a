"""The TensorBoard logger: Lightning's, with resumed runs that repeat no steps, and with tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only

from mlscale.train.loggers.media import format_markdown_table


class TensorBoard(TensorBoardLogger):
    """Lightning's TensorBoardLogger, with its event files in `save_dir` itself.

    A resumed run opens another file, which holds the step from which on the earlier ones no longer count: TensorBoard
    then leaves out entries from after the checkpoint, which will be logged again.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__(save_dir, name="", version="", default_hp_metric=False)
        self._last = -1

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._last = max(self._last, step or 0)
        super().log_metrics(metrics, step)

    @rank_zero_only
    def start_over(self) -> None:
        """Delete the event files of an attempt that left no checkpoint."""
        for path in Path(self.log_dir).glob("events.out.tfevents.*"):
            path.unlink()

    @rank_zero_only
    def state_dict(self) -> dict[str, int]:
        """Return the last step, after writing all entries: a checkpoint relies on them."""
        if self._experiment is not None:
            self._experiment.flush()
        return {"step": self._last}

    @rank_zero_only
    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continue after that step."""
        self._last = int(state_dict["step"])
        # Lightning passes it to SummaryWriter when that opens an event file.
        self._kwargs["purge_step"] = self._last + 1
        if self._experiment is not None:  # Lightning opens a file before it reads the checkpoint: this one stays empty
            self._experiment.close()
            self._experiment = None

    @rank_zero_only
    def show_image(self, name: str, pixels: NDArray[Any], step: int) -> None:
        """Show an image, uint8 (height, width, 3) or (height, width)."""
        self.experiment.add_image(name, pixels, step, dataformats="HWC" if pixels.ndim == 3 else "HW")

    @rank_zero_only
    def show_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Show a table as a text."""
        self.experiment.add_text(name, format_markdown_table(columns, rows), step)
