"""`mlscale retrain REF watch=true`: a served model whose inputs and labels shift, with nobody at the keyboard."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from tests.e2e.retrain_place import RetrainPlace
from tests.forked import Command
from tests.serving import RAW, ROOT, Server, serving

_SECONDS = 500.0


def send_labelled(server: Server, images: NDArray[np.uint8], labels: NDArray[np.str_]) -> None:
    """Send images, and what they show."""
    answered = server.ask("/predict", images.tobytes(), RAW).json["predictions"]
    pairs = [{"id": one["id"], "label": str(label)} for one, label in zip(answered, labels, strict=True)]
    assert server.ask("/labels", pairs).status == 200


def wait_until(done: Callable[[], Any], process: Command, log: Path) -> None:
    end = time.monotonic() + _SECONDS
    while not done():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.1)


def count_looks(log: Path, text: str) -> int:
    return sum(text in line and "m:v" in line for line in log.read_text().splitlines())


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_degradation_starts_a_cycle_and_drift_alone_starts_none(tmp_path: Path, bundled: Path) -> None:
    place = RetrainPlace(tmp_path)
    source = ("data=digits", f"data.root={bundled}")
    place.train_champion("model=mlp", *source, "optimizer.lr=0.1", "trainer.max_epochs=15")
    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = digits.target.astype(str)
    log = tmp_path / "watch.log"
    served = [f"events={tmp_path}/events", "sample_share=1", "flush_s=0.2", f"registry.root={tmp_path}/registry"]
    look = ["every_s=0.5", "degradation.min_events=100", "degradation.min_labels=100", "passes=10"]
    look += ["gate.min_kappa=null"]  # digits on their sides are recognised by chance
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with serving(tmp_path, "m@champion", *served, f"runs_dir={tmp_path}/runs") as server, log.open("w") as stream:
        watch = Command(
            "retrain", *place.words, "watch=true", *look, cwd=tmp_path, env=environment, stdout=stream, stderr=stream
        )
        try:
            # Darker images, which are recognised all the same.
            send_labelled(server, (images[:300] * 0.8).astype(np.uint8), labels[:300])
            wait_until(lambda: count_looks(log, "drifted") >= 3, watch, log)
            assert not (tmp_path / "registry/retrain/m.jsonl").exists()
            assert place.registry.resolve_version("m@champion").ref == "m:v1"
            # A camera that lies on its side.
            send_labelled(server, np.ascontiguousarray(np.rot90(images[300:900], axes=(2, 3))), labels[300:900])
            wait_until(lambda: (tmp_path / "registry/retrain/m.jsonl").exists(), watch, log)
            # It looks on, at the version that was promoted.
            wait_until(lambda: count_looks(log, "m:v2: ") >= 2, watch, log)
            (line,) = place.journal
            assert line["decision"] == "promoted", log.read_text()
            watch.send_signal(signal.SIGTERM)
            assert watch.wait(60) == 0, log.read_text()
        finally:
            if watch.poll() is None:
                watch.kill()
            watch.communicate()
    printed = log.read_text()
    assert "a cycle starts" in printed
    assert printed.count("model     m@champion: ") == 1
    assert "1 cycle, 1 promoted" in printed
    assert json.loads((tmp_path / "registry/retrain/m.watch.json").read_text())["version"] == "m:v2"
