"""The target end to end: built of servables of each kind, asked by messages and over HTTP."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlscale.errors import Exit, MLScaleError
from mlscale.export.engines.engine import Port
from mlscale.export.servable import Servable
from mlscale.export.warmup.write_warmup import write_warmup
from mlscale.targets import TFServingTarget
from mlscale.targets.tfserving.model_server import RestClient, decode_values, encode_values
from tests.task_servables import EXAMPLES, build_examples, get_task_servable, operators_parsed_once

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed: pip install 'mlscale[tfserving]'")

__all__ = ["get_task_servable", "operators_parsed_once"]
ROOT = Path(__file__).parents[4]
Get = Callable[[str], Servable]
DRAWN = build_examples()


def draw(name: str, count: int, seed: int = 3) -> list[Any]:
    """Raw samples of an example."""
    return DRAWN[name].draw(np.random.default_rng(seed), count)


def build(servable: Servable, folder: Path, **settings: Any) -> TFServingTarget:
    target = TFServingTarget(**settings)
    target.build(servable, folder)
    return target


@pytest.mark.usefixtures("operators_parsed_once")
@pytest.mark.parametrize("name", EXAMPLES)
def test_raw_samples_are_answered_as_by_the_servable(name: str, get_task_servable: Get, tmp_path: Path) -> None:
    servable = get_task_servable(name)
    engine = build(servable, tmp_path).open_engine(servable, tmp_path)
    assert {*engine.inputs} == {*servable.inputs}
    by_tensorflow = replace(servable, engine=engine)
    for count in (1, 3, 40):
        packed = servable.pack_samples(draw(name, count))
        expected, computed = servable.compute_samples(packed), by_tensorflow.compute_samples(packed)
        for output, values in expected.items():
            assert computed[output].dtype == values.dtype
            scale = max(1.0, float(np.abs(values).max()))
            np.testing.assert_allclose(computed[output], values, rtol=0, atol=1e-5 * scale)


@pytest.mark.usefixtures("operators_parsed_once")
@pytest.mark.parametrize("name", ["image", "table", "text", "tensors"])
def test_the_servers_own_messages_are_answered(name: str, get_task_servable: Get, tmp_path: Path) -> None:
    predict = pytest.importorskip(
        "tensorflow_serving.apis.predict_pb2", reason="not installed: pip install --no-deps tensorflow-serving-api"
    )
    servable = get_task_servable(name)
    build(servable, tmp_path, version=7)
    packed = servable.pack_samples(draw(name, 5)).tensors
    request = predict.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "example", "serving_default"
    for key, values in packed.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(values))
    # As the server does: a request by name, by the signature's tensors, to a response by name.
    request = predict.PredictRequest.FromString(request.SerializeToString())
    loaded = tf.saved_model.load(str(tmp_path / "example/7"))
    signature = loaded.signatures[request.model_spec.signature_name]
    outputs = signature(**{key: tf.constant(tf.make_ndarray(tensor)) for key, tensor in request.inputs.items()})
    response = predict.PredictResponse()
    for key, values in outputs.items():
        response.outputs[key].CopyFrom(tf.make_tensor_proto(values))
    expected = servable.compute(packed)
    assert response.outputs.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_allclose(tf.make_ndarray(response.outputs[key]), values, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("operators_parsed_once")
def test_recorded_requests_warm_the_server_up(get_task_servable: Get, tmp_path: Path) -> None:
    logs = pytest.importorskip(
        "tensorflow_serving.apis.prediction_log_pb2",
        reason="not installed: pip install --no-deps tensorflow-serving-api",
    )
    servable, samples = get_task_servable("table"), draw("table", 3)
    recorded = tmp_path / "servable"
    recorded.mkdir()
    write_warmup(recorded / "warmup", servable, [(str(number), sample) for number, sample in enumerate(samples)])
    build(replace(servable, folder=_join(servable.folder, recorded)), tmp_path / "target")
    file = tmp_path / "target/example/1/assets.extra/tf_serving_warmup_requests"
    messages = [logs.PredictionLog.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(file))]
    assert len(messages) == 3
    for message, sample in zip(messages, samples, strict=True):
        request = message.predict_log.request
        assert (request.model_spec.name, request.model_spec.signature_name) == ("example", "serving_default")
        packed = servable.pack_samples([sample]).tensors
        assert request.inputs.keys() == packed.keys()
        for key, values in packed.items():
            sent = tf.make_ndarray(request.inputs[key])
            if values.dtype == object:
                assert [text.decode() for text in sent.ravel()] == values.ravel().tolist()
            else:
                np.testing.assert_array_equal(sent, values)


def _join(folder: Path, recorded: Path) -> Path:
    """The folder of a servable with recorded requests."""
    for path in folder.iterdir():
        (recorded / path.name).symlink_to(path)
    return recorded


def test_a_models_name_is_a_folder(get_task_servable: Get, tmp_path: Path) -> None:
    servable = get_task_servable("tensors")
    named = replace(servable, document={**servable.document, "name": "penguins/é v2"})
    command = build(named, tmp_path).format_start_command(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["penguins_é_v2"]
    assert f"{tmp_path}/penguins_é_v2:/models/penguins_é_v2:ro" in shlex.split(command)


@pytest.fixture
def server_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An executable of the server's name, with its flags and its REST interface."""
    binary = tmp_path / "bin/tensorflow_model_server"
    binary.parent.mkdir()
    # Quick and free of what the test's own process has loaded.
    binary.write_text(f'#!/bin/sh\ncd {ROOT}\nexec {sys.executable} -m tests.unit.targets.tfserving.rest_server "$@"\n')
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", f"{binary.parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.usefixtures("operators_parsed_once", "server_on_path")
def test_a_server_is_started_asked_and_stopped(get_task_servable: Get, tmp_path: Path) -> None:
    for name in ("image", "table", "text", "language"):
        servable, folder = get_task_servable(name), tmp_path / name
        target = build(servable, folder)
        assert target.format_start_command(folder) == (
            f"tensorflow_model_server --port=8500 --rest_api_port=8501 --model_name=example "
            f"--model_base_path={folder}/example"
        )
        with target.start_server(servable, folder) as server:
            assert server.product == "TensorFlow Serving 2.19.1-tests"
            for count in (1, 6):
                raw = draw(name, count)
                expected, given = servable.compute_samples(servable.pack_samples(raw)), server.compute_samples(raw)
                for output, values in expected.items():
                    assert given[output].dtype == values.dtype
                    np.testing.assert_allclose(given[output], values, rtol=1e-5, atol=1e-5)
            client = server.servable.engine  # type: ignore[attr-defined]
        # It has ended with the block.
        assert not client.is_ready()


@pytest.mark.usefixtures("operators_parsed_once", "server_on_path")
def test_what_the_server_refuses_is_quoted(get_task_servable: Get, tmp_path: Path) -> None:
    servable, folder = get_task_servable("tensors"), tmp_path / "target"
    with build(servable, folder).start_server(servable, folder) as server:
        client: RestClient = server.servable.engine  # type: ignore[attr-defined]
        with pytest.raises(MLScaleError, match="TensorFlow Serving refuses a request") as raised:
            replace(client, inputs=client.inputs[:1]).compute({"left": np.zeros((1, 3), np.float32)})
        assert raised.value.why.startswith("400: ")
        assert "the signature has" in raised.value.why
        with pytest.raises(MLScaleError, match="refuses a request") as raised:
            replace(client, model="other").compute(servable.pack_samples(draw("tensors", 1)).tensors)
        assert raised.value.why.startswith("404: ")
        two = (*client.outputs, Port("second", "float32", (-1,)))
        with pytest.raises(MLScaleError, match="gives other outputs"):
            replace(client, outputs=two).compute(servable.pack_samples(draw("tensors", 1)).tensors)


def test_without_a_server_the_error_names_what_to_install(
    get_task_servable: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servable = get_task_servable("tensors")
    target = build(servable, tmp_path)
    monkeypatch.setenv("PATH", "")
    with ExitStack() as stack, pytest.raises(MLScaleError, match="not installed") as raised:
        stack.enter_context(target.start_server(servable, tmp_path))
    assert raised.value.exit == Exit.ENVIRONMENT
    assert "tensorflow_model_server" in raised.value.why


def test_values_go_through_json_unchanged() -> None:
    import json

    rng = np.random.default_rng(5)
    for dtype in ("float32", "float64", "int64", "uint8", "bool"):
        values = rng.normal(0, 50, (3, 4)).astype(dtype)
        if dtype.startswith("float"):
            values.flat[:3] = (np.nan, np.inf, -np.inf)
        sent = json.loads(json.dumps(encode_values(values)))
        received = decode_values(sent, Port("x", dtype, (-1, 4)))
        assert received.dtype == dtype
        np.testing.assert_array_equal(received, values)
    texts = np.array([["é", b"\xff\x00"], ["\udcff", ""]], object)
    encoded = json.loads(json.dumps(encode_values(texts)))
    assert encoded == [[{"b64": "w6k="}, {"b64": "/wA="}], [{"b64": "/w=="}, {"b64": ""}]]
