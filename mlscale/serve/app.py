"""What a server answers besides inference, and where each request goes."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version as package_version
from urllib.parse import unquote

from mlscale.errors import MLScaleError
from mlscale.serve import labels, page, predict, tensors, v2
from mlscale.serve.answers import Answers, only
from mlscale.serve.http import HTML, Exchange, body_of
from mlscale.serve.inference import Inference, Protocol
from mlscale.serve.labels import LabelSink
from mlscale.serve.metrics import KIND
from mlscale.serve.refused import Refused

Load = Callable[[str | None, bool, Callable[[MLScaleError | None], None]], None]
_V2 = Protocol("infer", v2.asked, tensors.answer)
_PREDICT = Protocol("predict", predict.asked, predict.answer)
_READ = (b"GET", b"HEAD")


class App:
    """Answers requests; for the thread of the event loop.

    Args:
        inference: answers those that ask the model.
        answers: how clients are answered.
        sink: where labels go; None: nowhere.
        load: loads a version and calls back; None where clients may not ask for it.
        body_bytes: of a request, unpacked, at most.

    Attributes:
        ready: False while it drains.
        stale: why the version that should be served is not; '' where it is.
    """

    def __init__(
        self, inference: Inference, answers: Answers, sink: LabelSink | None, load: Load | None, *, body_bytes: int
    ) -> None:
        self.ready, self.stale = True, ""
        self._inference, self._answers, self._sink, self._load = inference, answers, sink, load
        self._body_bytes = body_bytes
        self._protocols = {b"/predict": _PREDICT, f"/v2/models/{inference.model.name}/infer".encode(): _V2}

    def handle(self, exchange: Exchange) -> None:
        """Answer a request, now or later."""
        try:
            path = exchange.target.partition(b"?")[0]
            protocol = self._protocols.get(path)
            if protocol is not None:
                self._inference.infer(exchange, protocol)
            else:
                self._route(exchange, [unquote(part) for part in path.decode("latin-1").strip("/").split("/")])
        except Refused as refused:
            self._answers.refuse(exchange, refused)
        except Exception as error:
            self._answers.broken(exchange, error)

    def _route(self, exchange: Exchange, parts: list[str]) -> None:
        model = self._inference.model
        match parts:
            case [""]:
                exchange.route = "page"
                only(exchange, *_READ)
                self._answers.plain(exchange, page.html(model).encode(), HTML)
            case ["metrics"]:
                exchange.route = "metrics"
                only(exchange, *_READ)
                self._answers.plain(exchange, self._metrics(), KIND)
            case ["labels"]:
                exchange.route = "labels"
                only(exchange, b"POST")
                self._labels(exchange)
            case ["v2"]:
                exchange.route = "v2"
                only(exchange, *_READ)
                about = {"name": "mlscale", "version": package_version("mlscale"), "extensions": v2.EXTENSIONS}
                self._answers.json(exchange, about)
            case ["v2", "health", ("live" | "ready") as asked]:
                exchange.route = "health"
                only(exchange, *_READ)
                self._answers.plain(exchange, status=200 if self.ready or asked == "live" else 400)
            case ["v2", "repository", *rest]:
                exchange.route = "repository"
                only(exchange, b"POST")
                self._repository(exchange, rest)
            case ["v2", "models", name, "versions", version, *rest]:
                exchange.route = "v2"
                self._of_model(exchange, name, version, rest)
            case ["v2", "models", name, *rest]:
                exchange.route = "v2"
                self._of_model(exchange, name, None, rest)
            case _:
                raise Refused("Not Found", 404)

    def _repository(self, exchange: Exchange, parts: list[str]) -> None:
        model = self._inference.model
        match parts:
            case ["index"]:
                self._answers.json(exchange, [{"name": model.name, "version": model.version, "state": "READY"}])
            case ["models", name, "load"] if name == model.name:
                self._swap(exchange, name)
            case ["models", name, "load"]:
                raise Refused(f"failed to load '{name[:200]}', no such model: this server has '{model.name}'")
            case ["models", _, "unload"]:
                raise Refused("explicit model unload is not allowed: this server has one model")
            case _:
                raise Refused("Not Found", 404)

    def _of_model(self, exchange: Exchange, name: str, version: str | None, rest: list[str]) -> None:
        model, unknown = self._inference.model, 400 if rest == ["ready"] else 404
        if name != model.name:
            raise Refused(f"Request for unknown model: '{name[:200]}' is not found", unknown)
        # `resnet:v7` may be asked for as v7 and as 7: Triton's versions are numbers.
        known = (model.version, model.version.partition(":")[2], model.version.partition(":v")[2])
        if version is not None and (version not in known or not version):
            raise Refused(f"Request for unknown model: '{name}' version {version[:200]} is not found", unknown)
        match rest:
            case []:
                only(exchange, *_READ)
                self._answers.json(exchange, v2.metadata(model))
            case ["ready"]:
                only(exchange, *_READ)
                self._answers.plain(exchange, status=200 if self.ready else 400)
            case ["infer"]:
                self._inference.infer(exchange, _V2)
            case _:
                raise Refused("Not Found", 404)

    def _swap(self, exchange: Exchange, name: str) -> None:
        if self._load is None:
            raise Refused("explicit model load is not allowed on this server: control=true allows it", 403)
        wanted, accept_change = _load_parameters(body_of(exchange, self._body_bytes))

        def done(error: MLScaleError | None) -> None:
            if error is None:
                self._answers.plain(exchange)
            else:
                self._answers.refuse(exchange, Refused(f"failed to load '{name}', {v2.told(error)}"))

        self._load(wanted, accept_change, done)

    def _labels(self, exchange: Exchange) -> None:
        if self._sink is None:
            raise Refused("this server keeps no labels: it was started with events=null", 404)
        model = self._inference.model
        given = labels.read(model, body_of(exchange, self._body_bytes))

        def done(error: MLScaleError | None) -> None:
            if error is None:
                self._answers.json(exchange, {"accepted": len(given.ids)})
                return
            self._answers.say(f"labels were not kept: {v2.told(error)}")
            refused = Refused("the labels could not be written; send them again", 503, b"Retry-After: 10\r\n")
            self._answers.refuse(exchange, refused)

        self._sink.submit(model.name, given, done)

    def _metrics(self) -> bytes:
        inference, events, model = self._inference, self._inference.events, self._inference.model
        others = [
            ("mlscale_queue_rows", "gauge", "Samples that wait.", inference.batcher.rows),
            ("mlscale_ready", "gauge", "Whether it takes requests.", self.ready),
            ("mlscale_stale", "gauge", "Whether the version to serve could not be loaded.", bool(self.stale)),
            ("mlscale_events_written_total", "counter", "Events on the disk.", events.written if events else 0),
            ("mlscale_events_dropped_total", "counter", "Events that are lost.", events.dropped if events else 0),
            ("mlscale_labels_written_total", "counter", "Labels on the disk.", self._sink.written if self._sink else 0),
        ]
        return self._answers.metrics.text(model=model.name, version=model.version, others=others)


def _load_parameters(body: bytes) -> tuple[str | None, bool]:
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
