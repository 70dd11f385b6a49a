"""The routes of the server: find the handler of each request, and answer everything but inference."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache, partial
from importlib.metadata import version as package_version
from typing import NamedTuple
from urllib.parse import unquote

from mlscale.errors import MLScaleError
from mlscale.serve.http.access import Access
from mlscale.serve.http.exchange import HTML, Exchange, Head
from mlscale.serve.http.request_error import Refused
from mlscale.serve.http.responses import ResponseSender, check_method
from mlscale.serve.inference import Inference, InferenceProtocol
from mlscale.serve.prometheus import KIND
from mlscale.serve.protocol import home_page as page
from mlscale.serve.protocol import json_numbers, openapi, v2
from mlscale.serve.protocol import labels_route as labels
from mlscale.serve.protocol import predict_route as predict
from mlscale.serve.protocol import v2_metadata as v2_model
from mlscale.serve.protocol import v2_tensors as tensors
from mlscale.serve.protocol.labels_route import LabelSink
from mlscale.serve.workers import INLINE_BYTES, Workers

Load = Callable[[str | None, bool, Callable[[MLScaleError | None], None]], None]
_V2 = InferenceProtocol(
    "infer",
    v2.compute_body_limit,
    v2.count_text_bytes,
    v2.parse_infer_request,
    tensors.count_numbers,
    lambda outputs: False,
    tensors.select_outputs,
    tensors.encode_infer_response,
)
_PREDICT = InferenceProtocol(
    "predict",
    predict.compute_body_limit,
    predict.count_text_bytes,
    predict.parse_predict_request,
    predict.count_numbers,
    predict.has_files,
    predict.select_outputs,
    predict.encode_predict_response,
)
_READ = (b"GET", b"HEAD")
_SMALL_BYTES = 64 << 10
"""The limit of a body on routes that need no body, or a short one."""
_CACHED_BYTES = 256


class RequestTarget(NamedTuple):
    """A parsed request target.

    Attributes:
        parts: segments of its path, percent-decoded.
        kind: predict, infer, labels, control, health, metrics, or other.
    """

    parts: tuple[str, ...]
    kind: str


class App:
    """Routes requests to their handlers; to be used in the thread of the event loop only.

    Args:
        inference: answers inference requests.
        answers: sends and counts responses.
        workers: run slow reads outside the event loop.
        access: checks keys, hosts and origins.
        sink: where labels are written; None: labels are refused.
        quota: of the labels of one address.
        load: loads a version and calls back; None where clients may not load versions.

    Attributes:
        ready: False while it drains.
        stale: the reason why the version that should be served is not; '' where it is.
    """

    def __init__(
        self,
        inference: Inference,
        answers: ResponseSender,
        workers: Workers,
        access: Access,
        sink: LabelSink | None,
        quota: labels.LabelQuota,
        load: Load | None,
    ) -> None:
        self.ready, self.stale = True, ""
        self._inference, self._answers, self._workers, self._access = inference, answers, workers, access
        self._sink, self._quota, self._load = sink, quota, load

    def screen_request(self, head: Head, health_only: bool) -> int:
        """Return the largest number of bytes that the body of a request may have; called before it is read.

        Raises:
            Refused: the request is not allowed, or not at this time.
        """
        kind = _parse_target(head.target).kind
        # Load balancers and orchestrators send health checks without a key, and also while all connections are in use.
        if kind == "health":
            return _SMALL_BYTES
        if health_only and kind != "metrics":
            raise Refused("too many connections", 503, b"Retry-After: 1\r\n")
        self._access.check_request(head.method, head.headers)
        if head.method != b"POST":
            return _SMALL_BYTES
        # A browser sends form types and text/plain across sites without a preflight request, JSON only after one.
        if kind in ("labels", "control"):
            _require_json(head)
        match kind:
            case "predict":
                limit = self._inference.get_body_limit(_PREDICT, head.headers)
                self._inference.refuse_large_body(head.headers, limit)
                return limit
            case "infer":
                return self._inference.get_body_limit(_V2, head.headers)
            case "labels":
                return labels.MAX_BYTES
        return _SMALL_BYTES

    def handle_exchange(self, exchange: Exchange) -> None:
        """Answer a request, before or after this call returns."""
        try:
            target = _parse_target(exchange.target)
            if target.kind == "predict":
                self._inference.start_inference(exchange, _PREDICT)
            else:
                self._route_request(exchange, target.parts)
        except Refused as refused:
            self._answers.send_refusal(exchange, refused)
        # A bug in one handler must cost one request, not the server.
        except Exception as error:
            self._answers.send_internal_error(exchange, error)

    def _route_request(self, exchange: Exchange, parts: tuple[str, ...]) -> None:
        model = self._inference.model
        match parts:
            case ():
                exchange.route = "page"
                check_method(exchange, *_READ)
                headers = page.build_security_headers()
                content = page.render_home_page(model, needs_key=bool(self._access.key))
                self._answers.send_body(exchange, content, HTML, headers)
            case ["openapi.json"]:
                exchange.route = "openapi"
                check_method(exchange, *_READ)
                document = openapi.build_openapi_document(
                    model, needs_key=bool(self._access.key), takes_labels=self._sink is not None
                )
                self._answers.send_json(exchange, document)
            case ["metrics"]:
                exchange.route = "metrics"
                check_method(exchange, *_READ)
                self._answers.send_body(exchange, self._format_metrics(), KIND)
            case ["labels"]:
                exchange.route = "labels"
                check_method(exchange, b"POST")
                self._store_labels(exchange)
            case ["v2"]:
                exchange.route = "v2"
                check_method(exchange, *_READ)
                about = {"name": "mlscale", "version": package_version("mlscale"), "extensions": v2_model.EXTENSIONS}
                self._answers.send_json(exchange, about)
            case ["v2", "health", ("live" | "ready") as probe]:
                exchange.route = "health"
                check_method(exchange, *_READ)
                self._answers.send_body(exchange, status=200 if self.ready or probe == "live" else 400)
            case ["v2", "repository", *rest]:
                exchange.route = "repository"
                check_method(exchange, b"POST")
                self._route_repository(exchange, rest)
            case ["v2", "models", name, "versions", version, *rest]:
                exchange.route = "v2"
                self._route_model(exchange, name, version, rest)
            case ["v2", "models", name, *rest]:
                exchange.route = "v2"
                self._route_model(exchange, name, None, rest)
            case _:
                raise Refused("Not Found", 404)

    def _route_repository(self, exchange: Exchange, parts: list[str]) -> None:
        model = self._inference.model
        match parts:
            case ["index"]:
                self._answers.send_json(exchange, [{"name": model.name, "version": model.version, "state": "READY"}])
            case ["models", name, "load"] if name == model.name:
                self._swap_version(exchange, name)
            case ["models", name, "load"]:
                raise Refused(f"failed to load '{name[:200]}', no such model: this server has '{model.name}'")
            case ["models", _, "unload"]:
                raise Refused("explicit model unload is not allowed: this server has one model")
            case _:
                raise Refused("Not Found", 404)

    def _route_model(self, exchange: Exchange, name: str, version: str | None, rest: list[str]) -> None:
        # Triton answers `ready` of an unknown model with 400, most other routes with 404.
        model, unknown = self._inference.model, 400 if rest == ["ready"] else 404
        if name != model.name:
            raise Refused(f"Request for unknown model: '{name[:200]}' is not found", unknown)
        # `resnet:v7` may be requested as v7 and as 7: Triton's versions are numbers.
        known = (model.version, model.version.partition(":")[2], model.version.partition(":v")[2])
        if version is not None and (version not in known or not version):
            raise Refused(f"Request for unknown model: '{name}' version {version[:200]} is not found", unknown)
        match rest:
            case []:
                check_method(exchange, *_READ)
                self._answers.send_json(exchange, v2_model.build_model_metadata(model))
            case ["ready"]:
                check_method(exchange, *_READ)
                self._answers.send_body(exchange, status=200 if self.ready else 400)
            case ["infer"]:
                self._inference.start_inference(exchange, _V2)
            case _:
                raise Refused("Not Found", 404)

    def _swap_version(self, exchange: Exchange, name: str) -> None:
        if self._load is None:
            raise Refused("explicit model load is not allowed on this server: control=true allows it", 403)
        load = self._load

        # Called in the event loop when the load has ended, long after this function has returned.
        def send_load_result(error: MLScaleError | None) -> None:
            if error is None:
                self._answers.send_body(exchange)
            else:
                self._answers.send_refusal(
                    exchange, Refused(f"failed to load '{name}', {json_numbers.format_client_error(error)}")
                )

        def begin_load() -> None:
            load(*_load_parameters(exchange.body), send_load_result)

        self._workers.unpack_body(exchange, _SMALL_BYTES, begin_load, partial(self._answers.send_refusal, exchange))

    def _store_labels(self, exchange: Exchange) -> None:
        if self._sink is None:
            raise Refused("this server keeps no labels, since it records no events", 404)
        sink, model, refuse = self._sink, self._inference.model, partial(self._answers.send_refusal, exchange)

        def queue_labels(new_labels: labels.Labels) -> None:
            self._quota.count_labels(exchange.peer, len(new_labels.ids))
            done = partial(self._send_labels_result, exchange, len(new_labels.ids))
            sink.submit_labels(model.name, new_labels, exchange.peer, done)

        def read_body() -> None:
            call = (labels.parse_labels, model.servable.task_type, model.servable.names, exchange.body)
            if len(exchange.body) > INLINE_BYTES:
                self._workers.run_in_process(exchange, call, queue_labels, refuse, memory_bytes=labels.MEMORY_BYTES)
            else:
                queue_labels(labels.parse_labels(*call[1:]))

        self._workers.unpack_body(exchange, labels.MAX_BYTES, read_body, refuse)

    def _send_labels_result(self, exchange: Exchange, count: int, error: MLScaleError | None) -> None:
        if error is None:
            self._answers.send_json(exchange, {"accepted": count})
            return
        self._answers.log(f"labels were not kept: {json_numbers.format_client_error(error)}")
        refused = Refused("the labels could not be written; send them again", 503, b"Retry-After: 10\r\n")
        self._answers.send_refusal(exchange, refused)

    def _format_metrics(self) -> bytes:
        inference, events, model = self._inference, self._inference.events, self._inference.model
        sink = self._sink
        others = (
            ("mlscale_queue_rows", "Rows that wait: a sample each, of a document a window.", inference.batcher.rows),
            ("mlscale_ready", "Whether it takes requests.", self.ready),
            ("mlscale_stale", "Whether the version to serve could not be loaded.", bool(self.stale)),
            ("mlscale_events_written_total", "Events on the disk.", events.written if events else 0),
            ("mlscale_events_dropped_total", "Events that are lost.", events.dropped if events else 0),
            ("mlscale_labels_written_total", "Labels on the disk.", sink.written if sink else 0),
            ("mlscale_labels_unknown", "Labels of unknown ids.", sink.unknown if sink else 0),
        )
        return self._answers.metrics.render_metrics(
            model=model.name, version=model.version, runtime=model.runtime, others=others
        )


def _load_parameters(body: bytes | bytearray) -> tuple[str | None, bool]:
    """Return version and accept_change of `{"parameters": {"version": "resnet:v8", "accept_change": true}}`.

    Raises:
        Refused: it is something else.
    """
    if not body.strip():
        return None, False
    try:
        parameters = json.loads(body).get("parameters") or {}
        version, accept_change = parameters.get("version"), parameters.get("accept_change", False)
    except (ValueError, AttributeError, RecursionError) as error:
        raise Refused("failed to parse the request JSON buffer: an object, parameters.version in it", 500) from error
    if version is not None and not isinstance(version, str):
        raise Refused("parameters.version is a text, such as resnet:v8")
    if not isinstance(accept_change, bool):
        raise Refused("parameters.accept_change is true or false")
    return version, accept_change


def _require_json(head: Head) -> None:
    kind = head.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        shown = kind.decode("latin-1")[:200] or "no type"
        raise Refused(f"this takes application/json, not {shown}: send 'Content-Type: application/json'", 415)


@lru_cache(512)
def _parse_cached_target(target: bytes) -> RequestTarget:
    path = target.partition(b"?")[0].decode("latin-1").strip("/")
    parts = tuple(unquote(part) for part in path.split("/")) if path else ()
    match parts:
        case ["predict" | "labels" | "metrics" as kind]:
            return RequestTarget(parts, kind)
        case (
            ["v2", "health", "live" | "ready"]
            | ["v2", "models", _, "ready"]
            | ["v2", "models", _, "versions", _, "ready"]
        ):
            return RequestTarget(parts, "health")
        case ["v2", "models", _, "infer"] | ["v2", "models", _, "versions", _, "infer"]:
            return RequestTarget(parts, "infer")
        case ["v2", "repository", "models", *_]:
            return RequestTarget(parts, "control")
    return RequestTarget(parts, "other")


def _parse_target(target: bytes) -> RequestTarget:
    """Return the parsed target: one parser for access checks and routing, so that both always agree."""
    # Long targets are parsed without the cache: clients choose them, and could fill it with megabytes of text.
    return _parse_cached_target(target) if len(target) <= _CACHED_BYTES else _parse_cached_target.__wrapped__(target)
