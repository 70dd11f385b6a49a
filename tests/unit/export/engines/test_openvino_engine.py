"""OpenVINO computes what ONNX Runtime does, of every task type, in float32 unless asked otherwise."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper

from mlscale.data.encoders.encoder import TensorSpec
from mlscale.data.encoders.tensor_encoder import TensorEncoder
from mlscale.errors import Exit, MLScaleError
from mlscale.export.engines.openvino_engine import OpenVinoEngine, convert_onnx
from mlscale.export.engines.runtime import Runtime
from mlscale.export.servable import load
from mlscale.export.servable_trial import build_trial_batch, load_and_try
from mlscale.serve.served_model import load_model
from tests.made_servables import PENGUIN, make_fourier_servable, make_servables
from tests.serving import RAW, STORED, serving

# Looked for and not imported: what it imports changes the logging of the tests that run after it.
pytestmark = pytest.mark.skipif(
    find_spec("openvino") is None, reason="OpenVINO is not installed: pip install 'mlscale[openvino]'"
)
NAMES = ("penguins", "mass", "reviews", "photos", "tags", "masks", "tales", "sums")
OPENVINO = Runtime("openvino")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_servables(tmp_path_factory.mktemp("made"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [1, 3, 40])
def test_outputs_equal_those_of_onnx_runtime(folders: dict[str, Path], name: str, rows: int) -> None:
    expected, servable = load(folders[name]), load(folders[name], runtime=OPENVINO)
    for is_typical in (True, False):
        batch = build_trial_batch(expected, rows, is_typical=is_typical)
        given, wanted = servable.compute(batch), expected.compute(batch)
        assert given.keys() == wanted.keys()
        for output, values in wanted.items():
            assert given[output].dtype == values.dtype
            np.testing.assert_allclose(given[output], values, rtol=1e-5, atol=1e-5)


def test_raw_samples_and_empty_batches(folders: dict[str, Path]) -> None:
    expected, servable = load(folders["penguins"]), load(folders["penguins"], runtime=OPENVINO)
    rows = [PENGUIN, {**PENGUIN, "sex": None, "bill_length_mm": None}, {**PENGUIN, "island": "Atlantis"}]
    given, wanted = (each.predict_samples(rows).columns["probabilities"] for each in (servable, expected))
    np.testing.assert_allclose(given, wanted, rtol=1e-5)
    assert servable.compute_samples(servable.pack_samples([]))["logits"].shape == (0, 3)


def test_precision_is_f32_unless_asked_otherwise(folders: dict[str, Path]) -> None:
    servable = load(folders["photos"], runtime=OPENVINO)
    assert servable.engine.description.endswith("(f32)")
    assert isinstance(servable.engine, OpenVinoEngine)
    compiled = servable.engine._request.get_compiled_model()
    assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"
    # In a process of its own: 16 bits enlarge what the system saves at a signal, beyond the stack for signals that
    # pytest's faulthandler has set up before, so that any later signal would end this process.
    code = (
        "import sys; from mlscale.export.engines.runtime import Runtime; from mlscale.export.servable import load; "
        "print(load(sys.argv[1], runtime=Runtime('openvino', precision='bf16')).engine.description)"
    )
    words = [sys.executable, "-c", code, str(folders["photos"])]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip().endswith("(bf16)")


def test_several_threads_get_their_own_rows(folders: dict[str, Path]) -> None:
    servable = load(folders["photos"], runtime=OPENVINO)
    batches = [np.full((1 + n % 3, 3, 8, 8), n, np.uint8) for n in range(60)]
    expected = [load(folders["photos"]).compute({"input": batch})["logits"] for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        computed = list(pool.map(lambda batch: servable.compute({"input": batch})["logits"], batches))
    for given, wanted in zip(computed, expected, strict=True):
        np.testing.assert_allclose(given, wanted, rtol=1e-5, atol=1e-5)


def test_an_operator_without_counterpart_is_named() -> None:
    node = helper.make_node("Unheard", ["input"], ["output"], domain="ai.onnx.ml")
    ports: list[Any] = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in ("input", "output")
    ]
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 4)]
    model = helper.make_model(helper.make_graph([node], "g", ports[:1], ports[1:]), opset_imports=imports)
    encoder = TensorEncoder((TensorSpec("input", "float32", (2,)),))
    with pytest.raises(MLScaleError, match="OpenVINO can't compute the model") as raised:
        convert_onnx(model.SerializeToString(), encoder)
    assert "ai.onnx.ml.Unheard" in raised.value.why


def test_other_inputs_than_the_documents_are_refused(folders: dict[str, Path]) -> None:
    servable = load(folders["photos"])
    model = convert_onnx((folders["photos"] / "model.onnx").read_bytes(), servable.encoder)
    with pytest.raises(MLScaleError) as raised:
        OpenVinoEngine(model, servable.encoder, servable.inputs, load(folders["masks"]).inputs)
    assert "it lacks [('input', 'uint8')]" in raised.value.why


def test_rows_of_a_dynamically_quantized_model_do_not_depend_on_each_other(tmp_path: Path) -> None:
    from mlscale.compress.quantize import quantize_model

    weights = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    ports: list[Any] = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in [("input", 4), ("y", 3)]
    ]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "w"], ["y"])],
        "g",
        ports[:1],
        ports[1:],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    fp32 = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()
    int8 = quantize_model(fp32, "dynamic")
    from mlscale.export.engines.computed_rows import is_scaled_by_batch
    from mlscale.export.engines.onnx_engine import OnnxEngine

    assert is_scaled_by_batch(int8)
    assert not is_scaled_by_batch(fp32)
    onnx_engine = OnnxEngine(int8)
    encoder = TensorEncoder((TensorSpec("input", "float32", (4,)),))
    engine = OpenVinoEngine(
        convert_onnx(int8, encoder), encoder, onnx_engine.inputs, onnx_engine.outputs, is_scaled_by_batch=True
    )
    x = np.array([[1, 2, 3, 4], [100, -200, 300, 0]], np.float32)
    np.testing.assert_array_equal(engine.compute({"input": x})["y"][:1], engine.compute({"input": x[:1]})["y"])


def test_it_serves(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (3, 1, 8, 8), np.uint8)
    expected = load(STORED).predict(pixels)
    with serving(tmp_path, STORED, "provider=openvino") as server:
        assert "computed by OpenVINO" in server.printed
        reply = server.ask("/predict", pixels.tobytes(), RAW)
        assert [each["label"] for each in reply.json["predictions"]] == expected.labels
        assert 'mlscale_runtime_info{runtime="OpenVINO ' in server.ask("/metrics").body.decode()
        assert server.stop() == 0


def test_a_served_model_names_it(folders: dict[str, Path]) -> None:
    model = load_model(folders["penguins"], name="p", version="p:v1", max_batch=4, runtime=OPENVINO)
    assert model.runtime.startswith("OpenVINO")


def test_whole_numbers_that_wrap_around_are_noticed(tmp_path: Path) -> None:
    """OpenVINO's CPU computes int64 in 32 bits: hashed n-grams become others, without an error."""
    ports: list[Any] = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", 2]) for name in ("input", "sum")
    ]
    constants = {"factor": np.array([2**40 + 15], np.int64), "size": np.array([1000], np.int64)}
    nodes = [
        helper.make_node("Mul", ["input", "factor"], ["hashed"]),
        helper.make_node("Mod", ["hashed", "size"], ["sum"]),
    ]
    weights = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], weights)
    imports = [helper.make_opsetid("", 20)]
    folder = replace_model(
        make_servables(tmp_path)["sums"], helper.make_model(graph, opset_imports=imports, ir_version=10)
    )
    assert load_and_try(folder).compute({"input": np.ones((1, 2), np.int64)})["sum"].tolist() == [[791, 791]]
    with pytest.raises(MLScaleError, match="computes something else than ONNX Runtime") as raised:
        load_and_try(folder, runtime=OPENVINO)
    assert raised.value.exit is Exit.GATE
    assert "sum differs by " in raised.value.why


def test_a_model_that_openvino_can_not_compute_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MLScaleError):
        load_and_try(make_fourier_servable(tmp_path / "waves"), runtime=OPENVINO)


def replace_model(folder: Path, model: onnx.ModelProto) -> Path:
    """Give a servable another graph of one input and output of whole numbers."""
    content = model.SerializeToString()
    (folder / "model.onnx").write_bytes(content)
    document = yaml.safe_load((folder / "servable.yaml").read_text())
    encoder = TensorEncoder((TensorSpec("input", "int64", (2,)),))
    for key, name in (("inputs", "input"), ("outputs", "sum")):
        document[key] = [{"name": name, "dtype": "int64", "shape": [-1, 2]}]
    document |= {"encoder": encoder.to_document(), "raw_input": encoder.describe_raw_input()}
    document["files"]["model.onnx"] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (folder / "servable.yaml").write_text(yaml.safe_dump(document))
    return folder


def test_fewer_bits_are_let_through_where_they_were_asked_for(folders: dict[str, Path]) -> None:
    for name in NAMES:
        load_and_try(folders[name], runtime=Runtime("openvino", precision="bf16"))


def test_no_telemetry_is_sent_and_the_home_folder_stays_empty(tmp_path: Path) -> None:
    code = "from mlscale.export.engines.openvino_engine import import_openvino as i; i().convert_model; import sys"
    code += "; print([name for name in sys.modules if name.startswith('openvino_telemetry.')])"
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert list(tmp_path.iterdir()) == []
