"""Jobs on Kubernetes by kubectl: the TrainJob of a run, its state, its log, its end."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlscale.errors import MLScaleError
from mlscale.launch.cloud.client_command import run_client
from mlscale.launch.cloud.job_client import ADDRESS_SECONDS
from mlscale.launch.job_state import VANISHED, JobState
from mlscale.runs.job_record import JobRecord

_IN_CLUSTER = "the cluster of kubectl's own pod"
_KIND = "trainjobs.trainer.kubeflow.org"
# Conditions of a TrainJob that are final, or hold it back (`kubectl explain trainjob.status.conditions`).
_CONDITIONS = {"Complete": "done", "Failed": "failed", "Suspended": "queued"}


class KubectlClient:
    """kubectl. The id of a job is `<namespace>/<name>`, its cluster the context of the kubeconfig."""

    program, platform, file = "kubectl", "Kubernetes", "kubernetes.yaml"

    def read_cluster(self) -> str:
        """Return the current context; later commands name it, for it may be another one by then."""
        try:
            return run_client([self.program, "config", "current-context"], ADDRESS_SECONDS).strip() or _IN_CLUSTER
        # Inside a pod of the cluster kubectl works without any.
        except MLScaleError:
            return _IN_CLUSTER

    def build_submit_words(self, path: Path, variables: Sequence[str], cluster: str = "") -> list[str]:
        return [self.program, *_choose_context(cluster), "apply", "-f", str(path)]

    def build_prepare_words(self, record: JobRecord) -> list[str]:
        # `apply` leaves a job that has ended as it is. Its pods save first: this waits for them.
        return [*self._address(record), "delete", _KIND, _get_name(record), "--ignore-not-found", "--wait"]

    def build_log_words(self, record: JobRecord, *, follow: bool) -> list[str]:
        # Of the first node, whose first process prints; pods that were replaced are listed as long as they exist.
        pods = f"jobset.sigs.k8s.io/jobset-name={_get_name(record)},batch.kubernetes.io/job-completion-index=0"
        return [*self._address(record), "logs", "-l", pods, "--tail=-1", *(["--follow"] if follow else [])]

    def build_cancel_words(self, record: JobRecord) -> list[str]:
        # The pods get SIGTERM and their grace period, and save.
        return [*self._address(record), "delete", _KIND, _get_name(record), "--wait=false"]

    def list_states(self, records: Sequence[JobRecord]) -> dict[str, JobState]:
        states: dict[str, JobState] = {}
        # One request for all jobs of a namespace: a list of runs has hundreds.
        for cluster, namespace in dict.fromkeys((record.cluster, _get_namespace(record)) for record in records):
            wanted = [r for r in records if (r.cluster, _get_namespace(r)) == (cluster, namespace)]
            words = [*self._address(wanted[0]), "get", _KIND, "-l", "app.kubernetes.io/managed-by=mlscale"]
            reported = parse_train_jobs(run_client([*words, "-o", "json"], ADDRESS_SECONDS))
            states |= {record.id: reported.get(_get_name(record), JobState(VANISHED)) for record in wanted}
        return states

    def _address(self, record: JobRecord) -> list[str]:
        return [self.program, *_choose_context(record.cluster), f"--namespace={_get_namespace(record)}"]


def _choose_context(cluster: str) -> list[str]:
    return [] if cluster in ("", _IN_CLUSTER) else [f"--context={cluster}"]


def parse_train_jobs(text: str) -> dict[str, JobState]:
    """Return the states of the TrainJobs in what `kubectl get -o json` prints, by their names."""
    return {item["metadata"]["name"]: _read_state(item.get("status") or {}) for item in json.loads(text)["items"]}


def _read_state(status: Mapping[str, Any]) -> JobState:
    conditions = {item["type"]: item for item in status.get("conditions") or () if item["status"] == "True"}
    for name, word in _CONDITIONS.items():
        if name in conditions:
            return JobState(word, str(conditions[name].get("message", "")))
    # Ready is a pod that runs; an active one may still wait for a node or its image.
    if _count(status, "ready"):
        return JobState("running")
    return JobState("queued", "its pods are pending" if _count(status, "active") else "it has no pods yet")


def _count(status: Mapping[str, Any], name: str) -> int:
    jobs: Iterable[Mapping[str, int]] = status.get("jobsStatus") or ()
    return sum(job.get(name, 0) for job in jobs)


def _get_namespace(record: JobRecord) -> str:
    return record.id.partition("/")[0]


def _get_name(record: JobRecord) -> str:
    return record.id.partition("/")[2]
