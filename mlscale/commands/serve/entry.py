"""Serve a model over HTTP until a signal ends it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mlscale.assembly.build import build
from mlscale.errors import MLScaleError, raise_all
from mlscale.export.required_extras import require_extra
from mlscale.report import Result, format_duration
from mlscale.report.text import format_count
from mlscale.secrets.mask import Masker

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from mlscale.serve.server import ServerSettings, ServerSummary


def run(cfg: DictConfig) -> Result:
    """Load the servable, answer requests, follow its alias; on SIGTERM or SIGINT answer the open requests, and end.

    Raises:
        MLScaleError: the servable is not found or corrupt, a setting is out of range, or the port is in use (exit
            code 5).
    """
    # uvloop does not exist for Windows.
    loop = () if sys.platform == "win32" else ("uvloop",)
    require_extra("serve", "httptools", "onnxruntime", "prometheus_client", "pyarrow", *loop)
    # Before the model is loaded, and all at once.
    raise_all(_list_problems(cfg))
    from mlscale.export.engines.runtime import build_runtime
    from mlscale.serve.hot_swap import ModelSource
    from mlscale.serve.server import serve_model

    masker = Masker.create_for_run(cfg)

    def print_masked(line: str) -> None:
        print(masker.mask_text(line), file=sys.stderr, flush=True)

    registry = build(cfg.registry, "registry")
    source = ModelSource(str(cfg.ref), registry, Path(cfg.runs_dir), build_runtime(cfg), cfg.max_batch)
    return _build_serve_result(serve_model(source, _read_serve_settings(cfg), print_masked))


def _read_serve_settings(cfg: DictConfig) -> ServerSettings:
    from mlscale.events.store import EventStore
    from mlscale.serve.http.access import Access, encode_key
    from mlscale.serve.http.exchange import ConnectionLimits
    from mlscale.serve.http.sockets import load_tls_context
    from mlscale.serve.server import ServerSettings

    # Behind a proxy all connections come from the proxy's address.
    per_address = None if cfg.behind_proxy else cfg.max_connections_per_address
    return ServerSettings(
        host=str(cfg.host),
        port=int(cfg.port),
        max_queue=int(cfg.max_queue),
        limits=ConnectionLimits(
            body_bytes=int(cfg.max_body_bytes),
            memory_bytes=int(cfg.max_memory_bytes),
            connections=int(cfg.max_connections),
            per_address=per_address,
            # The head is a part of the request, so its limit can't be longer.
            head_s=min(float(cfg.head_timeout_s), float(cfg.timeout_s)),
            receive_s=float(cfg.timeout_s),
            idle_s=float(cfg.idle_s),
        ),
        drain_s=float(cfg.drain_s),
        unready_s=None if cfg.unready_s is None else float(cfg.unready_s),
        follow=bool(cfg.follow),
        poll_s=float(cfg.poll_s),
        control=cfg.control,
        accept_change=bool(cfg.accept_change),
        ready_file=Path(cfg.ready_file) if cfg.ready_file else None,
        events=EventStore(cfg.events) if cfg.events else None,
        sample_share=float(cfg.sample_share),
        flush_s=float(cfg.flush_s),
        events_bytes=int(cfg.max_events_bytes),
        labels_bytes=int(cfg.max_labels_bytes),
        labels_per_hour=cfg.max_labels_per_hour,
        access=Access(encode_key(cfg.api_key), frozenset(str(host).lower() for host in cfg.hosts)),
        tls=load_tls_context(Path(cfg.tls_cert), Path(cfg.tls_key)) if cfg.tls_cert else None,
        behind_proxy=bool(cfg.behind_proxy),
        access_log=bool(cfg.access_log),
    )


def _list_problems(cfg: DictConfig) -> list[MLScaleError]:
    problems = []
    if cfg.max_queue < cfg.max_batch:
        problems.append(
            MLScaleError(
                f"max_queue is {cfg.max_queue}, less than max_batch",
                where="max_queue",
                why=f"a batch of {cfg.max_batch} could never fill",
                fix=f"max_queue={cfg.max_batch}",
            )
        )
    if cfg.max_memory_bytes < cfg.max_body_bytes:
        problems.append(
            MLScaleError(
                f"max_memory_bytes is {cfg.max_memory_bytes}, less than max_body_bytes",
                where="max_memory_bytes",
                why="a request of that size could never be received",
                fix=f"max_memory_bytes={4 * cfg.max_body_bytes}",
            )
        )
    # Exactly one of them is set.
    if (cfg.tls_cert is None) is not (cfg.tls_key is None):
        absent = "tls_key" if cfg.tls_key is None else "tls_cert"
        problems.append(
            MLScaleError(
                f"{absent} is not set",
                where=absent,
                why="TLS takes a certificate and its key",
                fix=f"{absent}=<file>.pem",
            )
        )
    return problems


def _build_serve_result(served: ServerSummary) -> Result:
    metrics = served.metrics
    samples, latency = sum(metrics.predictions.values()), metrics.latency
    failed, rejected = metrics.count_outcome("failed"), metrics.count_outcome("rejected")
    counts = [format_count(metrics.answered, "request"), format_count(samples, "sample"), f"{failed:,} failed"]
    for count, what in (
        (rejected, "rejected"),
        (metrics.failed_requests, "answered with an error of the server (5xx)"),
        (served.dropped, "events lost"),
    ):
        counts += [f"{count:,} {what}"] if count else []
    sentence = f"{_name_versions(served)} served for {format_duration(served.seconds)}: {', '.join(counts)}"
    # A server without requests has no quantiles.
    within = {"p50": 0.5, "p99": 0.99} if latency.count else {}
    return Result(
        command="serve",
        ok=True,
        sentence=sentence,
        metrics={
            "requests": metrics.answered,
            "samples": samples,
            "failed_samples": failed,
            "rejected_samples": rejected,
            "failed_requests": metrics.failed_requests,
            **{f"{name}_latency_at_most_ms": 1000 * latency.compute_quantile(share) for name, share in within.items()},
            # 1 instead of 0: without a batch the mean is 0, not an error.
            "rows_per_batch": metrics.batches.total / max(1, metrics.batches.count),
            "swaps": metrics.swaps["ok"],
            "failed_swaps": metrics.swaps["failed"],
            "events": served.events,
            "dropped_events": served.dropped,
            "time_s": served.seconds,
        },
        details={"runtime": served.runtime},
    )


def _name_versions(served: ServerSummary) -> str:
    """Return the versions that have answered, in their order; of several the samples of each."""
    # The last one may have had no request yet.
    samples = {**served.metrics.predictions, served.version: served.metrics.predictions[served.version]}
    if len(samples) == 1:
        return served.version
    return ", ".join(f"{version} ({format_count(count, 'sample')})" for version, count in samples.items())
