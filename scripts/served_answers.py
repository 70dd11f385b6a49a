"""Compares the answers of `mlscale serve` with those of `predict` of the same servable, bitwise.

    python -m scripts.served_answers SERVABLE [SERVABLE ...]

Each servable is served, and sent raw samples one at a time: random ones, and awkward ones (rows with missing values,
numbers as texts and unseen categories; texts with emoji, NUL and bytes that are not UTF-8; images of five formats and
odd sizes). The numbers of the JSON answer must be those of `Servable.predict_samples`, and what the one refuses the
other must refuse.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mlscale.export.servable import Servable, load
from mlscale.loadtest.build_requests import build_requests, choose_protocol
from mlscale.loadtest.load_samples import RequestSamples
from mlscale.loadtest.random_samples import generate_samples
from mlscale.loadtest.server_metadata import Credentials, request_model_metadata, send_once
from mlscale.loadtest.server_model import ServerModel

_RANDOM = 10
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
_TEXTS = ("Größe 🐧 and 👩‍👩‍👧".encode(), b"zero\0in it", b"\xff\xfe not UTF-8 \x80", b" ", b"long " * 2000)


class ServerError(Exception):
    """A server that does not answer; the message is the last of its log."""


@contextmanager
def start_server(folder: Path, servable: str) -> Iterator[str]:
    """Serve a servable on a free port, and yield the URL; the server has ended after the block.

    Raises:
        ServerError: it does not answer within a minute.
    """
    ready, log = folder / "ready.json", folder / "serve.log"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "mlscale", "serve", servable, "port=0", "events=null", f"ready_file={ready}"]
    with log.open("wb") as output:
        server = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 60
        while not ready.exists():
            if server.poll() is not None or time.monotonic() > deadline:
                raise ServerError(" | ".join(log.read_text(errors="replace").splitlines()[-4:]))
            time.sleep(0.05)
        yield json.loads(ready.read_text())["url"]
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


def draw_samples(model: ServerModel) -> RequestSamples:
    """Return random and awkward samples in their raw form; of a server that states none, tensors."""
    samples = generate_samples(model, "raw")
    if not samples.raw:
        return samples
    awkward: dict[str, Any] = {"row": _vary_rows, "text": lambda raw: list(_TEXTS), "image": lambda raw: _draw_images()}
    return replace(samples, raw=[*samples.raw[:_RANDOM], *awkward[samples.form](samples.raw)])


def compare_answers(url: str, servable: Servable) -> tuple[int, int]:
    """Return how many answers of a server are bitwise those of the servable, and of how many samples."""
    model = request_model_metadata(url)
    samples = draw_samples(model)
    requests = build_requests(choose_protocol("auto", samples, model, 1), samples, model, 1)
    raw = samples.raw or list(next(iter(samples.tensors.values())))
    if not samples.raw:
        raw = raw[:_RANDOM]
    equal = 0
    for sample, request in zip(raw, requests, strict=False):
        answer = send_once(url, request, Credentials(), 30)
        predictions = servable.predict_samples([sample])
        if answer is None or predictions.bad:
            equal += answer is not None and 400 <= answer[0] < 500
            continue
        if answer[0] != 200:
            continue
        (served,) = json.loads(answer[2])["predictions"]
        served.pop("id")
        (expected,) = servable.task_type.build_answers(predictions.columns, servable.names)
        # As JSON: it writes the shortest text that reads as the same number.
        equal += served == json.loads(json.dumps(expected))
    return equal, len(raw)


def _vary_rows(rows: Any) -> list[dict[str, Any]]:
    """Return rows with missing values, numbers as texts, and categories that training does not have."""
    changes: list[Any] = [lambda value: None, str, lambda value: value if isinstance(value, float) else "unseen 🐧"]
    return [
        *({name: change(value) for name, value in rows[0].items()} for change in changes),
        *({**rows[1], name: None} for name in list(rows[1])[:3]),
    ]


def _draw_images() -> list[bytes]:
    files = []
    for number, kind in enumerate(_FORMATS):
        height, width = 9 + 37 * number, 161 - 29 * number
        y, x = np.mgrid[:height, :width]
        # Grey in three channels: models of grey images refuse colours.
        pixels = np.repeat(((3 * x + 5 * y) % 256).astype(np.uint8)[..., None], 3, -1)
        Image.fromarray(pixels if kind == "JPEG" else pixels[..., 0]).save(file := io.BytesIO(), kind)
        files.append(file.getvalue())
    return files


def main() -> int:
    """Return 0 if all answers were equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servables", nargs="+", type=Path, help="folders")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    failed = False
    for folder in arguments.servables:
        servable = load(folder)
        with tempfile.TemporaryDirectory() as scratch, start_server(Path(scratch), str(folder.absolute())) as url:
            equal, count = compare_answers(url, servable)
        print(f"{folder}: format {servable.format}, {servable.encoder.kind}, {equal} of {count} bitwise", flush=True)
        failed |= equal < count
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
