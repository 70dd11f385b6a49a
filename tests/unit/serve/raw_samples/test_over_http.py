"""Raw samples sent to a server of its own process: limits of documents, events, masks and files."""

from __future__ import annotations

import json
from pathlib import Path

from mlscale.data.encoders.document_encoder import DocumentEncoder
from mlscale.serve.served_model import ServedModel
from tests.made_servables import PENGUIN
from tests.serving import RAW, serving
from tests.unit.serve.raw_samples.raw_requests import encode_texts, expect, photographs


def test_a_document_that_is_too_long_is_refused_with_the_limit(
    folders: dict[str, Path], tmp_path: Path, models: dict[str, ServedModel]
) -> None:
    encoder = models["tales"].servable.encoder
    assert isinstance(encoder, DocumentEncoder)
    for size in range(1, 60):
        assert encoder.count_windows(size) == len(encoder.pack_samples(["x" * size]).tensors["bytes"])
    with serving(tmp_path, folders["tales"], "max_batch=4", "max_queue=10") as server:
        most = max(size for size in range(1, 60) if encoder.count_windows(size) <= 10)
        assert server.ask("/predict", b"x" * most, {"Content-Type": "text/plain"}).status == 200
        reply = server.ask("/predict", json.dumps("x" * (most + 1)).encode())
        assert (reply.status, reply.json["error"]) == (
            400,
            "the text is read in 11 windows of 8 bytes; the server takes max_queue=10 of them in a request",
        )
        reply = server.ask("/predict", b"x" * 1000, {"Content-Type": "text/plain"})
        assert reply.status == 413
        assert "it has 1000" in reply.json["error"]
        assert server.stop() == 0


def test_over_http_with_events(folders: dict[str, Path], models: dict[str, ServedModel], tmp_path: Path) -> None:
    with serving(tmp_path, folders["penguins"], "sample_share=1") as server:
        reply = server.ask("/predict", {**PENGUIN, "id": "order-17"})
        assert (reply.status, reply.json["predictions"][0]["id"]) == (200, "order-17")
        assert server.ask("/labels", {"id": "order-17", "label": "Gentoo"}).json == {"accepted": 1}
        assert server.ask("/predict", {"inputs": [PENGUIN] * 900}).status == 200  # in the process
        assert server.stop() == 0
    from mlscale.events.store import EventStore

    events = EventStore(tmp_path / "events").read("penguins", samples=True)
    assert len(events.id) == 901
    assert list(events.inputs) == list(PENGUIN)
    assert [{name: row[name] for name in PENGUIN} for row in events.samples()] == [PENGUIN] * 901
    assert EventStore(tmp_path / "events").joined("penguins").truth.tolist() == ["Gentoo"]
    assert len(min(events.id[1:], key=len)) >= 24


def test_over_http_masks_and_files(folders: dict[str, Path], models: dict[str, ServedModel], tmp_path: Path) -> None:
    with serving(tmp_path, folders["masks"]) as server:
        assert server.ask("/predict", b"x", {"Content-Type": "text/plain"}).status == 415
        assert server.ask("/predict", b"x", RAW).status == 400
        for kind, content in photographs():
            reply = server.ask("/predict", content, {"Content-Type": kind.decode()})
            (answer,) = reply.json["predictions"]
            del answer["id"]
            assert [answer] == expect(models["masks"], [content])
        files = encode_texts([content for _, content in photographs()[:3]])
        entry = {"name": "image", "datatype": "BYTES", "shape": [3], "parameters": {"binary_data_size": len(files)}}
        head = json.dumps({"inputs": [entry]}).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        reply = server.ask("/v2/models/masks/infer", head + files, headers)
        assert reply.json["outputs"][0]["shape"] == [3, 3, 8, 8]
        reply = server.ask("/labels", {"id": "a", "label": "b"})
        assert (reply.status, reply.json["error"][:16]) == (400, "a label is a PNG")
        assert server.stop() == 0
        assert "bug in mlscale" not in server.printed
