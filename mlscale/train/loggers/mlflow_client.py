"""Requests to an MLflow server: find or create the run, then entries in batches, each request in bounded time."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

from mlscale.outbox import ItemRefusedError

_RUN = "mlscale.run"  # the tag by which a resumed run is found
_NOTES = "mlflow.note.content"
_PARAMS, _METRICS = 100, 1000  # that MLflow takes in one request
_INVALID_CHARACTERS = re.compile(
    r"[^\w/.:\- ]"
)  # in the name of a parameter or metric; with one of these no entry is taken
_MAX_NAME_LENGTH = 250  # characters of a name
_REFUSED = (400, 413, 422)  # statuses: the entries are invalid; others may be fixed on the server


@dataclass(frozen=True)
class MLflowTarget:
    """The server and the description of a run.

    Attributes:
        uri: the tracking server.
        experiment: its name.
        name: of the run, unique.
        tags: name to value.
        notes: the run's description.
        timeout_s: of one request.
    """

    uri: str
    experiment: str
    name: str
    tags: Mapping[str, str] = field(default_factory=dict)
    notes: str = ""
    timeout_s: float = 10.0

    def build_target_document(self) -> dict[str, Any]:
        """Return it for JSON; the address has no credentials in it, those come from the environment."""
        return asdict(self) | {"uri": _remove_credentials(self.uri)}


class MLflowEntrySender:
    """The sender of entries of `mlscale.train.loggers.tracker_outbox`; it connects when the first one is sent."""

    def __init__(self, target: MLflowTarget) -> None:
        self._target = target
        self._mlflow: Any = None
        self._run = ""
        self._seen: dict[str, int] = {}  # the last step of each metric that the server has

    @property
    def where(self) -> str:
        return f"MLflow at {_remove_credentials(self._target.uri)}"

    def send(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Send entries in order; those that the server has already are left out.

        Raises:
            ItemRefusedError: the server finds something invalid in them.
            Exception: of MLflow or requests: the server is not reached, or does not accept them.
        """
        try:
            self._send_entries(entries)
        except Exception as error:
            # By the method, not the class: importing MLflow's takes seconds.
            get_status = getattr(error, "get_http_status_code", None)
            if callable(get_status) and get_status() in _REFUSED:
                raise ItemRefusedError(str(error)) from error
            raise

    def _send_entries(self, entries: Sequence[Mapping[str, Any]]) -> None:
        if not self._run:
            self._connect_to_server()
        entities: Any = _import_entities()
        metrics: list[Any] = []
        seen = dict(self._seen)  # `epoch` comes with training's and with validation's metrics of a step
        params: dict[str, str] = {}
        for entry in entries:
            for given, value in entry.get("metrics", {}).items():
                name = _sanitize_metric_name(given)
                if entry["step"] > seen.get(name, -1):
                    seen[name] = entry["step"]
                    # A text where it is NaN or infinite: entries are kept as JSON.
                    metrics.append(entities.Metric(name, float(value), entry["time_ms"], entry["step"]))
            params |= {_sanitize_metric_name(given): value for given, value in entry.get("params", {}).items()}
        if params:
            self._log_params(entities, params)
        for at in range(0, len(metrics), _METRICS):
            self._mlflow.log_batch(self._run, metrics=metrics[at : at + _METRICS])
        for metric in metrics:  # accepted ones are not sent again when a later part of these entries fails
            self._seen[metric.key] = max(metric.step, self._seen.get(metric.key, -1))
        for entry in entries:
            if "artifact" in entry and os.path.isfile(entry["artifact"]):
                self._mlflow.log_artifact(self._run, entry["artifact"], entry["to"] or None)
            if "status" in entry:
                self._mlflow.set_terminated(self._run, entry["status"])

    def _connect_to_server(self) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it reports calls to its makers
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(max(1, round(self._target.timeout_s))))
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # by default it tries for four minutes
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # stdout holds results alone
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        # After the variables: MLflow reads them when it is imported and at its first request.
        from mlflow.tracking import MlflowClient

        self._mlflow = client = MlflowClient(tracking_uri=self._target.uri)
        existing = client.get_experiment_by_name(self._target.experiment)
        experiment = existing.experiment_id if existing else client.create_experiment(self._target.experiment)
        # A quote would end the string in the filter below.
        quoted = self._target.name.replace("'", "")
        runs = client.search_runs([experiment], f"tags.`{_RUN}` = '{quoted}'", max_results=1)
        if runs:
            self._run = runs[0].info.run_id
            self._seen = {metric.key: metric.step for metric in runs[0].data._metric_objs}
            client.update_run(self._run, status="RUNNING")
        else:
            tags = {**self._target.tags, _RUN: quoted} | ({_NOTES: self._target.notes} if self._target.notes else {})
            self._run = client.create_run(experiment, tags=tags, run_name=self._target.name).info.run_id

    def _log_params(self, entities: ModuleType, params: Mapping[str, str]) -> None:
        """Log parameters that the run lacks: MLflow's can't change, so a run resumed elsewhere keeps its first ones."""
        known = self._mlflow.get_run(self._run).data.params
        new = [entities.Param(name, value) for name, value in params.items() if name not in known]
        for at in range(0, len(new), _PARAMS):
            self._mlflow.log_batch(self._run, params=new[at : at + _PARAMS])


def _sanitize_metric_name(given: str) -> str:
    """Return a name as MLflow accepts it: `val/top_5` for `val/top@5`."""
    return _INVALID_CHARACTERS.sub("_", given)[:_MAX_NAME_LENGTH]


def _import_entities() -> Any:
    import mlflow.entities

    return mlflow.entities


def _remove_credentials(uri: str) -> str:
    """Return the address without a user and a password."""
    scheme, mark, rest = uri.partition("://")
    head, slash, path = rest.partition("/")
    return f"{scheme}{mark}{head.rpartition('@')[2]}{slash}{path}"
