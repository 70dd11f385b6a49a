"""No request that a server takes stops its event loop for over 20 ms: the largest of each kind, and the hardest."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlscale.serve.workers import INLINE_BYTES
from scripts.attack_serve import made
from tests import loop_watch
from tests.made_servables import PENGUIN, make_servables
from tests.serving import RAW, Reply, Server, serving

_MOST_MS = 20.0
_TRIES, _PAUSE_S = 40, 0.05
"""A busy machine delays a measurement, and not all of so many that are spread over some seconds."""
_SIDE, _CLASSES, _ROWS = 128, 1000, 1024
_PIXELS = 3 * _SIDE * _SIDE
_SHAPE = [3, _SIDE, _SIDE]
_INFER = "/v2/models/made/infer"
_JSON = {"Content-Type": "application/json"}
_OUTPUTS = ("logits", "probabilities", "label")


@dataclass(frozen=True)
class Body:
    """What is sent where."""

    path: str
    content: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Watched:
    """A server, and the file with what held its event loop."""

    server: Server
    notes: Path

    def send(self, body: Body) -> tuple[Reply, float]:
        """Send a request; the answer, and the longest that its loop, or who waited for the lock, was held, in ms."""
        self.notes.write_text("")
        reply = self.server.ask(body.path, body.content, body.headers)
        spent = [float(line.split()[1]) for line in self.notes.read_text().splitlines()]
        most = max(spent, default=0.0)
        if most > _MOST_MS:
            time.sleep(_PAUSE_S)
        return reply, most


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    with watching(folder, made(folder / "made", _SIDE, _CLASSES)) as server:
        yield server


@contextlib.contextmanager
def watching(folder: Path, servable: Path) -> Iterator[Watched]:
    """A server whose event loop is watched."""
    modules, notes = folder / "modules", folder / "notes"
    modules.mkdir()
    shutil.copy(loop_watch.__file__, modules / "uvloop.py")
    with serving(folder, servable, path=modules, environ={"LOOP_WATCH": str(notes)}) as server:
        yield Watched(server, notes)
        assert "bug in mlscale" not in server.printed


def v2_json(rows: int, number: str = "7", outputs: tuple[str, ...] = ()) -> Body:
    """Samples as numbers."""
    data = ",".join([number] * (rows * _PIXELS))
    wanted = json.dumps([{"name": name} for name in outputs])
    tensor = f'{{"name":"input","datatype":"UINT8","shape":{[rows, *_SHAPE]},"data":[{data}]}}'
    return Body(_INFER, f'{{"inputs":[{tensor}],"outputs":{wanted}}}'.encode(), _JSON)


def v2_binary(rows: int, **parameters: Any) -> Body:
    """Samples as bytes; all outputs, each with these parameters."""
    tensor: dict[str, Any] = {"name": "input", "datatype": "UINT8", "shape": [rows, *_SHAPE]}
    tensor["parameters"] = {"binary_data_size": rows * _PIXELS}
    wanted = [{"name": name, "parameters": {} if name == "label" else parameters} for name in _OUTPUTS]
    head = json.dumps({"inputs": [tensor], "outputs": wanted}).encode()
    return Body(_INFER, head + bytes(rows * _PIXELS), {"Inference-Header-Content-Length": str(len(head)), **RAW})


def predict_json(rows: int) -> Body:
    """Samples as nested lists, with an id for each."""
    sample = json.dumps(np.full(_SHAPE, 7).tolist(), separators=(",", ":"))
    ids = json.dumps([f"{row:x}" for row in range(rows)])
    return Body("/predict", f'{{"inputs":[{",".join([sample] * rows)}],"id":{ids}}}'.encode(), _JSON)


def compressed(body: Body) -> Body:
    """The same as gzip."""
    return Body(body.path, gzip.compress(body.content, 1), {**body.headers, "Content-Encoding": "gzip"})


def labels(count: int) -> Body:
    """Labels of events that nobody has seen."""
    return Body("/labels", json.dumps([{"id": f"{n:x}", "label": n % 7} for n in range(count)]).encode(), _JSON)


def image(side: int, kind: str) -> Body:
    """Noise, which is the most work to decode."""
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(noise).save(file := io.BytesIO(), kind)
    return Body("/predict", file.getvalue(), {"Content-Type": f"image/{kind.lower()}"})


TAKEN: dict[str, Callable[[], Body]] = {
    "v2 json, a full batch": lambda: v2_json(32, "255", _OUTPUTS),
    "v2 binary, all rows, bytes out": lambda: v2_binary(_ROWS, binary_data=True),
    "v2 binary, all rows, numbers out": lambda: v2_binary(_ROWS),
    "v2 binary, all classes of all rows": lambda: v2_binary(256, classification=_CLASSES),
    "v2 binary, compressed": lambda: compressed(v2_binary(_ROWS, binary_data=True)),
    "predict, all rows": lambda: Body("/predict", bytes(_ROWS * _PIXELS), RAW),
    "predict json, a full batch, many ids": lambda: predict_json(32),
    "labels in the loop": lambda: labels(2500),
    "labels, as many as may come": lambda: labels(10_000),
    "image in a thread, jpeg": lambda: image(720, "JPEG"),
    "image in a thread, png": lambda: image(720, "PNG"),
    "image in a process": lambda: image(1500, "PNG"),
}


def filled(piece: bytes, begin: bytes = b"[", end: bytes = b"]") -> bytes:
    """The piece, as often as the event loop reads it."""
    count = (INLINE_BYTES - len(begin) - len(end)) // (len(piece) + 1)
    return begin + b",".join([piece] * count) + end


AWKWARD = {
    "open lists": b"[" * INLINE_BYTES,
    "open objects": b'{"a":' * (INLINE_BYTES // 5),
    "empty objects": filled(b"{}", b'{"inputs":[', b"]}"),
    "empty lists": filled(b"[]", b'{"inputs":[', b"]}"),
    "deep lists": filled(b"[" * 15 + b"1" + b"]" * 15, b'{"inputs":[', b"]}"),
    "numbers and a text": filled(b"1.5", b'{"inputs":[', b',"x"]}'),
    "long numbers": filled(b"9" * 4000, b'{"inputs":[', b"]}"),
    "long fractions": filled(b"1." + b"1" * 760 + b"e-300", b'{"inputs":[', b"]}"),
    "one fraction": b'{"inputs":[1.' + b"1" * (INLINE_BYTES - 20) + b"]}",
    "keys": b"{" + b",".join(b'"%x":1' % n for n in range(6000)) + b"}",
    "escapes": b'{"id":"' + b"\\u00e9" * 10_000 + b'","inputs":[]}',
    "tensors": filled(b'{"name":"input"}', b'{"inputs":[', b"]}"),
}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] if kind.startswith("v2 binary") else []) for kind in TAKEN]
)
def test_the_largest_that_is_taken(watched: Watched, kind: str) -> None:
    body, spent = TAKEN[kind](), list[float]()
    for _ in range(_TRIES):
        reply, most = watched.send(body)
        assert reply.status == 200, reply.body[:300]
        spent.append(most)
        if most <= _MOST_MS:
            return
    pytest.fail(f"the event loop was held for at least {min(spent):.0f} ms: {watched.notes.read_text()}")


@pytest.mark.parametrize("kind", AWKWARD)
def test_json_that_is_hard_to_read(watched: Watched, kind: str) -> None:
    for path in ("/predict", _INFER, "/labels", "/v2/repository/models/made/load"):
        spent = list[float]()
        while min(spent, default=_MOST_MS + 1) > _MOST_MS:
            assert len(spent) < _TRIES, f"{path}: {min(spent):.0f} ms: {watched.notes.read_text()}"
            reply, most = watched.send(Body(path, AWKWARD[kind], _JSON))
            assert reply.status < 504
            spent.append(most)


LONG_ROW = json.dumps(PENGUIN, separators=(",", ":")).encode()
RAW_SAMPLES = {
    "rows": filled(LONG_ROW, b'{"inputs":[', b"]}"),
    "bad rows": filled(LONG_ROW.replace(b'"Dream"', b"[]"), b'{"inputs":[', b"]}"),
    "rows without a column": filled(b'{"islan":1,"bill_length":2}', b'{"inputs":[', b"]}"),
    "near keys": b"{" + b",".join(b'"islan%x":1' % n for n in range(4500)) + b"}",
    "a long text": json.dumps("a" * (INLINE_BYTES - 2)).encode(),
    "an escaped text": b'"' + b"\\u00e9" * (INLINE_BYTES // 6 - 2) + b'"',
    "short texts": filled(b'"a"', b'{"inputs":[', b"]}"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["penguins", "reviews", "tales", "masks"])
def test_raw_samples_that_are_hard_to_read(tmp_path: Path, name: str) -> None:
    with watching(tmp_path, make_servables(tmp_path / "made")[name]) as watched:
        bodies = [Body("/predict", content, _JSON) for content in RAW_SAMPLES.values()]
        bodies += [Body("/predict", b"a" * 4000, {"Content-Type": "text/plain"}), image(700, "PNG")]
        for body in bodies:
            spent = list[float]()
            while min(spent, default=_MOST_MS + 1) > _MOST_MS:
                assert len(spent) < _TRIES, f"{body.content[:40]!r}: {min(spent)} ms: {watched.notes.read_text()}"
                reply, most = watched.send(body)
                assert reply.status < 500, reply.body
                spent.append(most)
