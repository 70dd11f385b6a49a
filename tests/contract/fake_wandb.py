"""A W&B server on the loopback interface, as far as runs go; the real client talks to it.

It knows no schema: a root resolver returns more than is asked for, and the client's own selection set picks from it, so
that most changes of queries between releases of W&B do not matter.
"""

from __future__ import annotations

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlparse

from graphql import parse
from graphql.language import ast

ENTITY = "acme"


class FakeWandb:
    """`with FakeWandb() as server:` a client whose environment has `server.env()` sends its runs here.

    Attributes:
        runs: what is known of each run, by its id: cfg, history, summary, displayName, groupName, tags, notes, state.
        files: what was uploaded, by path.
        unknown: root fields that were asked for and that this server lacks.
    """

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.unknown: list[str] = []
        self._lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def env(self) -> dict[str, str]:
        """A key, and this address."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": "local-" + "a" * 40, "WANDB_ERROR_REPORTING": "false"}

    def answer(self, path: str, body: bytes) -> tuple[int, Any]:
        """Status and JSON for a POST."""
        with self._lock:
            if path.endswith("/graphql"):
                return 200, self._graphql(json.loads(body))
            if path.endswith("/file_stream"):
                return 200, self._file_stream(path.split("/")[-2], json.loads(body))
        return 404, {"error": path}

    def _graphql(self, request: dict[str, Any]) -> dict[str, Any]:
        document, variables = parse(request["query"]), dict(request.get("variables") or {})
        fragments = {d.name.value: d for d in document.definitions if isinstance(d, ast.FragmentDefinitionNode)}
        operation = next(d for d in document.definitions if isinstance(d, ast.OperationDefinitionNode))
        data = {}
        for field in operation.selection_set.selections:
            assert isinstance(field, ast.FieldNode)
            arguments = {argument.name.value: _value(argument.value, variables) for argument in field.arguments or ()}
            resolve = getattr(self, f"_on_{field.name.value}", None)
            if resolve is None:
                self.unknown.append(field.name.value)
            found = resolve(arguments.get("input", arguments)) if resolve else None
            key = field.alias.value if field.alias else field.name.value
            data[key] = _project(found, field.selection_set, fragments, variables)
        return {"data": data}

    def _on_viewer(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"id": "u", "entity": ENTITY, "username": "t", "flags": "{}", "teams": {"edges": []}}

    def _on_serverInfo(self, _: dict[str, Any]) -> dict[str, Any]:
        versions = {"max_cli_version": "9.9.9", "min_cli_version": "0.1.0"}
        return {"cliVersionInfo": versions, "features": []}

    def _on_model(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"id": "p", "name": "p", "entity": {"id": "e", "name": ENTITY}, "bucket": self._resumed}

    def _resumed(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        """What a client learns of a run that it goes on with."""
        run = self.runs.get(asked["name"])
        if run is None:
            return None
        lines = len(run["history"])
        tails = {"historyTail": json.dumps([json.dumps(row) for row in run["history"][-1:]]), "eventsTail": "[]"}
        counts = {"historyLineCount": lines, "eventsLineCount": 0, "logLineCount": 0}
        kept = {"summaryMetrics": json.dumps(run["summary"]), "config": json.dumps(run["cfg"]), "wandbConfig": "{}"}
        return {"id": run["id"], "name": asked["name"], "tags": run.get("tags", []), **tails, **counts, **kept}

    def _on_upsertBucket(self, asked: dict[str, Any]) -> dict[str, Any]:
        run = next((run for run in self.runs.values() if run["id"] == asked.get("id")), None)
        new = run is None and asked["name"] not in self.runs
        if run is None:
            fresh = {"id": f"run-{len(self.runs)}", "history": [], "summary": {}, "cfg": {}, "state": "running"}
            run = self.runs.setdefault(asked["name"], {**fresh, "name": asked["name"], "console": []})
        run |= {key: value for key, value in asked.items() if value and key not in ("id", "name", "config")}
        if asked.get("config"):
            run["cfg"] = json.loads(asked["config"])
        entity = {"id": "e", "name": asked.get("entityName") or ENTITY}
        project = {"id": "p", "name": run.get("modelName"), "entity": entity}
        shown = {"displayName": run.get("displayName"), "project": project, "historyLineCount": len(run["history"])}
        return {"bucket": {"id": run["id"], "name": run["name"], **shown}, "inserted": new}

    def _on_createRunFiles(self, asked: dict[str, Any]) -> dict[str, Any]:
        places = [{"name": name, "uploadUrl": f"{self.url}/files/{asked['runName']}/{name}"} for name in asked["files"]]
        return {"runID": self.runs[asked["runName"]]["id"], "uploadHeaders": [], "files": places}

    def _file_stream(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        run = self.runs[name]
        for file, chunk in (request.get("files") or {}).items():
            if file == "wandb-history.jsonl":
                run["history"][chunk["offset"] :] = [json.loads(line) for line in chunk["content"]]
            elif file == "wandb-summary.json":
                run["summary"].update(json.loads(chunk["content"][-1]))
            elif file != "wandb-events.jsonl":
                run["console"] += chunk["content"]
        if request.get("complete"):
            run["state"] = "failed" if request.get("exitcode") else "finished"
        return {"exitcode": None, "limits": {}}


def _value(node: ast.ValueNode, variables: dict[str, Any]) -> Any:
    if isinstance(node, ast.VariableNode):
        return variables.get(node.name.value)
    if isinstance(node, ast.ObjectValueNode):
        return {field.name.value: _value(field.value, variables) for field in node.fields}
    if isinstance(node, ast.ListValueNode):
        return [_value(item, variables) for item in node.values]
    if isinstance(node, ast.NullValueNode):
        return None
    return getattr(node, "value", None)


def _project(
    found: Any, selected: ast.SelectionSetNode | None, fragments: dict[str, Any], known: dict[str, Any]
) -> Any:
    """What `selected` picks from `found`; a function there is asked with the arguments of its field."""
    if selected is None or found is None:
        return found
    if isinstance(found, list):
        return [_project(item, selected, fragments, known) for item in found]
    picked = {}
    for node in selected.selections:
        if not _included(node, known):
            continue
        if isinstance(node, ast.FieldNode):
            key, value = node.alias.value if node.alias else node.name.value, found.get(node.name.value)
            if callable(value):
                value = value({item.name.value: _value(item.value, known) for item in node.arguments or ()})
            picked[key] = _project(value, node.selection_set, fragments, known)
        else:
            inner = fragments[node.name.value] if isinstance(node, ast.FragmentSpreadNode) else node
            assert isinstance(inner, ast.FragmentDefinitionNode | ast.InlineFragmentNode)
            picked |= _project(found, inner.selection_set, fragments, known)
    return picked


def _included(node: ast.SelectionNode, known: dict[str, Any]) -> bool:
    """Whether `@include(if: …)` allows it."""
    asked = [each for each in node.directives or () if each.name.value == "include"]
    return all(_value(argument.value, known) for each in asked for argument in each.arguments or ())


def _handler(server: FakeWandb) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

        def do_POST(self) -> None:
            status, found = server.answer(urlparse(self.path).path, self._body())
            self._send(status, json.dumps(found).encode())

        def do_PUT(self) -> None:
            server.files[unquote(urlparse(self.path).path)] = self._body()
            self._send(200, b"")

        def do_GET(self) -> None:
            found = server.files.get(unquote(urlparse(self.path).path))
            self._send(404 if found is None else 200, found or b"")

        def _body(self) -> bytes:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            return gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
