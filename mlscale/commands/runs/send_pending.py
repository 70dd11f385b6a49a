"""`mlscale runs send`: the entries that a tracker did not take while the run ran."""

from __future__ import annotations

import sys

from mlscale.errors import Exit, MLScaleError
from mlscale.runs.folder import RunFolder

UNSENT = "logs/mlflow-unsent.jsonl"
_ENTRIES_PER_REQUEST = 500


def send_pending_entries(run: RunFolder) -> int:
    """Send the waiting entries of a run folder to the MLflow server that they were meant for; none is sent twice.

    Raises:
        MLScaleError: the server does not take it (exit code 5).
    """
    from mlscale.export.required_extras import require_extra
    from mlscale.train.loggers.mlflow_client import MLflowEntrySender, MLflowTarget
    from mlscale.train.loggers.outbox import read_outbox, write_outbox

    path = run.path / UNSENT
    address, entries = read_outbox(path)
    if not entries:
        print(f"nothing of {run.path.name} waits to be sent", file=sys.stderr)
        return int(Exit.DONE)
    require_extra("mlflow", "mlflow")
    client = MLflowEntrySender(MLflowTarget(**address))
    try:
        # In pieces: MLflow's server limits what it takes in one request.
        for at in range(0, len(entries), _ENTRIES_PER_REQUEST):
            client.send(entries[at : at + _ENTRIES_PER_REQUEST])
    except Exception as error:
        raise MLScaleError(
            f"{client.where} does not take the entries",
            where=str(path),
            why=" ".join(str(error).split())[:300],
            fix=f"start the server, then: mlscale runs send {run.id}",
            exit=Exit.ENVIRONMENT,
        ) from error
    # Emptied only after all of them were taken.
    write_outbox(path, address, ())
    print(f"{client.where}: {len(entries):,} entries of {run.path.name} sent")
    return int(Exit.DONE)
