"""POST /predict and /labels: what goes in, what comes out, and what is refused."""

import io
import json
import zlib
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from mlscale.data.decoding.fast_decoder import open_picture
from mlscale.data.decoding.resample import find_middle_box, resize_region
from mlscale.data.encoders.encoder import EncodedSamples
from mlscale.events.store import EventStore
from mlscale.export.engines.engine import Port
from mlscale.export.format1 import build_format1_encoder
from mlscale.export.servable import load
from mlscale.serve.http.request_error import Refused
from mlscale.serve.protocol import image_input as images
from mlscale.serve.protocol import predict_route as predict
from mlscale.serve.served_model import Outputs, ServedModel
from tests.serving import RAW, STORED, Server, pixels, wait_for

SERVABLE = load(STORED)


def events_of(server: Server) -> EventStore:
    """Where it keeps its events."""
    return EventStore(server.log.parent / "events")


def test_the_ways_in_give_the_same(server: Server) -> None:
    raw = pixels(1, 5)
    png, jpeg = io.BytesIO(), simplejpeg.encode_jpeg(np.ascontiguousarray(raw[0].transpose(1, 2, 0)), 100, "GRAY")
    Image.fromarray(raw[0, 0]).save(png, "PNG")
    ways: list[tuple[Any, dict[str, str]]] = [
        (raw.tobytes(), RAW),
        ({"inputs": raw.tolist()}, {}),
        ({"inputs": raw[0].tolist()}, {}),  # one sample alone
        ({"inputs": raw.astype(float).tolist(), "id": "x"}, {"Content-Type": "application/json; charset=utf-8"}),
        (png.getvalue(), {"Content-Type": "image/png"}),
    ]
    printed = [server.ask("/predict", body, headers).json["predictions"][0] for body, headers in ways]
    expected = SERVABLE.predict(raw)
    for each in printed:
        assert (each["label"], each["class"]) == (expected.labels[0], expected.classes[0])
        np.testing.assert_allclose(each["probabilities"], expected.probabilities[0], rtol=1e-5)
        assert each["confidence"] == max(each["probabilities"])
    decoded = simplejpeg.decode_jpeg(jpeg, "GRAY").transpose(2, 0, 1)[None]
    found = server.ask("/predict", jpeg, {"Content-Type": "image/jpeg"}).json["predictions"][0]["probabilities"]
    np.testing.assert_allclose(found, SERVABLE.predict(decoded).probabilities[0], rtol=1e-5)


def test_ids(server: Server) -> None:
    def ids(body: Any, headers: dict[str, str] | None = None) -> list[str]:
        return [each["id"] for each in server.ask("/predict", body, headers).json["predictions"]]

    two = pixels(2).tolist()
    assert ids({"inputs": two, "id": "a"}) == ["a-0", "a-1"]
    assert ids({"inputs": two[:1], "id": "a"}) == ["a"]
    assert ids({"inputs": two, "id": ["p", "q"]}) == ["p", "q"]
    assert ids(pixels(1).tobytes(), {**RAW, "mlscale-id": "h"}) == ["h"]
    ours = [ids({"inputs": two}) for _ in range(5)]
    assert len({id_ for each in ours for id_ in each}) == 10
    for wrong in (["p"], ["p", "p"], ["p", ""], ["p", 1], "x" * 201, {"a": 1}):
        assert server.ask("/predict", {"inputs": two, "id": wrong}).status == 400


def test_an_id_of_any_script_is_the_same_in_header_answer_event_and_label(server: Server) -> None:
    given = "Größe-№7-🐧"
    reply = server.ask("/predict", pixels(1).tobytes(), {**RAW, "mlscale-id": given.encode()})
    assert reply.json["predictions"][0]["id"] == given
    # A client that reads headers as latin-1 gets back the bytes that were sent.
    assert reply.headers["mlscale-id"].encode("latin-1") == given.encode()
    assert server.ask("/labels", {"id": given, "label": "3"}).json == {"accepted": 1}
    wait_for(lambda: given in events_of(server).joined("digits").id)
    wrong = server.ask("/predict", pixels(1).tobytes(), {**RAW, "mlscale-id": given[:5].encode("latin-1")})
    assert (wrong.status, "the header mlscale-id is not UTF-8" in wrong.json["error"]) == (400, True)


def test_the_group_of_a_request_is_that_of_each_event(server: Server) -> None:
    body = {"inputs": pixels(2).tolist(), "id": "of-ann"}
    assert server.ask("/predict", body, {"mlscale-group": "ann"}).status == 200
    assert server.ask("/predict", {**body, "id": "of-none"}, {"mlscale-group": "two words"}).status == 200
    wait_for(lambda: "of-none-1" in events_of(server).read("digits").id)
    events = events_of(server).read("digits")
    groups = dict(zip(events.id, events.get_column("group"), strict=True))
    assert [groups[f"of-{name}-{row}"] for name in ("ann", "none") for row in (0, 1)] == ["ann", "ann", None, None]


@pytest.mark.parametrize(
    ("body", "headers", "status", "reported"),
    [
        (b"{", {}, 400, "the body is not JSON"),
        (b" ", {}, 400, "the body is empty"),
        ({}, {}, 400, "send {"),
        ([1], {}, 400, "send {"),
        ({"inputs": [], "x": 1}, {}, 400, "unknown key 'x'"),
        ({"inputs": []}, {}, 400, "the batch is (0,)"),
        ({"inputs": [[[[1] * 8] * 7]]}, {}, 400, "the batch is (1, 1, 7, 8)"),
        ({"inputs": np.zeros((1, 8, 8, 1)).tolist()}, {}, 400, "channels come first"),
        ({"inputs": [[[[300] * 8] * 8]]}, {}, 400, "do not fit uint8"),
        (b"12345", RAW, 400, "5 bytes are not a whole number of samples"),
        (b"", RAW, 400, "0 bytes are not a whole number of samples"),
        (b"x", {"Content-Type": "text/html"}, 415, "can't read text/html"),
        (b"x", {"Content-Type": "image/svg+xml"}, 415, "can't read image/svg+xml"),
        (b"x", {"Content-Type": "image/png"}, 400, "it is not an image of a known format"),
        (b"\xff\xd8\xff", {"Content-Type": "image/jpeg"}, 400, "the JPEG is cut short in its header"),
    ],
)
def test_what_is_wrong_is_reported(
    server: Server, body: Any, headers: dict[str, str], status: int, reported: str
) -> None:
    reply = server.ask("/predict", body, headers)
    assert (reply.status, reported in reply.json["error"]) == (status, True), reply.body


@pytest.mark.parametrize("sent", ["application/x-www-form-urlencoded", "application/json", None])
def test_an_image_without_its_type_is_reported_how_to_be_sent(server: Server, sent: str | None) -> None:
    png = io.BytesIO()
    Image.new("L", (8, 8)).save(png, "PNG")
    reply = server.ask("/predict", png.getvalue(), {"Content-Type": sent} if sent else {})
    assert (reply.status, reply.json["error"]) == (
        415,
        "the body is an image: send its type, "
        "curl -H 'Content-Type: image/png' --data-binary @photo.png <this address>",
    )
    # A photo is longer than any JSON that the model takes, so it is refused before its first bytes arrive.
    reply = server.ask("/predict", bytes(1 << 20), {"Content-Type": sent} if sent else {})
    assert reply.status == 413
    assert "it has 1048576" in reply.json["error"]


def test_an_image_of_another_size_is_refused_where_no_resize_is_named(server: Server) -> None:
    png = io.BytesIO()
    Image.new("L", (9, 8)).save(png, "PNG")
    reply = server.ask("/predict", png.getvalue(), {"Content-Type": "image/png"})
    reported = (
        "the image has 8×9 pixels (height × width), the model takes 8×8, and its servable.yaml names no way to resize"
    )
    assert (reply.status, reply.json) == (400, {"error": reported})


def test_an_image_of_many_pixels_is_no_load_of_the_server(server: Server) -> None:
    """Some kilobytes that are 36 MB once decoded: elsewhere, and not by what reads all other requests."""

    def send(kind: str) -> None:
        replies.append(server.ask("/predict", png.getvalue(), {"Content-Type": kind}).status)

    def peak() -> int:
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) << 10

    png = io.BytesIO()
    Image.new("L", (6000, 6000)).save(png, "PNG")
    before = peak()
    replies = list[int]()
    clients = [Thread(target=send, args=[kind]) for _ in range(6) for kind in ("image/png", "Image/PNG; q=1")]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert set(replies) <= {400, 503}
    assert replies.count(400) >= 9  # one is decoded, eight wait
    assert peak() - before < 20 << 20
    assert server.ask("/predict", pixels(1).tobytes(), RAW).status == 200


def model_of(
    channels: str | None, resize: Any, shape: tuple[int, ...], dtype: str = "uint8", max_pixels: int | None = None
) -> ServedModel:
    """A model whose servable takes such images; it computes nothing."""
    preprocessing = {
        "channels": channels,
        "layout": "NCHW" if channels else None,
        "resize": resize,
        "max_pixels": max_pixels,
    }
    encoder = build_format1_encoder(shape, dtype, preprocessing)
    document = {**SERVABLE.document, "preprocessing": preprocessing}
    servable = replace(SERVABLE, document=document, encoder=encoder, inputs=(Port("input", dtype, (-1, *shape)),))
    return ServedModel(servable, "m", "m:v1", 0.0, 0.0, 8)


def photograph(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Something smooth, uint8 (height, width, 3)."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 23 + k) + np.cos(y / 31 - k) for k in range(3)]
    return np.ascontiguousarray(((np.stack(waves, -1) + 2) * 63).astype(np.uint8))


@pytest.mark.parametrize("size", [(60, 90), (301, 200), (97, 97), (33, 500)])
@pytest.mark.parametrize("kind", ["image/jpeg", "image/png"])
@pytest.mark.parametrize("channels", ["grey", "RGB"])
def test_images_come_to_size_as_in_training(size: tuple[int, int], kind: str, channels: str) -> None:
    """Against what training does, which resizes by torch."""
    count = 1 if channels == "grey" else 3
    picture = photograph(*size)[..., :count].copy()
    colours = {"colorspace": "GRAY", "colorsubsampling": "Gray"} if count == 1 else {}
    content = simplejpeg.encode_jpeg(picture, 95, **colours) if kind == "image/jpeg" else _png(picture)
    model = model_of(channels, {"short_side": 32, "crop": "centre"}, (count, 32, 32))
    found = images.decode_image_sample(model, content)
    assert (found.dtype, found.shape) == (np.dtype(np.uint8), (1, count, 32, 32))
    opened = open_picture(content)
    expected = resize_region(
        opened.decode_pixels(count), find_middle_box(opened.height, opened.width, (32, 32)), (32, 32)
    ).transpose(2, 0, 1)[None]
    assert np.array_equal(found, expected)


def _png(picture: np.ndarray[Any, Any]) -> bytes:
    content = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.ndim == 3 and picture.shape[2] == 1 else picture).save(content, "PNG")
    return content.getvalue()


def test_what_is_no_image_for_this_model() -> None:
    content = _png(photograph(32, 32))
    for model in (model_of(None, None, (5,)), model_of("RGB", None, (3, 32, 32), "float32")):
        with pytest.raises(Refused, match="takes no image files") as raised:
            images.decode_image_sample(model, content)
        assert raised.value.status == 415
    png, jpeg = bytearray(_png(photograph(9, 9))), bytearray(simplejpeg.encode_jpeg(photograph(9, 9)))
    png[16:24] = (9000).to_bytes(4, "big") * 2
    png[29:33] = zlib.crc32(png[12:29]).to_bytes(4, "big")
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = (9000).to_bytes(2, "big") * 2
    model = model_of("RGB", None, (3, 32, 32), max_pixels=64_000_000)
    for sent in (png, jpeg):
        with pytest.raises(Refused, match="9000×9000 pixels are more than 64,000,000, the limit"):
            images.decode_image_sample(model, bytes(sent))


@pytest.mark.parametrize(
    ("body", "reported"),
    [
        (b"{", "the body is not JSON"),
        ([], "send ["),
        ([1], "send ["),
        ({"label": "7"}, "each label has the id"),
        ({"id": "", "label": "7"}, "each label has the id"),
        ({"id": "a", "label": None}, "a label is the name of a class, or its number from 0 to 9"),
        ([{"id": "a"}], "the entry of 'a' has no \"label\": send [{"),
        ([{"id": "a", "label": 1}, {"id": "b"}], "the entry of 'b' has no"),
        ({"id": "a", "label": 10}, "a label is the name of a class"),
        ({"id": "a", "label": True}, "a label is the name of a class"),
        ({"id": "a", "label": "\ud800"}, "a label is the name of a class"),
        ({"id": "\x00", "label": "7"}, "an id is a text"),
        ({"id": "a", "label": "seven"}, "'seven' is not a class: a label is the name of a class, or its number"),
        ([{"id": "a", "label": "7"}, {"id": "b", "label": "77"}], "is 7 meant? the classes are 0, 1, 2, 3, 4,"),
    ],
)
def test_labels_that_are_wrong(server: Server, body: Any, reported: str) -> None:
    reply = server.ask("/labels", body, {"Content-Type": "application/json"})
    assert (reply.status, reported in reply.json["error"]) == (400, True), reply.body


def test_labels_come_by_number_and_by_name(server: Server) -> None:
    given = [{"id": "n", "label": 3}, {"id": "s", "label": "3"}]
    assert server.ask("/labels", given).json == {"accepted": 2}
    assert server.ask("/labels", {"id": "one", "label": "4"}).json == {"accepted": 1}
    kept = events_of(server).read_labels_by_id("digits")
    assert [kept[id_] for id_ in ("n", "s", "one")] == ["3", "3", "4"]


def test_metrics_are_prometheus_text(server: Server) -> None:
    server.ask("/predict", pixels(3).tobytes(), RAW)  # the series begins with the first one
    before = server.metric('mlscale_requests_total{code="200",route="predict"}')
    server.ask("/predict", pixels(3).tobytes(), RAW)
    assert server.metric('mlscale_requests_total{code="200",route="predict"}') == before + 1
    text = server.ask("/metrics").body.decode()
    lines = text.splitlines()
    names = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    for line in lines:
        if not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            float(value)
            name = series.partition("{")[0]
            assert name in names or name.rsplit("_", 1)[0] in names, line
    buckets = [float(line.rpartition(" ")[2]) for line in lines if line.startswith("mlscale_request_seconds_bucket")]
    assert buckets == sorted(buckets)
    assert buckets[-1] == server.metric("mlscale_request_seconds_count")
    assert server.metric(f'mlscale_model_info{{model="digits",version="{server.version}"}}') == 1


def test_what_is_no_number_is_not_sent_as_json() -> None:
    printed = SERVABLE.predict(pixels(2))
    probabilities = printed.probabilities.copy()
    probabilities[1] = np.nan
    finite = np.array([True, False])
    columns = {"predicted": printed.labels, "class": printed.classes, "confidence": probabilities.max(1)}
    outputs = Outputs({}, {**columns, "probabilities": probabilities}, finite)
    model = model_of("grey", None, (1, 8, 8))
    asked = predict.PredictRequest(EncodedSamples({}, {}), (), "")
    with pytest.raises(Refused, match="no finite numbers"):
        predict.encode_predict_response(model, asked, ["a", "b"], outputs)
    assert predict.encode_predict_response(model, asked, ["a"], outputs[0:1])[1] == b"application/json"


def test_the_page(server: Server) -> None:
    reply = server.ask("/")
    assert reply.headers["Content-Type"] == "text/html"
    assert server.version in reply.body.decode()


def test_json_is_what_it_says(server: Server) -> None:
    assert json.loads(server.ask("/predict", {"inputs": pixels(1).tolist()}).body)["model_name"] == "digits"
