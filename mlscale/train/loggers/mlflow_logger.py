"""The MLflow logger: a thread sends the entries; those that the server does not accept are kept and reported."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from mlscale.export.required_extras import require_extra
from mlscale.train.loggers.media import write_png, write_table_csv
from mlscale.train.loggers.mlflow_client import MLflowEntrySender, MLflowTarget
from mlscale.train.loggers.tracker_outbox import TrackerOutbox

_MAX_VALUE_LENGTH = 6000  # characters of a parameter that MLflow accepts


class MLflow(Logger):
    """One run of a tracking server. A resumed run is found by its name and continued there; an entry that the server
    has is not sent again.

    Args:
        save_dir: where entries are kept until they are sent, in ``mlflow-outbox``.
        tracking_uri: the server, as MLflow has it.
        experiment: created where it does not exist.
        name: of the run; no other run of the experiment has it.
        tags: any words.
        notes: shown as the run's description.
        artifacts: files of the run folder, relative to it, that are sent at the end; patterns as `checkpoints/*.ckpt`.
        timeout_s: seconds that one request may take.

    Raises:
        MLScaleError: MLflow is not installed (exit code 5).
    """

    def __init__(
        self,
        save_dir: str,
        *,
        tracking_uri: str,
        experiment: str = "mlscale",
        name: str = "run",
        tags: Sequence[str] = (),
        notes: str = "",
        artifacts: Sequence[str] = (),
        timeout_s: float = 10.0,
    ) -> None:
        super().__init__()
        require_extra("mlflow", "mlflow")
        self._folder, self._artifacts = Path(save_dir), tuple(artifacts)
        # MLflow's tags are pairs.
        self._target = MLflowTarget(tracking_uri, experiment, name, dict.fromkeys(tags, "true"), notes, timeout_s)
        self._started: TrackerOutbox | None = None

    @property
    def name(self) -> str:
        return "mlflow"

    @property
    def version(self) -> str:
        return self._target.name

    @property
    def save_dir(self) -> str:
        return str(self._folder)

    @property
    def _outbox(self) -> TrackerOutbox:
        """The outbox, started by the first entry, on rank 0: a process that logs nothing has no thread."""
        if self._started is None:
            self._started = TrackerOutbox(
                self._folder, MLflowEntrySender(self._target), self._target.build_target_document()
            )
        return self._started

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: object, **kwargs: object) -> None:
        flat = _flatten_parameters(vars(params) if isinstance(params, Namespace) else params)
        self._outbox.add_entry({"params": {name: str(value)[:_MAX_VALUE_LENGTH] for name, value in flat.items()}})

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        # Plain numbers: the outbox writes entries as JSON.
        values = {name: float(value) for name, value in metrics.items()}
        # The time of the step: it may be sent much later.
        self._outbox.add_entry({"metrics": values, "step": step or 0, "time_ms": int(time.time() * 1000)})

    @rank_zero_only
    def show_image(self, name: str, pixels: NDArray[Any], step: int) -> None:
        """Keep an image as `<name>/<step>.png` of the run's artifacts."""
        path = write_png(self._folder / "media" / name / f"{step}.png", pixels)
        self._outbox.add_entry({"artifact": str(path), "to": name})

    @rank_zero_only
    def show_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int) -> None:
        """Keep a table as `<name>/<step>.csv` of the run's artifacts."""
        path = write_table_csv(self._folder / "media" / name / f"{step}.csv", columns, rows)
        self._outbox.add_entry({"artifact": str(path), "to": name})

    @rank_zero_only
    def state_dict(self) -> dict[str, Any]:
        """Return nothing; entries are sent or on the disk before a checkpoint relies on them."""
        if self._started is not None:
            self._started.save_entries()
        return {}

    @rank_zero_only
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing: the server knows which entries it has."""

    @rank_zero_only
    def finish(self, *, failed: bool = False) -> None:
        """Send the remaining entries and end the run, for some seconds at most."""
        if self._started is None:
            return
        run = self._folder.parent
        for path in sorted(path for pattern in self._artifacts for path in run.glob(pattern) if path.is_file()):
            to = path.relative_to(run).parent.as_posix()
            self._started.add_entry({"artifact": str(path), "to": "" if to == "." else to})
        self._started.add_entry({"status": "FAILED" if failed else "FINISHED"})
        self._started.close()
        self._started = None


def _flatten_parameters(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return `{"optimizer": {"lr": 1}}` as `{"optimizer.lr": 1}`; lists stay whole."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        # An empty mapping stays a value, or its key would be lost.
        if isinstance(value, Mapping) and value:
            flat |= _flatten_parameters(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
