"""The files of OpenVINO, read back, compute what the servable does; its server gets the folder that it expects."""

from __future__ import annotations

import json
import shlex
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from mlscale.errors import MLScaleError
from mlscale.export.servable import load
from mlscale.export.servable_trial import build_trial_batch
from mlscale.targets import OpenVinoTarget
from mlscale.targets.target import TARGETS
from tests.made_servables import make_fourier_servable, make_servables

# Looked for and not imported: what it imports changes the logging of the tests that run after it.
pytestmark = pytest.mark.skipif(
    find_spec("openvino") is None, reason="OpenVINO is not installed: pip install 'mlscale[openvino]'"
)
NAMES = ("penguins", "mass", "reviews", "photos", "tags", "masks", "tales", "sums")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_servables(tmp_path_factory.mktemp("made"))


def build(folder: Path, target: OpenVinoTarget, out: Path) -> Path:
    out.mkdir(parents=True)
    target.build(load(folder), out)
    return out


@pytest.mark.parametrize("name", NAMES)
def test_what_is_read_back_computes_the_same(folders: dict[str, Path], name: str, tmp_path: Path) -> None:
    servable, target = load(folders[name]), OpenVinoTarget()
    out = build(folders[name], target, tmp_path / "openvino")
    assert {path.relative_to(out).as_posix() for path in out.rglob("*.*")} == {"1/model.xml", "1/model.bin"}
    engine = target.open_engine(servable, out)
    assert (engine.inputs, engine.outputs) == (servable.inputs, servable.outputs)
    for rows in (1, 3, 32):
        batch = build_trial_batch(servable, rows, is_typical=True)
        given, wanted = engine.compute(batch), servable.compute(batch)
        for output, values in wanted.items():
            np.testing.assert_allclose(given[output], values, rtol=1e-5, atol=1e-5)


def test_equal_models_give_equal_files_without_paths(folders: dict[str, Path], tmp_path: Path) -> None:
    first, second = (build(folders["photos"], OpenVinoTarget(), tmp_path / name) for name in ("a", "b"))
    for name in ("model.xml", "model.bin"):
        assert (first / "1" / name).read_bytes() == (second / "1" / name).read_bytes()
    assert str(tmp_path).encode() not in (first / "1" / "model.xml").read_bytes()
    assert str(folders["photos"]).encode() not in (first / "1" / "model.xml").read_bytes()


def test_half_precision_halves_the_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    sizes = [
        (build(folders["reviews"], OpenVinoTarget(compress_to_fp16=half), tmp_path / str(half)) / "1" / "model.bin")
        .stat()
        .st_size
        for half in (False, True)
    ]
    assert sizes[1] < 0.6 * sizes[0]


def test_the_command_mounts_the_folder_with_the_version(folders: dict[str, Path]) -> None:
    out = build(folders["photos"], OpenVinoTarget(), folders["photos"] / TARGETS / "openvino")
    words = shlex.split(OpenVinoTarget().format_start_command(out))
    assert words[:2] == ["docker", "run"]
    assert f"{out}:/models/photos:ro" in words
    assert (out / "1" / "model.xml").is_file()
    assert json.loads(words[words.index("--plugin_config") + 1])["INFERENCE_PRECISION_HINT"] == "f32"


def test_a_torn_file_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    out = build(folders["photos"], OpenVinoTarget(), tmp_path / "torn")
    (out / "1" / "model.xml").write_text("<net")
    with pytest.raises(MLScaleError, match=r"model\.xml can't be read"):
        OpenVinoTarget().open_engine(load(folders["photos"]), out)


def test_files_of_another_model_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    out = build(folders["photos"], OpenVinoTarget(), tmp_path / "other")
    with pytest.raises(MLScaleError, match="OpenVINO can't compute the model") as raised:
        OpenVinoTarget().open_engine(load(folders["tales"]), out)
    assert "it lacks" in raised.value.why


def test_a_model_that_fails_is_refused_with_the_keys_of_an_export(tmp_path: Path) -> None:
    servable = load(make_fourier_servable(tmp_path / "waves"))
    out = build(servable.folder, OpenVinoTarget(), tmp_path / "openvino")
    engine = OpenVinoTarget().open_engine(servable, out)
    with pytest.raises(MLScaleError) as raised:
        engine.compute(build_trial_batch(servable, 3, is_typical=True))
    # The key of a server would be unknown to an export.
    assert (raised.value.where, raised.value.fix) == ("target=openvino", "target=onnx, which mlscale serve takes")
