"""The repository that the target writes, without a server: its configurations, files, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from mlscale.errors import MLScaleError
from mlscale.export.engines.engine import Port
from mlscale.export.servable import Servable, load
from mlscale.serve.protocol.v2_codec import encode_tensor
from mlscale.targets import TritonTarget
from mlscale.targets.triton.install_server import VARIABLE
from mlscale.targets.triton.model_config import describe_port
from mlscale.targets.triton.raw_models import encode_raw_sample
from mlscale.targets.triton.running_server import link_repository
from tests.made_servables import PENGUIN, make_quantized_servable, make_servables, make_table_servable


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_servables(tmp_path_factory.mktemp("made"))


def build(servable: Servable, folder: Path, **settings: Any) -> dict[str, ModelConfig]:
    """Build a repository; its configurations by the model's name, as protobuf reads them."""
    folder.mkdir(exist_ok=True)
    TritonTarget(**settings).build(servable, folder)
    return {
        path.parent.name: text_format.Parse(path.read_text(encoding="utf-8"), ModelConfig())
        for path in folder.glob("*/config.pbtxt")
    }


def test_a_table(folders: dict[str, Path], tmp_path: Path) -> None:
    configs = build(load(folders["penguins"]), tmp_path / "triton", instances=2, max_batch=16, version=3)
    assert sorted(configs) == ["penguins", "penguins_decoder", "penguins_encoder", "penguins_raw"]
    model = configs["penguins"]
    assert [(entry.name, list(entry.dims)) for entry in model.input] == [("numbers", [2]), ("texts", [2])]
    assert model.max_batch_size == 16
    assert model.HasField("dynamic_batching")
    assert model.dynamic_batching.max_queue_delay_microseconds == 0
    assert model.instance_group[0].count == 2
    assert model.parameters["intra_op_thread_count"].string_value == "1"
    assert (tmp_path / "triton/penguins/labels.txt").read_text() == "Adelie\nChinstrap\nGentoo\n"
    steps = configs["penguins_raw"].ensemble_scheduling.step
    assert [step.model_name for step in steps] == ["penguins_encoder", "penguins", "penguins_decoder"]
    assert all((tmp_path / "triton" / name / "3").is_dir() for name in configs)
    # Rows need numpy alone, which the server has.
    assert not list((tmp_path / "triton").glob("*/requirements.txt"))


def test_an_image_names_the_packages_that_decode_it(folders: dict[str, Path], tmp_path: Path) -> None:
    build(load(folders["photos"]), tmp_path / "triton")
    lines = (tmp_path / "triton/photos_encoder/requirements.txt").read_text().splitlines()
    assert [line.partition("==")[0] for line in lines] == ["pillow", "simplejpeg"]


def test_tensors_have_no_models_for_raw_samples(folders: dict[str, Path], tmp_path: Path) -> None:
    assert list(build(load(folders["sums"]), tmp_path / "triton")) == ["sums"]


def test_warm_up_requests_are_the_recorded_ones(tmp_path: Path) -> None:
    rows: dict[str, Any] = {"island": ["a", "b", "a", "b"], "mass": np.array([1.0, 2.0, 3.0, 4.0])}
    sample = {"island": "a", "mass": None}
    folder = make_table_servable(tmp_path / "rows", rows, [("first", sample), ("refused", {"island": "a"})])
    servable = load(folder)
    configs = build(servable, tmp_path / "triton", max_batch=8)
    packed = servable.pack_samples([sample]).tensors
    first, full = configs["rows"].model_warmup
    assert (first.batch_size, full.batch_size) == (1, 8)
    for name, values in packed.items():
        path = tmp_path / "triton/rows/warmup" / first.inputs[name].input_data_file
        assert path.read_bytes() == encode_tensor(values)
    (raw,) = configs["rows_encoder"].model_warmup
    content = (tmp_path / "triton/rows_encoder/warmup" / raw.inputs["row"].input_data_file).read_bytes()
    assert json.loads(content[4:]) == sample


@pytest.mark.parametrize("name", ["penguins", "photos", "reviews", "tales"])
def test_the_copied_code_encodes_alike_without_torch(folders: dict[str, Path], tmp_path: Path, name: str) -> None:
    servable = load(folders[name])
    build(servable, tmp_path / "triton")
    raw = {"penguins": PENGUIN, "photos": np.zeros((3, 8, 8), np.uint8), "reviews": "Größe", "tales": "a long tale"}
    code = (
        "import json, pathlib, sys\n"
        "from mlscale.data.encoders.stored_encoder import read_encoder\n"
        "encoder = read_encoder(pathlib.Path('encoder.json'))\n"
        "content = sys.stdin.buffer.read()\n"
        "sample = json.loads(content) if sys.argv[1] == 'penguins' else content\n"
        "tensors = encoder.pack_samples([sample]).tensors\n"
        "print(json.dumps({name: values.tolist() for name, values in tensors.items()}))\n"
        "assert not {'torch', 'hydra', 'omegaconf', 'onnxruntime'} & set(sys.modules)\n"
        "assert __import__('mlscale').__file__.startswith(str(pathlib.Path.cwd()))\n"
    )
    folder = tmp_path / "triton" / f"{name}_encoder" / "1"
    given = subprocess.run(
        [sys.executable, "-c", code, name],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "mlscale.zip")},
        input=encode_raw_sample(raw[name]),
        capture_output=True,
        check=False,
    )
    assert given.returncode == 0, given.stderr.decode()
    expected = servable.pack_samples([raw[name]]).tensors
    assert json.loads(given.stdout) == {key: values.tolist() for key, values in expected.items()}


def test_the_engine_computes_the_model_of_the_repository(folders: dict[str, Path], tmp_path: Path) -> None:
    servable, target = load(folders["reviews"]), TritonTarget()
    build(servable, tmp_path / "triton")
    packed = servable.pack_samples(["good", "bad"]).tensors
    given = target.open_engine(servable, tmp_path / "triton").compute(packed)
    assert np.array_equal(given["logits"], servable.compute(packed)["logits"])


def test_scales_of_a_batch_are_those_of_one_sample(tmp_path: Path) -> None:
    servable = load(make_quantized_servable(tmp_path / "quantized"))
    (config,) = build(servable, tmp_path / "triton", max_batch=64).values()
    assert config.max_batch_size == 1
    assert not config.HasField("dynamic_batching")


def test_ports_of_every_kind() -> None:
    entry = describe_port(Port("mask", "bool", (-1, -1, 4)))
    assert (entry["data_type"], entry["dims"]) == ("TYPE_BOOL", [-1, 4])
    assert describe_port(Port("length", "int64", (-1,))) == {
        "name": "length",
        "data_type": "TYPE_INT64",
        "dims": [1],
        "reshape": {"shape": []},
    }


@pytest.mark.parametrize("kind", ["cpu", "gpu", "auto"])
def test_kinds_of_devices(folders: dict[str, Path], tmp_path: Path, kind: Any) -> None:
    (group,) = build(load(folders["sums"]), tmp_path / "triton", kind=kind)["sums"].instance_group
    assert group.Kind.Name(group.kind) == f"KIND_{kind.upper()}"
    assert group.count == 1 or kind == "cpu"


def test_what_the_server_can_not_have_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    servable = load(folders["photos"])
    labelled = replace(servable, names=replace(servable.names, labels=("a\nb", "c", "d")))
    with pytest.raises(MLScaleError, match=r"can't be in labels\.txt"):
        build(labelled, tmp_path / "labelled")


@pytest.mark.parametrize(
    ("name", "model"), [("a/b", "a_b"), ("Größe Modell", "Gr_e_Modell"), ("v1.2-x", "v1.2-x"), ("..", "model")]
)
def test_a_model_has_the_name_of_its_run(folders: dict[str, Path], tmp_path: Path, name: str, model: str) -> None:
    servable = load(folders["photos"])
    named = replace(servable, document={**servable.document, "name": name})
    build(named, tmp_path / "named")
    expected = {model, *(f"{model}_{part}" for part in ("raw", "encoder", "decoder"))}
    assert {path.name for path in (tmp_path / "named").iterdir()} == expected


def test_without_a_server_it_is_named_what_to_install(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servable, target = load(folders["sums"]), TritonTarget()
    build(servable, tmp_path / "triton")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(VARIABLE, raising=False)
    with (
        pytest.raises(MLScaleError, match="a Triton server is not installed") as caught,
        target.start_server(servable, tmp_path / "triton"),
    ):
        pass
    assert caught.value.exit == 5
    assert "local_server install" in caught.value.fix


def test_the_start_command_installs_what_decodes(folders: dict[str, Path], tmp_path: Path) -> None:
    build(load(folders["photos"]), tmp_path / "triton")
    command = TritonTarget().format_start_command(tmp_path / "triton")
    assert command.startswith("docker run --rm ")
    assert "pip install -r /models/photos_encoder/requirements.txt && exec tritonserver" in command


@pytest.mark.parametrize("name", ["my models", "größe", "a'b", "a$(b)"])
def test_the_server_gets_a_path_that_its_shell_and_python_read(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    with link_repository(folder) as path:
        assert str(path).isascii()
        assert not set(str(path)) & set(" '$()")
        assert path.samefile(folder)
    assert not path.is_symlink()
    assert folder.is_dir()


def test_a_plain_path_is_the_servers_own(tmp_path: Path) -> None:
    (tmp_path / "models-1.0").mkdir()
    with link_repository(tmp_path / "models-1.0") as path:
        assert path == tmp_path / "models-1.0"
