"""Events, /metrics and the last line of a server count the same: predicted, failed, rejected; and all versions."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mlscale.commands.serve.entry import _build_serve_result
from mlscale.events.store import EventStore
from mlscale.serve.prometheus import ServerMetrics
from mlscale.serve.server import ServerSummary
from tests import made_servables
from tests.made_servables import PENGUIN, make_servables
from tests.serving import serving


def test_numbers_beyond_float32_are_rejected_and_counted_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Weights of two: they make infinity of a feature over half of float32's largest number.
    monkeypatch.setattr(made_servables, "_rng", SimpleNamespace(normal=lambda size: np.full(size, 2.0)))
    folder = make_servables(tmp_path / "made")["penguins"]
    with serving(tmp_path, folder) as server:
        # Beyond float32; in float32, but not in a layer of the model; and as it should be.
        for length, status in ((1e308, 400), (-1e300, 400), (1.5e39, 400), (39.5, 200), (40.5, 200)):
            reply = server.ask("/predict", {**PENGUIN, "bill_length_mm": length})
            assert reply.status == status, reply.body
        series = {
            outcome: server.metric(f'mlscale_unpredicted_total{{outcome="{outcome}",version="{server.version}"}}')
            for outcome in ("failed", "rejected")
        }
        predicted = server.metric(f'mlscale_predictions_total{{version="{server.version}"}}')
        assert server.stop() == 0
    counted = Counter(EventStore(tmp_path / "events").read("penguins").table["outcome"].to_pylist())
    assert counted == {"ok": 2, "failed": 1, "rejected": 2} == {"ok": predicted, **series}
    assert "requests, 2 samples, 1 failed, 2 rejected" in (tmp_path / "server.out").read_text()


@pytest.mark.parametrize(
    ("predictions", "shown"),
    [
        ({"digits:v1": 3}, "digits:v1 served"),
        ({}, "digits:v1 served"),
        ({"digits:v2": 1, "digits:v1": 3}, "digits:v2 (1 sample), digits:v1 (3 samples) served"),
        ({"digits:v2": 1200}, "digits:v2 (1,200 samples), digits:v1 (0 samples) served"),
    ],
)
def test_all_versions_that_answered_are_named(predictions: dict[str, int], shown: str) -> None:
    metrics = ServerMetrics()
    metrics.predictions.update(predictions)
    summary = ServerSummary(metrics, "digits:v1", 60.0, 0, 0)
    assert _build_serve_result(summary).sentence.startswith(shown)


def test_what_happened_but_once_is_in_the_singular_and_errors_of_the_server_are_named() -> None:
    metrics = ServerMetrics()
    metrics.requests["predict", 500] = 1
    metrics.unpredicted["digits:v1", "failed"] = 1
    metrics.predictions["digits:v1"] = 1
    sentence = _build_serve_result(ServerSummary(metrics, "digits:v1", 60.0, 1, 2)).sentence
    assert sentence == (
        "digits:v1 served for 1 min 00 s: 1 request, 1 sample, 1 failed, 1 answered with an error of the server (5xx), "
        "2 events lost"
    )
