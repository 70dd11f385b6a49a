"""`mlscale runs send`: what a tracker or an object store did not take while the run ran."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from mlscale.contracts.output_document import Answer
from mlscale.errors import Exit, MLScaleError
from mlscale.runs.folder import RunFolder
from mlscale.runs.lock import hold_run_lock
from mlscale.runs.remote_checkpoints.run_store import find_checkpoint_store, upload_missing

if TYPE_CHECKING:
    from mlscale.train.loggers.mlflow_client import MLflowEntrySender

_ITEMS_PER_REQUEST = 20  # MLflow's server limits what it takes in one request
_LOCK_SECONDS = 10.0


def send_pending(run: RunFolder) -> Answer:
    """Upload what the object store of a run lacks, and send its waiting entries to the tracker that they are for.

    Raises:
        MLScaleError: the store or the server does not take it (exit code 5).
    """
    uploads, unstored = _upload_missing(run)
    sent, server = _send_entries(run)
    if unstored is not None:
        raise unstored
    return Answer(
        "runs-send",
        {"run": str(run.path), "sent": sent, "server": server, "uploaded": len(uploads)},
        [*uploads, f"{server}: {sent:,} entries of {run.path.name} sent" if sent else ""],
        [] if sent or uploads else [f"nothing of {run.path.name} waits to be sent"],
    )


def _upload_missing(run: RunFolder) -> tuple[list[str], MLScaleError | None]:
    """Return a line for each upload, and the error of a store that can't be written to: entries are sent anyway."""
    # A run that trains uploads on its own.
    if find_checkpoint_store(run.path) is None or run.status == "running":
        return [], None
    try:
        with hold_run_lock(run):
            return upload_missing(run.path), None
    except MLScaleError as error:
        return [], error


def _send_entries(run: RunFolder) -> tuple[int, str | None]:
    """Send the waiting entries of a run folder to the MLflow server that they were meant for, those that were given up
    included; none is sent twice. Return their number, and the server.

    Raises:
        MLScaleError: the server does not take it (exit code 5).
    """
    from mlscale.export.required_extras import require_extra
    from mlscale.train.loggers.tracker_outbox import open_tracker_outbox

    outbox = open_tracker_outbox(run.path / "logs")
    outbox.restore_failed()
    if not outbox.count_items() and not outbox.count_failed():
        return 0, None
    require_extra("mlflow", "mlflow")
    senders = _SendersByAddress()
    report = outbox.send_items(
        senders.send_bodies, max_batch=_ITEMS_PER_REQUEST, ignore_backoff=True, lock_s=_LOCK_SECONDS
    )
    outbox.remove_if_empty()
    if report.waiting or outbox.count_failed():
        raise MLScaleError(
            f"{senders.where} does not take the entries",
            where=str(outbox.folder),
            why="; ".join([*filter(None, [report.why]), *report.failed])[:300],
            fix=f"mlscale runs send {run.id}, once the server answers",
            exit=Exit.ENVIRONMENT,
        )
    return senders.sent, senders.where


class _SendersByAddress:
    """The clients of the servers that a run's entries are for; usually one."""

    def __init__(self) -> None:
        self._clients: dict[str, MLflowEntrySender] = {}
        self.sent, self.where = 0, "MLflow"

    def send_bodies(self, bodies: Sequence[Mapping[str, Any]]) -> None:
        """Send entries in order, each to its own server."""
        from mlscale.train.loggers.mlflow_client import MLflowEntrySender, MLflowTarget

        for name, group in groupby(bodies, lambda body: json.dumps(body["address"], sort_keys=True)):
            entries = [entry for body in group for entry in body["entries"]]
            if name not in self._clients:
                self._clients[name] = MLflowEntrySender(MLflowTarget(**json.loads(name)))
            self.where = self._clients[name].where
            self._clients[name].send(entries)
            self.sent += len(entries)
