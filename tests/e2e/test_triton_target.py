"""Clients send raw samples and tensors to Triton with an exported repository: it answers as `mlscale serve` does."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from numpy.typing import NDArray
from PIL import Image

from mlscale.export.servable import Servable, load
from tests.made_servables import (
    PENGUIN,
    make_flag_servable,
    make_quantized_servable,
    make_servables,
    make_token_servable,
)
from tests.serving import serving
from tests.tokenizer_files import TEXTS as TOKENIZED
from tests.tokenizer_files import save_words
from tests.triton_server import serving_triton

pytestmark = pytest.mark.slow

Arrays = dict[str, NDArray[Any]]


def draw_images(*sizes: tuple[int, int]) -> list[bytes]:
    """Files of random pixels, PNG and JPEG in turn."""
    files = []
    for number, size in enumerate(sizes):
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(file := io.BytesIO(), ("PNG", "JPEG")[number % 2])
        files.append(file.getvalue())
    return files


ROWS = [PENGUIN, {**PENGUIN, "island": "Größe 🐧"}, {**PENGUIN, "bill_length_mm": None, "sex": None}]
TEXTS = ["Größe 🐧".encode(), b"\xff\0 not UTF-8", b"x" * 40]
TALES = [b"a tale of several windows, which overlap by half", b"b", b"another one"]
IMAGES = draw_images((20, 31), (64, 9), (8, 8), (33, 40))
RAW: dict[str, tuple[str, list[Any]]] = {
    "photos": ("image", IMAGES),
    "tags": ("image", IMAGES),
    "masks": ("image", IMAGES),
    "penguins": ("row", [json.dumps(row).encode() for row in ROWS]),
    "mass": ("row", [json.dumps(row).encode() for row in ROWS]),
    "reviews": ("text", TEXTS),
    "tales": ("text", TALES),
    "words": ("text", [text.encode() for text in TOKENIZED]),
}
SUM = {"left": np.array([1, 2], np.float32), "right": np.array([3, 4], np.float32)}
SAMPLES: dict[str, list[Any]] = {name: raw for name, (_, raw) in RAW.items()}
SAMPLES |= {
    "penguins": ROWS,
    "mass": ROWS,
    "sums": [SUM],
    "flags": [{"flags": np.array([True, False, True]), "numbers": np.array([1, 2, np.pi], np.float32)}],
    "quantized": [np.array([1, 2, np.pi], np.float32)],
}


@dataclass(frozen=True)
class Servers:
    """Both servers, by the address of each."""

    http: str
    grpc: str
    mlscale: dict[str, str]
    servables: dict[str, Servable]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("servers")
    folders = make_servables(folder / "made") | {
        "words": make_token_servable(folder / "words", save_words(folder / "tokenizer.json")),
        "flags": make_flag_servable(folder / "flags"),
        "quantized": make_quantized_servable(folder / "quantized"),
    }
    with ExitStack() as stack:
        command = stack.enter_context(serving_triton(folder, list(folders.values())))
        urls = {}
        for name, path in folders.items():
            (own := folder / f"server-{name}").mkdir()
            urls[name] = stack.enter_context(serving(own, path, "events=null")).url.removeprefix("http://")
        ports = command.ports
        servables = {name: load(path) for name, path in folders.items()}
        yield Servers(f"127.0.0.1:{ports['http']}", f"127.0.0.1:{ports['grpc']}", urls, servables)


def send(address: str, model: str, tensors: Arrays, outputs: list[str], client: Any = tritonclient.http) -> Arrays:
    """Send tensors by tritonclient; the outputs that are named."""
    inputs = []
    for name, values in tensors.items():
        datatype = tritonclient.utils.np_to_triton_dtype(values.dtype)
        inputs.append(client.InferInput(name, list(values.shape), datatype))
        inputs[-1].set_data_from_numpy(values)
    wanted = [client.InferRequestedOutput(name) for name in outputs]
    # Closed: a server waits for its connections when it ends.
    with client.InferenceServerClient(address) as connection:
        result = connection.infer(model, inputs, outputs=wanted)
    return {name: result.as_numpy(name) for name in outputs}


def stack_bytes(values: list[bytes]) -> NDArray[Any]:
    """A tensor of bytes, (n, 1)."""
    array = np.empty((len(values), 1), object)
    array[:, 0] = values
    return array


def assert_equal(triton: Arrays, mlscale: Arrays) -> None:
    """A scalar is [1] in Triton alone; all else is bitwise identical."""
    for name, values in mlscale.items():
        assert triton[name].dtype == values.dtype
        assert np.array_equal(triton[name].reshape(values.shape), values), name


@pytest.mark.parametrize("client", [tritonclient.http, tritonclient.grpc], ids=["http", "grpc"])
@pytest.mark.parametrize("name", RAW)
def test_raw_samples(servers: Servers, name: str, client: Any) -> None:
    servable = servers.servables[name]
    outputs = [port.name for port in servable.outputs]
    if servable.task_type.is_one_class:
        outputs += ["probabilities", "label"]
    taken, raw = RAW[name]
    address = servers.grpc if client is tritonclient.grpc else servers.http
    # Of one batch: in another the last bits may differ, in both servers.
    for batch in (raw, *([sample] for sample in raw)):
        tensors = {taken: stack_bytes(batch)}
        given = send(address, f"{name}_raw", tensors, outputs, client)
        assert_equal(given, send(servers.mlscale[name], name, tensors, outputs))


@pytest.mark.parametrize("client", [tritonclient.http, tritonclient.grpc], ids=["http", "grpc"])
@pytest.mark.parametrize("name", SAMPLES)
def test_tensors(servers: Servers, name: str, client: Any) -> None:
    servable = servers.servables[name]
    packed = servable.pack_samples(SAMPLES[name]).tensors
    outputs = [port.name for port in servable.outputs]
    tensors = {key: values[:, None] if values.ndim == 1 else values for key, values in packed.items()}
    address = servers.grpc if client is tritonclient.grpc else servers.http
    given = send(address, name, tensors, outputs, client)
    assert_equal(given, send(servers.mlscale[name], name, tensors, outputs))
    assert_equal(given, dict(servable.compute(packed)))


@pytest.mark.parametrize("outputs", [["logits"], ["probabilities"], ["label"], ["label", "logits"]])
def test_any_of_the_outputs_may_be_requested(servers: Servers, outputs: list[str]) -> None:
    tensors = {"image": stack_bytes(IMAGES)}
    given = send(servers.http, "photos_raw", tensors, outputs)
    assert_equal(given, send(servers.mlscale["photos"], "photos", tensors, outputs))


def test_scales_of_a_batch_take_a_sample_at_a_time(servers: Servers) -> None:
    given = {"input": np.array([[1, 2, 3], [100, 200, 300]], np.float32)}
    with pytest.raises(tritonclient.utils.InferenceServerException, match="batch-size must be <= 1 for 'quantized'"):
        send(servers.http, "quantized", given, ["sums"])


def test_many_clients_at_once_get_their_own_answers(servers: Servers) -> None:
    files = draw_images(*((8, 8 + number) for number in range(24)))
    expected = [send(servers.mlscale["photos"], "photos", {"image": stack_bytes([file])}, ["label"]) for file in files]
    with ThreadPoolExecutor(8) as pool:
        given = pool.map(
            lambda file: send(servers.http, "photos_raw", {"image": stack_bytes([file])}, ["label"]), files
        )
        for one, wanted in zip(given, expected, strict=True):
            assert one["label"].ravel().tolist() == wanted["label"].tolist()


@pytest.mark.parametrize(
    ("name", "sample", "reason"),
    [
        ("photos", b"no image", "inputs[1] can't be used: "),
        ("penguins", b'{"island": "Dream"}', "inputs[1] can't be used: it lacks the columns"),
        ("penguins", b"{", "inputs[1] can't be used: it is not JSON"),
        ("reviews", b"", "inputs[1] can't be used: it is empty"),
        ("tales", b"a\0b", "inputs[1] can't be used: byte 2 is zero"),
        ("tales", b"x" * 1000, "the documents have 262 windows, and a batch has 64: "),
        ("tales", b"x" * 1000, "export with target.triton.max_batch=262"),
    ],
)
def test_a_bad_sample_is_refused_with_its_reason(servers: Servers, name: str, sample: bytes, reason: str) -> None:
    taken, raw = RAW[name]
    with pytest.raises(tritonclient.utils.InferenceServerException) as caught:
        send(servers.http, f"{name}_raw", {taken: stack_bytes([raw[0], sample])}, [])
    assert reason in caught.value.message()
